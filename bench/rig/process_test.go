package rig

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for _, x := range []struct {
		text string
		want time.Duration
		bad  bool
	}{
		{text: "42 (etcd) S 1 42 42 0 -1 4194560 900 0 3 0 150 25 0 0 20 0 9 0 100 1 2", want: 1750 * time.Millisecond},
		{text: "42 (a) b (c) S 1 42 42 0 -1 4194560 900 0 3 0 7 0 0 0 20 0 9 0 100 1 2", want: 70 * time.Millisecond},
		{text: "42 (etcd) S 1 42", bad: true},
		{text: "", bad: true},
		{text: "42 (etcd) S 1 42 42 0 -1 4194560 900 0 3 0 x 25 0 0", bad: true},
	} {
		got, err := parseStat([]byte(x.text))
		if (err != nil) != x.bad || !x.bad && got != x.want {
			t.Errorf("%q: %s, %v, want %s", x.text, got, err, x.want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus([]byte("Name:\tetcd\nVmRSS:\t    3000 kB\nRssAnon:\t    2000 kB\nRssFile:\t    1000 kB\nThreads:\t9\n"))
	if want := (Memory{3000 << 10, 2000 << 10, 1000 << 10}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "VmRSS:\tmuch kB\n", "Threads:\t9\n"} {
		if m, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q: %+v, want an error", bad, m)
		}
	}
}

// A real process: what it costs can be read while it lives, and its end is
// told with what it said.
func TestProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("this system has no /proc: ", err)
	}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("no cat to run: ", err)
	}
	p, err := run(t.TempDir(), cat, "/dev/null", "/there/is/no/such/file")
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.stop(); err == nil {
		t.Error("no word about the process that ended by itself")
	}
	s := Server{procs: []*process{p}}
	if _, err := s.CPU(); err == nil {
		t.Error("CPU of a process that is gone")
	}
}
