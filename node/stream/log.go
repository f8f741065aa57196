package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// logOptions are the parameters of a request for logs.
type logOptions struct {
	follow, timestamps bool
	previous           bool
	tail               int64 // lines; -1: all
	limit              int64 // bytes; -1: no limit
	since              time.Time
	stream             string // "stdout", "stderr" or "" for both
}

func readLogOptions(q url.Values, now time.Time) (logOptions, error) {
	o := logOptions{tail: -1, limit: -1}
	for name, to := range map[string]*bool{"follow": &o.follow, "timestamps": &o.timestamps, "previous": &o.previous} {
		if v := q.Get(name); v != "" {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return o, fmt.Errorf("%s=%q: want true or false", name, v)
			}
			*to = b
		}
	}
	for name, to := range map[string]*int64{"tailLines": &o.tail, "limitBytes": &o.limit} {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return o, fmt.Errorf("%s=%q: want a number that is not negative", name, v)
			}
			*to = n
		}
	}
	if v := q.Get("sinceSeconds"); v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 1 {
			return o, fmt.Errorf("sinceSeconds=%q: want a number above 0", v)
		}
		o.since = now.Add(-time.Duration(n) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" {
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return o, fmt.Errorf("sinceTime=%q: want a time such as 2006-01-02T15:04:05Z (RFC 3339)", v)
		}
		o.since = t
	}
	switch v := q.Get("stream"); v {
	case "", "All":
	case "Stdout":
		o.stream = "stdout"
	case "Stderr":
		o.stream = "stderr"
	default:
		return o, fmt.Errorf("stream=%q: want All, Stdout or Stderr", v)
	}
	return o, nil
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	o, err := readLogOptions(r.URL.Query(), time.Now())
	if err != nil {
		refuse(w, err)
		return
	}
	c, ok := s.find(w, r, o.previous)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	w.Header().Set("Content-Type", "text/plain")
	out := &logWriter{w: bufio.NewWriterSize(w, 32<<10), o: o, left: o.limit}
	out.flush = func() error {
		if err := out.w.Flush(); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	if err := copyLog(ctx, out, c, o); err != nil && ctx.Err() == nil && !errors.Is(err, errLogLimit) {
		s.cfg.Log.Debug("a log was not sent to its end", "container", c.ID.Name, "error", err)
	}
	_ = out.flush()
}

// errLogLimit ends a log at limitBytes.
var errLogLimit = errors.New("the limit is reached")

// logWriter sends what a client wants of each line.
type logWriter struct {
	w     *bufio.Writer
	o     logOptions
	left  int64 // bytes; -1: no limit
	skip  int64 // full lines
	flush func() error
}

// line takes one line of a log in CRI's format, with its end.
func (l *logWriter) line(b []byte) error {
	rec, ok := parseLog(b)
	if !ok || l.o.stream != "" && l.o.stream != string(rec.stream) || !l.o.since.IsZero() && rec.before(l.o.since) {
		return nil
	}
	if l.skip > 0 {
		if !rec.partial {
			l.skip--
		}
		return nil
	}
	if l.o.timestamps {
		if err := l.write(rec.time); err != nil {
			return err
		}
		if err := l.write([]byte{' '}); err != nil {
			return err
		}
	}
	if err := l.write(rec.text); err != nil || rec.partial {
		return err
	}
	return l.write([]byte{'\n'})
}

func (l *logWriter) write(b []byte) error {
	if l.left >= 0 {
		if int64(len(b)) > l.left {
			_, _ = l.w.Write(b[:l.left])
			l.left = 0
			return errLogLimit
		}
		l.left -= int64(len(b))
	}
	_, err := l.w.Write(b)
	return err
}

// record is one line of a log: "time stream tag text".
type record struct {
	time, stream, text []byte
	partial            bool
}

func parseLog(b []byte) (record, bool) {
	b = bytes.TrimSuffix(b, []byte{'\n'})
	var r record
	var tag []byte
	var ok1, ok2, ok3 bool
	r.time, b, ok1 = bytes.Cut(b, []byte{' '})
	r.stream, b, ok2 = bytes.Cut(b, []byte{' '})
	tag, r.text, ok3 = bytes.Cut(b, []byte{' '})
	r.partial = len(tag) > 0 && tag[0] == 'P'
	return r, ok1 && ok2 && (ok3 || len(tag) > 0)
}

func (r *record) before(t time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, string(r.time))
	return err == nil && at.Before(t)
}

// logFiles lists the files of a log that are there, the oldest first.
func logFiles(path string) []string {
	files := []string{path}
	for i := 1; ; i++ {
		old := path + "." + strconv.Itoa(i)
		if _, err := os.Stat(old); err != nil {
			return files
		}
		files = append([]string{old}, files...)
	}
}

// copyLog sends a log, and with follow what comes until the container ends.
func copyLog(ctx context.Context, out *logWriter, c Container, o logOptions) error {
	if o.tail >= 0 {
		lines, err := countLines(c.LogPath, o)
		if err != nil {
			return err
		}
		out.skip = max(0, lines-o.tail)
	}
	files := logFiles(c.LogPath)
	for _, path := range files[:len(files)-1] {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // rotated away since
		}
		if err != nil {
			return err
		}
		err = eachLine(bufio.NewReaderSize(f, 64<<10), out.line)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return followLog(ctx, out, c, o)
}

// countLines counts the full lines that are not left out.
func countLines(path string, o logOptions) (int64, error) {
	var n int64
	for _, p := range logFiles(path) {
		f, err := os.Open(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		err = eachLine(bufio.NewReaderSize(f, 64<<10), func(b []byte) error {
			r, ok := parseLog(b)
			if ok && !r.partial && (o.stream == "" || o.stream == string(r.stream)) && (o.since.IsZero() || !r.before(o.since)) {
				n++
			}
			return nil
		})
		_ = f.Close()
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// eachLine calls f for each full line, and for what is left without an end.
func eachLine(r *bufio.Reader, f func([]byte) error) error {
	for {
		b, err := readLine(r, nil)
		if len(b) > 0 {
			if err := f(b); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// longestLine is what is kept of a line; the runtime splits them at 16 KiB.
const longestLine = 1 << 20

// readLine reads to the end of a line and puts it behind have.
func readLine(r *bufio.Reader, have []byte) ([]byte, error) {
	for {
		b, err := r.ReadSlice('\n')
		if room := longestLine - len(have); len(b) > room {
			b = b[:max(0, room)]
		}
		have = append(have, b...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return have, err
		}
	}
}

// poll is how often a followed log is looked at.
const poll = 100 * time.Millisecond

// followLog sends the current file; with follow also what is written to it, and
// to the files that take its place.
func followLog(ctx context.Context, out *logWriter, c Container, o logOptions) error {
	var f *os.File
	defer func() {
		if f != nil {
			_ = f.Close()
		}
	}()
	var r *bufio.Reader
	var rest []byte // of a line that is not all there
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		// Asked before the file is read: what a container wrote before it ended
		// is in the file by then.
		running := c.Running != nil && c.Running()
		if f == nil {
			var err error
			if f, err = os.Open(c.LogPath); err == nil {
				r = bufio.NewReaderSize(f, 64<<10)
			} else if !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		moved := f != nil && replaced(f, c.LogPath)
		for f != nil {
			b, err := readLine(r, rest)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if rest = b; err != nil {
				break
			}
			if err := out.line(b); err != nil {
				return err
			}
			rest = rest[:0]
		}
		if moved {
			_ = f.Close()
			f, rest = nil, nil
			continue
		}
		if !o.follow || !running {
			if len(rest) > 0 {
				return out.line(rest)
			}
			return nil
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// replaced says whether the path is another file by now.
func replaced(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && !os.SameFile(a, b)
}
