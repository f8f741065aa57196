package catalog

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func key(name string) Key { return Key{Namespace: "default", Name: name} }

func service(name, ip string) *Service {
	s := &Service{Key: key(name), Type: ClusterIP, Ports: []Port{{Name: "http", Protocol: TCP, Port: 80, Target: "8080"}}}
	if ip != "" {
		s.ClusterIPs = []netip.Addr{netip.MustParseAddr(ip)}
	}
	return s
}

var httpPort = []EndpointPort{{Name: "http", Protocol: TCP, Port: 8080}}

func endpoints(addrs ...string) []Endpoint {
	var eps []Endpoint
	for _, a := range addrs {
		eps = append(eps, Endpoint{Addr: netip.MustParseAddr(a), Ports: httpPort, Ready: true, Serving: true, Weight: 100})
	}
	return eps
}

// text is a short form of an entry for comparisons.
func text(e *Entry) string {
	if e == nil {
		return "-"
	}
	var b strings.Builder
	if e.Service != nil {
		fmt.Fprintf(&b, "%s%s", e.Service.Key, e.Service.ClusterIPs)
	}
	for i := range e.Endpoints {
		fmt.Fprintf(&b, " %s", e.Endpoints[i].Addr)
	}
	return b.String()
}

func TestUpdatePublishesOnce(t *testing.T) {
	c := New(func() time.Time { return start })
	before := c.Snapshot()
	c.Update(func(tx *Txn) {
		tx.PutService(service("web", "10.96.0.1"))
		tx.PutEndpoints(key("web"), endpoints("10.0.0.1", "10.0.0.2"))
		tx.PutService(service("db", "10.96.0.2"))
		if c.Snapshot() != before {
			t.Error("an unfinished Update is visible")
		}
	})
	s := c.Snapshot()
	if s.Revision() != 1 {
		t.Errorf("revision %d after one Update, want 1", s.Revision())
	}
	services, eps := s.Len()
	if services != 2 || eps != 2 {
		t.Errorf("Len is %d, %d, want 2, 2", services, eps)
	}
	e := s.Get(key("web"))
	if got := text(e); got != "default/web[10.96.0.1] 10.0.0.1 10.0.0.2" {
		t.Errorf("web is %q", got)
	}
	if e.Revision != 1 || !e.Changed.Equal(start) {
		t.Errorf("entry says revision %d, changed %s", e.Revision, e.Changed)
	}
	if before.Get(key("web")) != nil || before.Revision() != 0 {
		t.Error("the snapshot before has changed")
	}
}

func TestUpdateWithoutEffect(t *testing.T) {
	c := New(nil)
	c.Update(func(tx *Txn) {
		tx.PutService(service("web", "10.96.0.1"))
		tx.PutEndpoints(key("web"), endpoints("10.0.0.1"))
		tx.PutNamespace("default")
		tx.SetFreshness(Freshness{Synced: true, StaleSince: start})
	})
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()
	before := c.Snapshot()
	for name, f := range map[string]func(*Txn){
		"nothing":             func(*Txn) {},
		"the same service":    func(tx *Txn) { tx.PutService(service("web", "10.96.0.1")) },
		"the same endpoints":  func(tx *Txn) { tx.PutEndpoints(key("web"), endpoints("10.0.0.1")) },
		"the same namespace":  func(tx *Txn) { tx.PutNamespace("default") },
		"the same freshness":  func(tx *Txn) { tx.SetFreshness(Freshness{Synced: true, StaleSince: start}) },
		"freshness elsewhere": func(tx *Txn) { tx.SetFreshness(Freshness{Synced: true, StaleSince: start.In(time.FixedZone("x", 60))}) },
		"nothing to delete":   func(tx *Txn) { tx.DeleteService(key("nobody")); tx.DeleteNamespace("nobody") },
		"no endpoints of none": func(tx *Txn) {
			tx.PutEndpoints(key("nobody"), nil)
			tx.PutEndpoints(key("nobody"), []Endpoint{})
		},
		"come and gone": func(tx *Txn) {
			tx.PutService(service("new", ""))
			tx.PutEndpoints(key("new"), endpoints("10.0.0.9"))
			tx.DeleteService(key("new"))
			tx.PutEndpoints(key("new"), nil)
		},
		"gone and back": func(tx *Txn) {
			tx.DeleteService(key("web"))
			tx.PutEndpoints(key("web"), nil)
			tx.PutService(service("web", "10.96.0.1"))
			tx.PutEndpoints(key("web"), endpoints("10.0.0.1"))
		},
		"namespace to and fro": func(tx *Txn) {
			tx.PutNamespace("new")
			tx.DeleteNamespace("new")
			tx.DeleteNamespace("default")
			tx.PutNamespace("default")
		},
		"freshness to and fro": func(tx *Txn) {
			tx.SetFreshness(Freshness{})
			tx.SetFreshness(Freshness{Synced: true, StaleSince: start})
		},
	} {
		c.Update(f)
		if c.Snapshot() != before {
			t.Errorf("%s: a new snapshot", name)
		}
		select {
		case <-sub.Wake():
			t.Errorf("%s: the subscriber was woken", name)
		default:
		}
	}
}

// One change beside a service that went to and fro: only the one is told.
func TestUpdateSettlesPartly(t *testing.T) {
	c := New(nil)
	c.Update(func(tx *Txn) { tx.PutService(service("web", "10.96.0.1")) })
	before := c.Snapshot().Get(key("web"))
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()
	c.Update(func(tx *Txn) {
		tx.DeleteService(key("web"))
		tx.PutService(service("db", ""))
		tx.PutService(service("web", "10.96.0.1"))
	})
	if c.Snapshot().Get(key("web")) != before {
		t.Error("web is another entry although nothing happened to it")
	}
	if n, _ := c.Snapshot().Len(); n != 2 {
		t.Errorf("Len says %d services, want 2", n)
	}
	if b := sub.TryNext(); len(b.Changes) != 1 || b.Changes[0].Key != key("db") {
		t.Errorf("told %v, want db only", b.Changes)
	}
}

func TestUpdatePanic(t *testing.T) {
	c := New(nil)
	func() {
		defer func() { _ = recover() }()
		c.Update(func(tx *Txn) {
			tx.PutService(service("web", ""))
			panic("a door's bug")
		})
	}()
	if c.Snapshot().Get(key("web")) != nil {
		t.Error("half an Update was published")
	}
	c.Update(func(tx *Txn) { tx.PutService(service("web", "")) }) // the lock is free again
}

func TestLeakedTxn(t *testing.T) {
	c := New(nil)
	var leaked *Txn
	c.Update(func(tx *Txn) { leaked = tx; tx.PutService(service("web", "")) })
	s := c.Snapshot()
	leaked.PutService(service("evil", ""))
	if s.Get(key("evil")) != nil {
		t.Error("a Txn kept beyond its Update changed the published snapshot")
	}
}

func TestEndpointsBeforeService(t *testing.T) {
	c := New(nil)
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()

	c.Update(func(tx *Txn) { tx.PutEndpoints(key("web"), endpoints("10.0.0.1")) })
	if c.Snapshot().Get(key("web")) != nil {
		t.Error("endpoints without service are visible")
	}
	if n, e := c.Snapshot().Len(); n != 0 || e != 0 {
		t.Errorf("Len is %d, %d, want nothing", n, e)
	}
	for e := range c.Snapshot().All() {
		t.Errorf("All yields %v", e)
	}
	select {
	case <-sub.Wake():
		t.Error("woken for endpoints that nobody can see")
	default:
	}
	if b := sub.TryNext(); b.Snapshot != c.Snapshot() {
		t.Error("TryNext gives an old snapshot")
	}

	c.Update(func(tx *Txn) {
		if e := tx.Entry(key("web")); e == nil || e.Service != nil || len(e.Endpoints) != 1 {
			t.Errorf("the Txn sees %v", e)
		}
		tx.PutService(service("web", ""))
	})
	if got := text(c.Snapshot().Get(key("web"))); got != "default/web[] 10.0.0.1" {
		t.Errorf("after the service came: %q", got)
	}
	if b := sub.TryNext(); len(b.Changes) != 1 || b.Changes[0].Old != nil || text(b.Changes[0].New) != "default/web[] 10.0.0.1" {
		t.Errorf("told %v", b.Changes)
	}

	c.Update(func(tx *Txn) { tx.DeleteService(key("web")) })
	if n, e := c.Snapshot().Len(); n != 0 || e != 0 {
		t.Errorf("after the delete Len is %d, %d, want nothing", n, e)
	}
	if b := sub.TryNext(); len(b.Changes) != 1 || b.Changes[0].New != nil {
		t.Errorf("told %v", b.Changes)
	}
	c.Update(func(tx *Txn) { tx.PutService(service("web", "")) })
	if got := text(c.Snapshot().Get(key("web"))); got != "default/web[] 10.0.0.1" {
		t.Errorf("after it came back: %q", got)
	}
}

func TestNamespacesAndFreshness(t *testing.T) {
	c := New(nil)
	sub := c.Subscribe()
	defer sub.Close()
	if f := sub.TryNext().Snapshot.Freshness(); f.Synced || f.Stale() {
		t.Errorf("a new catalog says %+v", f)
	}
	c.Update(func(tx *Txn) {
		tx.PutNamespace("a")
		tx.PutNamespace("b")
		tx.SetFreshness(Freshness{Synced: true})
	})
	s := c.Snapshot()
	if got := slices.Sorted(s.Namespaces()); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("namespaces %v", got)
	}
	b := sub.TryNext()
	slices.SortFunc(b.Namespaces, func(x, y NamespaceChange) int { return strings.Compare(x.Name, y.Name) })
	if !slices.Equal(b.Namespaces, []NamespaceChange{{"a", true}, {"b", true}}) || !b.Snapshot.Freshness().Synced {
		t.Errorf("told %+v", b)
	}
	c.Update(func(tx *Txn) { tx.DeleteNamespace("a"); tx.PutNamespace("c") })
	c.Update(func(tx *Txn) { tx.DeleteNamespace("c") })
	if b := sub.TryNext(); !slices.Equal(b.Namespaces, []NamespaceChange{{"a", false}}) {
		t.Errorf("told %+v, want that a went", b.Namespaces)
	}
	c.Update(func(tx *Txn) { tx.SetFreshness(Freshness{Synced: true, StaleSince: start}) })
	select {
	case <-sub.Wake():
	default:
		t.Error("not woken when the source went")
	}
	if b := sub.TryNext(); !b.Snapshot.Freshness().Stale() || len(b.Changes)+len(b.Namespaces) > 0 {
		t.Errorf("told %+v", b)
	}
	if !s.HasNamespace("a") || s.Freshness().Stale() {
		t.Error("an old snapshot changed")
	}
}
