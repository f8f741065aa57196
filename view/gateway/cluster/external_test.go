package cluster

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// hosts is a resolver for tests.
type hosts struct {
	mu    sync.Mutex
	addrs []netip.Addr
	err   error
	asked int
	takes time.Duration
}

func (h *hosts) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	h.mu.Lock()
	h.asked++
	takes := h.takes
	h.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addrs, h.err
}

func (h *hosts) set(err error, addrs ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs, h.err = nil, err
	for _, a := range addrs {
		h.addrs = append(h.addrs, netip.MustParseAddr(a))
	}
}

func addresses(c *Cluster) (out []string) {
	for _, e := range c.Endpoints() {
		out = append(out, e.Addr().String())
	}
	return out
}

func TestExternal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{takes: 10 * time.Millisecond}
		h.set(nil, "192.0.2.2", "192.0.2.1", "::ffff:192.0.2.1")
		w := newWorld(t, Config{Lookup: h.lookup})
		defer w.run()()
		c := w.set.Get(Key{External: "api.example.com:443", Protocol: route.HTTPS})
		if p := c.Problem(); p != "host api.example.com is not resolved yet" {
			t.Errorf("problem %q", p)
		}
		want := func(after time.Duration, addrs ...string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := addresses(c); !slices.Equal(got, addrs) {
				t.Errorf("addresses %v, want %v (problem %q)", got, addrs, c.Problem())
			}
		}
		want(time.Second, "192.0.2.1:443", "192.0.2.2:443")
		if c.tls.ServerName != "api.example.com" {
			t.Errorf("server name %q", c.tls.ServerName)
		}
		first := c.Endpoints()[0]
		h.set(nil, "192.0.2.1", "192.0.2.7")
		want(31*time.Second, "192.0.2.1:443", "192.0.2.7:443")
		if c.Endpoints()[0] != first {
			t.Error("the endpoint that stayed is another one")
		}
		// A resolver that fails takes nothing away.
		h.set(errors.New("no answer"))
		want(2*time.Minute, "192.0.2.1:443", "192.0.2.7:443")
		h.set(nil)
		want(2*time.Minute, "192.0.2.1:443", "192.0.2.7:443")
		h.set(nil, "192.0.2.8")
		want(time.Minute, "192.0.2.8:443")
		// When the address fails, the name is resolved at once.
		h.set(nil, "192.0.2.9")
		w.fail(w.pick(c, Query{}))
		want(2*time.Second, "192.0.2.9:443")
	})
}

func TestExternalProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{}
		h.set(errors.New("no such host"))
		w := newWorld(t, Config{Lookup: h.lookup})
		defer w.run()()
		c := w.set.Get(Key{External: "nowhere.example.com:80"})
		time.Sleep(time.Second)
		synctest.Wait()
		if p := c.Problem(); p != "host nowhere.example.com cannot be resolved: no such host" {
			t.Errorf("problem %q", p)
		}
		if p := w.set.Get(Key{External: "example.com"}).Problem(); p != `external backend "example.com" is not host:port` {
			t.Errorf("problem %q", p)
		}
		d := w.set.Get(Key{External: "[2001:db8::1]:8080"})
		if got := addresses(d); !slices.Equal(got, []string{"[2001:db8::1]:8080"}) {
			t.Errorf("addresses %v", got)
		}
		// It is tried again soon, and less and less often.
		time.Sleep(time.Minute)
		synctest.Wait()
		if h.asked < 5 || h.asked > 9 {
			t.Errorf("asked %d times in a minute", h.asked)
		}
		h.set(nil, "192.0.2.3")
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := c.Problem(); p != "" {
			t.Errorf("problem %q", p)
		}
	})
}

// TestStopWhileResolving: Run does not leave a resolution behind.
func TestStopWhileResolving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{takes: time.Hour}
		w := newWorld(t, Config{Lookup: h.lookup})
		stop := w.run()
		w.set.Get(Key{External: "slow.example.com:80"})
		time.Sleep(time.Second)
		stop()
	})
}
