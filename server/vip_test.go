package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

func TestPickMode(t *testing.T) {
	no := func() error { return errors.New("the kernel says no") }
	yes := func() error { return nil }
	modes := []proxyMode{{name: "a", kernel: true, probe: no}, {name: "b", kernel: true, probe: yes}, {name: "asked", asked: true, probe: yes}, {name: "c", probe: yes}}
	any := func(*proxyMode) error { return nil }
	noKernel := func(m *proxyMode) error {
		if m.kernel {
			return errors.New("loopback")
		}
		return nil
	}
	for _, tt := range []struct {
		want  string
		check func(*proxyMode) error
		got   string
		says  []string // in the log, or in the error
	}{
		{"", any, "b", []string{"not a: the kernel says no"}},
		{"auto", noKernel, "c", []string{"not a: loopback", "not b: loopback"}},
		{"asked", any, "asked", []string{"asked for"}},
		{"a", any, "", []string{"a cannot be had", "the kernel says no", "auto"}},
		{"b", noKernel, "", []string{"loopback"}},
		{"x", any, "", []string{"not known"}},
	} {
		var log bytes.Buffer
		m, err := pickMode(tt.want, modes, tt.check, slog.New(slog.NewTextHandler(&log, nil)))
		got, said := "", log.String()
		if m != nil {
			got = m.name
		}
		if err != nil {
			said += err.Error()
		}
		if got != tt.got {
			t.Errorf("%q: got %q, want %q (%s)", tt.want, got, tt.got, said)
		}
		for _, s := range tt.says {
			if !strings.Contains(said, s) {
				t.Errorf("%q: %q does not say %q", tt.want, said, s)
			}
		}
	}
}

func TestWithout(t *testing.T) {
	for _, tt := range []struct{ from, hole string }{
		{"10.96.0.0/16", "10.96.0.10"}, {"fd96::/112", "fd96::a"}, {"10.96.0.10/32", "10.96.0.10"}, {"10.96.0.8/30", "10.96.0.10"}, {"10.96.0.0/16", "10.97.0.1"},
	} {
		p, hole := netip.MustParsePrefix(tt.from), netip.MustParseAddr(tt.hole)
		parts := without(p, hole)
		has := func(a netip.Addr) bool {
			return slices.ContainsFunc(parts, func(q netip.Prefix) bool { return q.Contains(a) })
		}
		if has(hole) && p.Contains(hole) {
			t.Errorf("%s: %v still has %s", p, parts, hole)
		}
		for _, a := range []netip.Addr{p.Addr(), hole.Prev(), hole.Next(), hole.Next().Next()} {
			if has(a) != (p.Contains(a) && (a != hole)) {
				t.Errorf("%s without %s: %v and %s", p, hole, parts, a)
			}
		}
		for i := range parts {
			for j := range i {
				if parts[i].Overlaps(parts[j]) {
					t.Errorf("%s overlaps %s", parts[i], parts[j])
				}
			}
		}
	}
}

type recorder struct{ said []string }

func (r *recorder) Apply(context.Context, catalog.Batch) error {
	r.said = append(r.said, "apply")
	return nil
}
func (r *recorder) Run(context.Context) error { return nil }

func TestHandoverWaitsForTheFirstSync(t *testing.T) {
	cat := catalog.New(nil)
	sub := cat.Subscribe()
	defer sub.Close()
	r := &recorder{}
	h := &handover{driver: r, clean: func() { r.said = append(r.said, "clean") }}
	apply := func() {
		if err := h.Apply(t.Context(), sub.TryNext()); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	cat.Update(func(txn *catalog.Txn) { txn.SetFreshness(catalog.Freshness{Synced: true}) })
	apply()
	cat.Update(func(txn *catalog.Txn) { txn.PutNamespace("x") })
	apply()
	if want := []string{"apply", "apply", "clean", "apply"}; !slices.Equal(r.said, want) {
		t.Errorf("got %q, want %q", r.said, want)
	}
}

func TestProxyModeIsKept(t *testing.T) {
	c := &Config{StateDir: t.TempDir(), NodeName: "n", Log: slog.New(slog.DiscardHandler)}
	if got := c.lastMode(); got != "" {
		t.Errorf("at first: %q", got)
	}
	c.keepMode("nftables")
	if got := c.lastMode(); got != "nftables" {
		t.Errorf("kept: %q", got)
	}
}

func TestNodePortAddresses(t *testing.T) {
	lo, real := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	if got := (&Config{NodeAddrs: []netip.Addr{lo, real}}).nodePortAddresses(); !slices.Equal(got, []netip.Addr{real}) {
		t.Errorf("got %v", got)
	}
	if got := (&Config{}).nodePortAddresses(); got != nil {
		t.Errorf("nothing said: got %v, want all addresses", got)
	}
}

// counter is a driver that counts, or not.
type counter struct {
	driver
	hits []vip.Hit
	ok   bool
}

func (c counter) Hits() ([]vip.Hit, bool, error) { return c.hits, c.ok, nil }

func TestHitsOfDrivers(t *testing.T) {
	hit := func(n uint64) []vip.Hit {
		return []vip.Hit{{Service: catalog.Key{Namespace: "default", Name: "web"}, Count: n}}
	}
	none := struct{ driver }{}
	for name, c := range map[string]struct {
		d      driver
		counts bool
		sum    uint64
	}{
		"nobody counts":         {none, false, 0},
		"sockets":               {counter{hits: hit(1), ok: true}, true, 1},
		"sockets and rules":     {both{counter{hits: hit(1), ok: true}, counter{hits: hit(2), ok: true}}, true, 3},
		"sockets only":          {both{counter{hits: hit(1), ok: true}, counter{}}, true, 1},
		"localhost and rules":   {localhost{both{counter{hits: hit(1), ok: true}, counter{hits: hit(2), ok: true}}}, true, 3},
		"localhost, not rules":  {localhost{both{counter{hits: hit(1), ok: true}, none}}, false, 1},
		"localhost, rules mute": {localhost{both{counter{hits: hit(1), ok: true}, counter{}}}, false, 1},
	} {
		got := hitsOf(c.d)
		sum := uint64(0)
		for _, h := range got.Hits {
			sum += h.Count
		}
		if got.Counts != c.counts || sum != c.sum {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
