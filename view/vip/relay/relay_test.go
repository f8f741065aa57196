package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

// driver remembers what it got, and looks whether relays are there.
type driver struct {
	entries map[string]*catalog.Entry
	look    func() // in each Apply
}

func (d *driver) Apply(_ context.Context, b catalog.Batch) error {
	for _, c := range b.Changes {
		d.entries[c.Key.Name] = c.New
	}
	if d.look != nil {
		d.look()
	}
	return nil
}

func (d *driver) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// rig is a relay whose address is a loopback one: such need no rights.
type rig struct {
	*Relay
	t      *testing.T
	d      *driver
	c      *catalog.Catalog
	sub    *catalog.Subscription
	events []string
}

func newRig(t *testing.T, addrs ...string) *rig {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("rules that lead to relays are Linux's")
	}
	r := &rig{t: t, d: &driver{entries: map[string]*catalog.Entry{}}, c: catalog.New(nil)}
	cfg := Config{Node: "here", Events: func(k catalog.Key, reason, message string) {
		r.events = append(r.events, k.Name+" "+reason+" "+message)
	}}
	for _, a := range addrs {
		cfg.Addresses = append(cfg.Addresses, netip.MustParseAddr(a))
	}
	var err error
	if r.Relay, err = New(cfg, r.d); err != nil {
		t.Fatal(err)
	}
	r.sub = r.c.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		r.sub.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) do(f func(*catalog.Txn)) {
	r.t.Helper()
	r.c.Update(f)
	if err := r.Apply(r.t.Context(), r.sub.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

func key(name string) catalog.Key { return catalog.Key{Namespace: "ns", Name: name} }

func put(txn *catalog.Txn, name string, eps ...catalog.Endpoint) {
	txn.PutService(&catalog.Service{Key: key(name), Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
		Ports: []catalog.Port{{Name: "a", Protocol: catalog.TCP, Port: 80}, {Name: "b", Protocol: catalog.UDP, Port: 80}}})
	txn.PutEndpoints(key(name), eps)
}

func endpoint(addr string, port uint16) catalog.Endpoint {
	return catalog.Endpoint{Addr: netip.MustParseAddr(addr), Node: "here", Local: true, Ready: true, Serving: true, Weight: 100,
		Ports: []catalog.EndpointPort{{Name: "a", Protocol: catalog.TCP, Port: port}, {Name: "b", Protocol: catalog.UDP, Port: port}}}
}

// at gives where the driver finds the port of the first endpoint of a service.
func (r *rig) at(name, port string, proto catalog.Protocol) netip.AddrPort {
	r.t.Helper()
	e := r.d.entries[name].Endpoints[0]
	n, ok := e.Port(port, proto)
	if !ok {
		r.t.Fatalf("%s has no port %s/%s: %+v", name, port, proto, e)
	}
	return netip.AddrPortFrom(e.Addr, n)
}

// listens says whether somebody accepts connections at an address. A relay
// resets them: no rule has sent them.
func listens(at netip.AddrPort) bool {
	c, err := net.Dial("tcp", at.String())
	if err == nil {
		_ = c.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNRESET)
}

func TestRelaysAreShared(t *testing.T) {
	r := newRig(t, "127.0.66.1")
	r.do(func(txn *catalog.Txn) { put(txn, "one", endpoint("127.0.0.1", 80)) })
	one := r.at("one", "a", catalog.TCP)
	if one.Addr() != netip.MustParseAddr("127.0.66.1") || !listens(one) {
		t.Fatalf("the relay is %s, listens: %v", one, listens(one))
	}
	if udp := r.at("one", "b", catalog.UDP); udp.Addr() != one.Addr() {
		t.Errorf("the relay of UDP is %s", udp)
	}
	if got := r.Relays()[one.String()+"/TCP"]; got != netip.MustParseAddrPort("127.0.0.1:80") || len(r.Relays()) != 2 {
		t.Errorf("%v", r.Relays())
	}
	r.do(func(txn *catalog.Txn) { put(txn, "two", endpoint("127.0.0.1", 80)) })
	if two := r.at("two", "a", catalog.TCP); two != one {
		t.Errorf("another relay, %s, to the same endpoint", two)
	}
	r.do(func(txn *catalog.Txn) { txn.DeleteService(key("one")) })
	if !listens(one) {
		t.Error("the relay has gone with one of its services")
	}
	// It goes from one service to another in one batch.
	r.do(func(txn *catalog.Txn) {
		put(txn, "two", endpoint("127.0.0.1", 81))
		put(txn, "three", endpoint("127.0.0.1", 80))
	})
	if three := r.at("three", "a", catalog.TCP); three != one || !listens(one) {
		t.Errorf("the relay went from %s to %s, listens: %v", one, three, listens(one))
	}
	other := r.at("two", "a", catalog.TCP)
	// Relays outlive the rules: the driver looks while it removes them.
	r.d.look = func() {
		if !listens(one) || !listens(other) {
			t.Error("a relay has gone before the rules")
		}
	}
	r.do(func(txn *catalog.Txn) { txn.DeleteService(key("two")); txn.PutEndpoints(key("three"), nil) })
	r.d.look = nil
	if listens(one) || listens(other) || len(r.Relays()) != 0 || len(r.used) != 0 || len(r.byKey) != 0 {
		t.Errorf("relays are left: %v", r.Relays())
	}
	// And they are there before.
	r.d.look = func() {
		if !listens(r.at("three", "a", catalog.TCP)) {
			t.Error("rules before the relay")
		}
	}
	r.do(func(txn *catalog.Txn) { put(txn, "three", endpoint("127.0.0.1", 80)) })
	if len(r.events) > 0 {
		t.Error(r.events)
	}
}

// TestWhatIsNotRelayed: other endpoints are not even copied.
func TestWhatIsNotRelayed(t *testing.T) {
	r := newRig(t, "127.0.66.2")
	far, global, idle := endpoint("127.0.0.1", 80), endpoint("10.0.0.1", 80), endpoint("127.0.0.1", 80)
	far.Node, global.Local, idle.Weight = "there", false, 0
	r.do(func(txn *catalog.Txn) { put(txn, "web", far, global, idle) })
	if got, want := r.d.entries["web"], r.c.Snapshot().Get(key("web")); got != want {
		t.Errorf("%+v, want the catalog's own", got)
	}
	sctp := endpoint("127.0.0.1", 80)
	sctp.Ports = append(slices.Clone(sctp.Ports), catalog.EndpointPort{Name: "c", Protocol: catalog.SCTP, Port: 7})
	r.do(func(txn *catalog.Txn) { put(txn, "web", sctp, global) })
	eps := r.d.entries["web"].Endpoints
	if len(eps) != 2 || len(eps[0].Ports) != 2 || !eps[1].Equal(&global) {
		t.Errorf("%+v", eps)
	}
	if e := r.c.Snapshot().Get(key("web")).Endpoints[0]; !e.Equal(&sctp) {
		t.Errorf("the catalog was changed: %+v", e)
	}
}

// TestSamePort: the next process chooses the same ports, but for those that
// somebody else has.
func TestSamePort(t *testing.T) {
	var first netip.AddrPort
	t.Run("first", func(t *testing.T) {
		r := newRig(t, "127.0.66.3")
		r.do(func(txn *catalog.Txn) { put(txn, "web", endpoint("127.0.0.1", 80)) })
		first = r.at("web", "a", catalog.TCP)
	})
	r := newRig(t, "127.0.66.3")
	r.do(func(txn *catalog.Txn) { put(txn, "web", endpoint("127.0.0.1", 80)) })
	if again := r.at("web", "a", catalog.TCP); again != first {
		t.Errorf("%s, and then %s", first, again)
	}
	r.do(func(txn *catalog.Txn) { txn.DeleteService(key("web")) })
	l, err := net.Listen("tcp", first.String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.do(func(txn *catalog.Txn) { put(txn, "web", endpoint("127.0.0.1", 80)) })
	if other := r.at("web", "a", catalog.TCP); other == first || !listens(other) {
		t.Errorf("%s, which is taken; listens: %v", other, listens(other))
	}
}

// TestNoAddress: where there can be no relay the endpoint stays as it is, and
// its owner is told, once.
func TestNoAddress(t *testing.T) {
	r := newRig(t, "127.0.66.4")
	r.do(func(txn *catalog.Txn) { put(txn, "six", endpoint("::1", 80), endpoint("127.0.0.1", 80)) })
	r.do(func(txn *catalog.Txn) { put(txn, "six", endpoint("::1", 80)) })
	if at := r.at("six", "a", catalog.TCP); at != netip.MustParseAddrPort("[::1]:80") {
		t.Errorf("the driver has %s", at)
	}
	if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "six "+ReasonCannotRelay+" ") || !strings.Contains(r.events[0], "[::1]:80") {
		t.Error(r.events)
	}
}

// TestStrangersAreReset: nobody is served whom no rule has sent.
func TestStrangersAreReset(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("secret"))
			_ = c.Close()
		}
	}()
	r := newRig(t, "127.0.66.5")
	r.do(func(txn *catalog.Txn) {
		put(txn, "web", endpoint("127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port)))
	})
	c, err := net.Dial("tcp", r.at("web", "a", catalog.TCP).String())
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 64)); err == nil {
		t.Errorf("a stranger got %d bytes", n)
	}
}
