package iptables

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestClockIsSet: what was refused is tried again, and what others removed is
// put back, in their time, whatever happens to the wall clock.
func TestClockIsSet(t *testing.T) {
	for _, jump := range viptest.Jumps() {
		t.Run(jump.String(), func(t *testing.T) {
			program(t, Legacy, "")
			alone(t)
			clock := viptest.NewClock(t)
			r := newRig(t, Legacy)
			r.d.cfg.Now = clock.Now
			r.put(service(nil), "10.244.0.1")
			want := saveOf(t, Legacy)
			f := r.d.families[0]
			works := f.restoreArg
			broken := filepath.Join(t.TempDir(), "restore")
			if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no >>"+broken+".log\nexit 1\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			spoil := func() {
				run(t, "", append(program(t, Legacy, "iptables"), "-t", "nat", "-F", "KUBE-SERVICES")...)
			}

			spoil()
			f.restoreArg = []string{broken}
			clock.Pass(r.d.cfg.Resync)
			r.d.tick()
			if !f.wrong {
				t.Fatal("a repair that was refused is taken for done")
			}
			clock.Set(jump)
			for range 4 {
				r.d.tick()
			}
			if log, err := os.ReadFile(broken + ".log"); err != nil || string(log) != "no\n" {
				t.Errorf("tried %q (%v) before its time", log, err)
			}
			f.restoreArg = works
			clock.Pass(time.Minute)
			r.d.tick()
			if got := saveOf(t, Legacy); f.wrong || got != want {
				t.Errorf("wrong is %v, the rules:\n%s", f.wrong, got)
			}

			spoil()
			clock.Set(-2 * jump)
			clock.Pass(r.d.cfg.Resync + time.Minute)
			r.d.tick()
			if got := saveOf(t, Legacy); got != want {
				t.Errorf("what others removed stays away:\n%s", got)
			}
		})
	}
}
