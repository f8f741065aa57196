package keeper

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// maxLine is how much of a line is one entry of the log; a longer one is
// several, all but the last marked as part.
const maxLine = 16 << 10

// lineCutter makes entries of the log out of what a stream delivers:
//
//	2006-01-02T15:04:05.999999999Z stdout F the line
type lineCutter struct {
	stream  string
	carry   []byte // the beginning of a line whose end has not come
	scratch []byte
}

// cut gives the entries that are complete. They are valid until the next call.
func (l *lineCutter) cut(data []byte, now time.Time) []byte {
	out := l.scratch[:0]
	head := l.head(now)
	for len(data) > 0 {
		room := maxLine - len(l.carry)
		end := bytes.IndexByte(data[:min(room, len(data))], '\n')
		switch {
		case end >= 0:
			out = l.entry(out, head, 'F', data[:end])
			data = data[end+1:]
		case len(data) >= room:
			// The line may end right here: then this is all of it.
			tag := byte('P')
			n := room
			if len(data) > room && data[room] == '\n' {
				tag, n = 'F', room+1
			}
			out = l.entry(out, head, tag, data[:room])
			data = data[n:]
		default:
			l.carry = append(l.carry, data...)
			data = nil
		}
	}
	if cap(out) <= 64<<10 {
		l.scratch = out
	}
	return out
}

// rest gives what came without an end of line.
func (l *lineCutter) rest(now time.Time) []byte {
	if len(l.carry) == 0 {
		return nil
	}
	return l.entry(nil, l.head(now), 'P', nil)
}

func (l *lineCutter) head(now time.Time) []byte {
	b := now.UTC().AppendFormat(make([]byte, 0, 48), time.RFC3339Nano)
	b = append(append(append(b, ' '), l.stream...), ' ')
	return b
}

func (l *lineCutter) entry(out, head []byte, tag byte, line []byte) []byte {
	out = append(append(out, head...), tag, ' ')
	out = append(append(out, l.carry...), line...)
	l.carry = l.carry[:0]
	if cap(l.carry) > 1<<10 {
		l.carry = nil
	}
	return append(out, '\n')
}

// logFile is the log of a container. It is cut by size into PATH, PATH.1 …
type logFile struct {
	path  string
	max   int64
	files int
	warn  *slog.Logger

	mu     sync.Mutex
	file   *os.File
	size   int64
	failed bool
}

const (
	defaultLogSize  = 10 << 20
	defaultLogFiles = 5
)

// write appends entries. A disk that is full costs the entries, never the
// container.
func (l *logFile) write(entries []byte) {
	if len(entries) == 0 || l.path == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	limit := l.max
	if limit <= 0 {
		limit = defaultLogSize
	}
	for len(entries) > 0 {
		if l.file == nil && !l.open() {
			return
		}
		if l.size >= limit {
			l.rotate()
			continue
		}
		// As much as fits, in whole entries, and at least one.
		n := len(entries)
		if room := limit - l.size; int64(n) > room {
			n = bytes.LastIndexByte(entries[:room], '\n') + 1
			if n == 0 {
				if l.size > 0 {
					l.rotate()
					continue
				}
				n = bytes.IndexByte(entries, '\n') + 1
			}
		}
		wrote, err := l.file.Write(entries[:n])
		l.size += int64(wrote)
		if err != nil {
			l.fail(err)
			return
		}
		entries = entries[n:]
	}
}

func (l *logFile) fail(err error) {
	if !l.failed {
		l.failed = true // once: it may be as many as there are lines
		l.warn.Warn("output of a container is lost", "path", l.path, "err", err)
	}
}

func (l *logFile) open() bool {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(l.path), 0o755); err == nil {
			f, err = os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		}
	}
	if err != nil {
		l.fail(err)
		return false
	}
	if fi, err := f.Stat(); err == nil {
		l.size = fi.Size()
	}
	l.file = f
	return true
}

func (l *logFile) rotate() {
	l.file.Close() //nolint:errcheck // all was written
	l.file = nil
	files := l.files
	if files <= 0 {
		files = defaultLogFiles
	}
	for i := files - 1; i >= 1; i-- {
		from := l.path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", l.path, i-1)
		}
		os.Rename(from, fmt.Sprintf("%s.%d", l.path, i)) //nolint:errcheck // there may be fewer
	}
	if files == 1 {
		os.Remove(l.path) //nolint:errcheck
	}
	l.size = 0
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil && l.path != "" {
		l.open() // a container that printed nothing has an empty log
	}
	if l.file != nil {
		l.file.Close() //nolint:errcheck
		l.file = nil
	}
}

// removeLogs removes a log with all its parts.
func removeLogs(path string, files int) {
	if path == "" {
		return
	}
	if files <= 0 {
		files = defaultLogFiles
	}
	os.Remove(path) //nolint:errcheck // may not be there
	for i := 1; i < files; i++ {
		os.Remove(fmt.Sprintf("%s.%d", path, i)) //nolint:errcheck
	}
}
