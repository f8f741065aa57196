package process

import (
	"bytes"
	"io"
	"sync"
)

// lineMax is how much of a line without end is held back.
const lineMax = 64 << 10

// prefixWriter puts a prefix before each line and writes whole lines only, so
// that the replicas' output does not mix within a line. mu is shared by all
// writers of one terminal.
type prefixWriter struct {
	mu     *sync.Mutex
	to     io.Writer
	prefix string
	held   []byte
}

// Write never fails: a closed terminal must not stop the process behind it.
func (w *prefixWriter) Write(p []byte) (int, error) {
	n := len(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			w.held = append(w.held, p...)
			if len(w.held) >= lineMax {
				w.line(nil)
			}
			break
		}
		w.line(p[:i])
		p = p[i+1:]
	}
	return n, nil
}

// Flush writes what is left of a line that did not end.
func (w *prefixWriter) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.held) > 0 {
		w.line(nil)
	}
}

func (w *prefixWriter) line(rest []byte) {
	b := make([]byte, 0, len(w.prefix)+len(w.held)+len(rest)+1)
	b = append(b, w.prefix...)
	b = append(b, w.held...)
	b = append(b, rest...)
	b = append(b, '\n')
	w.held = w.held[:0]
	_, _ = w.to.Write(b)
}
