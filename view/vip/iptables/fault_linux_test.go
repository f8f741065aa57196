package iptables

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// TestRefusal: when iptables-restore fails, Apply says so with the rule, and
// everything is written when it works again, with pauses between.
func TestRefusal(t *testing.T) {
	program(t, Legacy, "")
	alone(t)
	now := time.Unix(1_700_000_000, 0)
	r := newRig(t, Legacy)
	r.d.cfg.Now = func() time.Time { return now }
	r.put(service(nil), "10.244.0.1")
	f := r.d.families[0]
	works := f.restoreArg
	broken := filepath.Join(t.TempDir(), "restore")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\ncat >/dev/null\necho 'iptables-restore: line 2 failed' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.restoreArg = []string{broken}
	r.c.Update(func(tx *catalog.Txn) { tx.PutEndpoints(key, endpoints("10.244.0.2")) })
	err := r.d.Apply(context.Background(), r.s.TryNext())
	if err == nil || !strings.Contains(err.Error(), "line 2 failed (:KUBE-") {
		t.Fatalf("Apply says %v; want the line that was refused", err)
	}
	for _, wait := range []time.Duration{retryFirst, 2 * retryFirst, 4 * retryFirst} {
		if !f.wrong || f.retryAt.Sub(now) != wait {
			t.Errorf("tries again in %s, want %s", f.retryAt.Sub(now), wait)
		}
		now = f.retryAt
		r.d.tick()
	}
	f.restoreArg = works
	r.d.tick()
	if f.wrong == false {
		t.Error("tried again before its time")
	}
	now = f.retryAt
	r.d.tick()
	if got := saveOf(t, Legacy); f.wrong || !strings.Contains(got, "--to-destination 10.244.0.2:8080") || strings.Contains(got, "10.244.0.1:8080") {
		t.Errorf("wrong is %v, the rules:\n%s", f.wrong, got)
	}
}

// TestEarly: an empty catalog that is not synced takes nothing away.
func TestEarly(t *testing.T) {
	program(t, Legacy, "")
	alone(t)
	newRig(t, Legacy).put(service(nil), "10.244.0.1")
	before := saveOf(t, Legacy)
	r := newRig(t, Legacy)
	now := time.Now()
	r.d.cfg.Now = func() time.Time { return now }
	r.do(func(*catalog.Txn) {})
	if got := saveOf(t, Legacy); got != before {
		t.Errorf("after the first look at an empty catalog:\n%s", got)
	}
	now = now.Add(2 * holdFor)
	r.do(func(*catalog.Txn) {})
	if got := saveOf(t, Legacy); strings.Contains(got, "KUBE-SVC-") {
		t.Errorf("what no service wants stays:\n%s", got)
	}
}

// TestFlavours: auto goes where the rules are.
func TestFlavours(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		run(t, foreign, append(program(t, flavour, "iptables-restore"), "--noflush")...)
		run(t, foreign6, append(program(t, flavour, "ip6tables-restore"), "--noflush")...)
		if err := Probe(Config{}); err != nil {
			t.Fatal(err)
		}
		d, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Flavour(false) != flavour || d.Flavour(true) != flavour {
			t.Errorf("%q and %q where the rules are %s", d.Flavour(false), d.Flavour(true), flavour)
		}
		if out := saveOf(t, flavour); strings.Contains(out, chainProbe) {
			t.Errorf("the probe left something:\n%s", out)
		}
	})
	if _, err := New(Config{Flavour: "ebtables"}); err == nil || !strings.Contains(err.Error(), "use auto, legacy or nft") {
		t.Errorf("a flavour that nobody knows: %v", err)
	}
}

const foreign6 = "*filter\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
