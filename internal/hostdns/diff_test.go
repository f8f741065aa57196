package hostdns

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	old := "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n"
	for name, c := range map[string]struct{ old, now string }{
		"at the start":   {old, "0\n" + old},
		"at the end":     {old, old + "13\n"},
		"two places":     {old, "0\n" + strings.Replace(old, "11\n", "", 1)},
		"places nearby":  {old, strings.Replace(strings.Replace(old, "3\n", "", 1), "9\n", "nine\n", 1)},
		"no end of line": {"a\nb", "a\nb\nc\n"},
		"made":           {"", "a\n"},
		"emptied":        {"a\nb\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := unified("f", []byte(c.old), []byte(c.now), true, true)
			patch, err := exec.LookPath("patch")
			if err != nil {
				t.Skip("patch is not installed: it is what reads diffs")
			}
			p := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(p, []byte(c.old), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(patch, "-s", p)
			cmd.Stdin = strings.NewReader(d)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v %s\n%s", err, out, d)
			}
			if got, _ := os.ReadFile(p); string(got) != c.now {
				t.Errorf("the diff\n%smakes %q, want %q", d, got, c.now)
			}
		})
	}
	if d := unified("f", []byte("a"), []byte("a"), true, true); d != "" {
		t.Error(d)
	}
}
