package kernel

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestReleaseStartPages(t *testing.T) {
	before := residentFile(t)
	if err := ReleaseStartPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentFile(t); after > before {
		t.Errorf("resident file pages grew from %d to %d kB", before, after)
	}
	// The program still works: run through code that was dropped.
	if err := ReleaseStartPages(); err != nil {
		t.Fatal(err)
	}
}

func residentFile(t *testing.T) (kB int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if n, err := fmt.Sscanf(line, "RssFile: %d kB", &kB); n == 1 && err == nil {
			return kB
		}
	}
	t.Fatal("no RssFile in /proc/self/status")
	return 0
}

func TestReadOnlyMapping(t *testing.T) {
	for line, want := range map[string]bool{
		"00400000-00452000 r-xp 00000000 08:02 173521 /bin/x": true,
		"00651000-00652000 r--p 00051000 08:02 173521 /bin/x": true,
		"00652000-00655000 rw-p 00052000 08:02 173521 /bin/x": false,
		"00400000-00452000 r-xp 00000000 08:02 173521 /bin/y": false,
		"7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]":     false,
		"garbage /bin/x": false,
	} {
		if _, _, ok := readOnlyMapping(line, "/bin/x"); ok != want {
			t.Errorf("%q: %v, want %v", line, ok, want)
		}
	}
}
