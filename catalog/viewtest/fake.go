package viewtest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/fingerpost/fingerpost/catalog"
)

// Fake is a view with the semantics of a real one and nothing behind it, for
// tests of whatever feeds views. It is also the proof that the suite can be
// passed. The zero value is ready to use; safe for concurrent use.
type Fake struct {
	Node     string // the node it is on
	Fallback bool   // use terminating endpoints when there is no ready one
	Headless bool   // carry headless services too

	mu      sync.Mutex
	entries map[catalog.Key]*catalog.Entry
	stale   bool
	applied int
}

// Apply works from the changes only, as a real view must. It fails when Old is
// not what it was given before.
func (f *Fake) Apply(_ context.Context, b catalog.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries == nil {
		f.entries = map[catalog.Key]*catalog.Entry{}
	}
	f.applied++
	f.stale = b.Snapshot.Freshness().Stale()
	for _, c := range b.Changes {
		if f.entries[c.Key] != c.Old {
			return fmt.Errorf("viewtest: apply %s: Old is not what was given before", c.Key)
		}
		if c.New == nil {
			delete(f.entries, c.Key)
		} else {
			f.entries[c.Key] = c.New
		}
	}
	return nil
}

// Applied counts the batches.
func (f *Fake) Applied() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied
}

// FallsBackToTerminating implements TerminatingFallback.
func (f *Fake) FallsBackToTerminating() bool { return f.Fallback }

// Carries implements Carrier.
func (f *Fake) Carries(s *catalog.Service) bool {
	return s.Type != catalog.ExternalName && (!s.Headless || f.Headless)
}

// Reach implements View.
func (f *Fake) Reach(svc catalog.Key, port string, proto catalog.Protocol) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.entries[svc]
	if e == nil || !f.Carries(e.Service) {
		return nil
	}
	p := servicePort(e.Service, port, proto)
	if p == nil {
		return nil
	}
	return f.reach(e, p)
}

func (f *Fake) reach(e *catalog.Entry, p *catalog.Port) []string {
	pick := func(want func(*catalog.Endpoint) bool) (at []string) {
		for i := range e.Endpoints {
			ep := &e.Endpoints[i]
			number, ok := ep.Port(p.Name, p.Protocol)
			if ok && ep.Weight > 0 && ep.UsableOn(f.Node) && want(ep) {
				at = append(at, netip.AddrPortFrom(ep.Addr, number).String())
			}
		}
		slices.Sort(at)
		return slices.Compact(at)
	}
	at := pick(func(ep *catalog.Endpoint) bool { return ep.Ready })
	if len(at) == 0 && f.Fallback {
		at = pick(func(ep *catalog.Endpoint) bool { return ep.Serving && ep.Terminating })
	}
	return at
}

// Dump gives what the view does, one line for each service port, sorted:
//
//	default/web http 80/TCP 10.96.0.1 -> 10.0.0.1:8080 10.0.0.2:8080
//	default/web metrics 9100/TCP 10.96.0.1 -> none
func (f *Fake) Dump() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for k, e := range f.entries {
		if !f.Carries(e.Service) {
			continue
		}
		vip := "headless"
		if len(e.Service.ClusterIPs) > 0 {
			vip = strings.Trim(fmt.Sprint(e.Service.ClusterIPs), "[]")
		}
		for i := range e.Service.Ports {
			p := &e.Service.Ports[i]
			to := "none"
			if at := f.reach(e, p); len(at) > 0 {
				to = strings.Join(at, " ")
			}
			all = append(all, fmt.Sprintf("%s %s %d/%s %s -> %s\n", k, p.Name, p.Port, p.Protocol, vip, to))
		}
	}
	slices.Sort(all)
	if f.stale {
		all = append([]string{"stale\n"}, all...)
	}
	return strings.Join(all, "")
}
