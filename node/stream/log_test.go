package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func at(second int) string {
	return time.Date(2026, 11, 21, 4, 0, second, 5, time.UTC).Format(time.RFC3339Nano)
}

// writeLog makes a log with one rotated file.
func writeLog(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	old := at(1) + " stdout F one\n" + at(2) + " stderr F two\n" + at(3) + " stdout P thr\n"
	now := at(3) + " stdout F ee\n" + "broken line\n" + at(4) + " stdout F \n" + at(5) + " stdout F five"
	for p, text := range map[string]string{path + ".1": old, path: now} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func read(t *testing.T, path, query string) string {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	o, err := readLogOptions(q, time.Date(2026, 11, 21, 4, 0, 10, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	out := &logWriter{w: bufio.NewWriter(&text), o: o, left: o.limit}
	out.flush = out.w.Flush
	if err := copyLog(t.Context(), out, Container{LogPath: path}, o); err != nil && err != errLogLimit {
		t.Fatal(err)
	}
	_ = out.flush()
	return text.String()
}

func TestLogs(t *testing.T) {
	path := writeLog(t)
	for query, want := range map[string]string{
		"":                               "one\ntwo\nthree\n\nfive\n",
		"tailLines=2":                    "\nfive\n",
		"tailLines=3":                    "three\n\nfive\n",
		"tailLines=0":                    "",
		"tailLines=99":                   "one\ntwo\nthree\n\nfive\n",
		"stream=Stderr":                  "two\n",
		"stream=Stdout&tailLines=4":      "one\nthree\n\nfive\n",
		"sinceSeconds=7":                 "three\n\nfive\n",
		"sinceTime=2026-11-21T04:00:04Z": "\nfive\n",
		"limitBytes=5":                   "one\nt",
		"timestamps=true&tailLines=1":    at(5) + " five\n",
		"tailLines=1&sinceSeconds=1":     "",
	} {
		if got := read(t, path, query); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
}

func TestLogOptionsRefused(t *testing.T) {
	for _, query := range []string{"tailLines=-1", "tailLines=x", "limitBytes=1.5", "sinceSeconds=0", "sinceTime=yesterday", "follow=perhaps", "stream=stdin"} {
		q, _ := url.ParseQuery(query)
		if _, err := readLogOptions(q, time.Now()); err == nil || !strings.Contains(err.Error(), "want") {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// TestFollow reads what is written while it is read, across a rotation, and
// ends with the container.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var running atomic.Bool
	running.Store(true)
	lines := make(chan string, 100)
	out := &logWriter{w: bufio.NewWriter(lineSink(lines)), left: -1, o: logOptions{follow: true, tail: -1}}
	out.flush = out.w.Flush
	done := make(chan error, 1)
	go func() {
		err := copyLog(context.Background(), out, Container{LogPath: path, Running: running.Load}, out.o)
		done <- errors.Join(err, out.flush())
	}()
	write := func(format string, a ...any) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		fmt.Fprintf(f, format, a...)
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-lines:
			if got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%q does not come", want)
		}
	}
	write("%s stdout F one\n%s stdout F tw", at(1), at(2))
	expect("one\n")
	write("o\n")
	expect("two\n")
	write("%s stdout F three\n", at(3))
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("%s stdout F four\n", at(4))
	expect("three\n")
	expect("four\n")
	write("%s stdout F last\n", at(5))
	running.Store(false)
	expect("last\n")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// lineSink gives lines to a channel.
type lineSink chan string

func (s lineSink) Write(b []byte) (int, error) {
	for l := range strings.Lines(string(b)) {
		s <- l
	}
	return len(b), nil
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("2026-11-21T04:00:00Z stdout F text\n"))
	f.Add([]byte(" P \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := &logWriter{w: bufio.NewWriter(&strings.Builder{}), left: 100, o: logOptions{timestamps: true, since: time.Unix(1, 0)}}
		_ = eachLine(bufio.NewReader(strings.NewReader(string(b))), l.line)
	})
}
