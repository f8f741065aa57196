package cluster

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/catalog/viewtest"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// reachView shows the conformance suite where clusters would send requests.
type reachView struct {
	*world
}

func (v reachView) Apply(ctx context.Context, b catalog.Batch) error { return v.set.Apply(ctx, b) }

func (v reachView) Reach(svc catalog.Key, port string, proto catalog.Protocol) (out []string) {
	k := Key{Service: svc, Port: port}
	if proto != catalog.TCP {
		// Clusters are for TCP only; the rules are the same.
		found, _ := candidates(v.set.snap.Get(svc), k, viewtest.Node, "", proto)
		for _, f := range found {
			out = append(out, f.addr.String())
		}
	} else {
		c := v.set.Get(k)
		var tried []*Endpoint
		for {
			e, problem := c.Pick(&Query{Tried: tried})
			if problem != "" {
				break
			}
			e.Done(Outcome{})
			tried = append(tried, e)
			out = append(out, e.Addr().String())
		}
	}
	slices.Sort(out)
	return out
}

func (v reachView) FallsBackToTerminating() bool    { return true }
func (v reachView) Carries(s *catalog.Service) bool { return s.Type != catalog.ExternalName }

func TestConformance(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		return reachView{newWorld(t, Config{Node: viewtest.Node})}
	})
}

func TestProblems(t *testing.T) {
	w := newWorld(t, Config{})
	web := func(port string) *Cluster { return w.set.Get(Key{Service: webKey, Port: port}) }
	want := func(port string, problem Problem) {
		t.Helper()
		if got := web(port).Problem(); got != problem {
			t.Errorf("port %q: problem %q, want %q", port, got, problem)
		}
		e, got := web(port).Pick(&Query{})
		if got != problem || (e == nil) != (problem != "") {
			t.Errorf("port %q: picked %v, %q, want problem %q", port, e, got, problem)
		}
		if e != nil {
			e.Done(Outcome{})
		}
	}
	want("http", "service default/web does not exist")
	w.service()
	want("http", "service default/web has no ready endpoint")
	want("https", "service default/web has no port https")
	w.endpoints(1)
	want("http", "")
	want("80", "")
	want("", "")
	want("8080", "service default/web has no port 8080")
	w.service(catalog.Port{Name: "http", Protocol: catalog.TCP, Port: 80}, catalog.Port{Name: "admin", Protocol: catalog.TCP, Port: 81})
	want("", "service default/web has several ports: name one")
	want("admin", "service default/web has no ready endpoint")
	w.update(func(tx *catalog.Txn) { tx.DeleteService(webKey) })
	want("http", "service default/web does not exist")
	w.update(func(tx *catalog.Txn) {
		tx.PutService(&catalog.Service{Key: webKey, Type: catalog.ExternalName, ExternalName: "example.com"})
	})
	want("http", "service default/web is of type ExternalName, which is not allowed here")
}

func TestBeforeTheCatalogIsRead(t *testing.T) {
	w := newWorld(t, Config{})
	w.update(func(tx *catalog.Txn) { tx.SetFreshness(catalog.Freshness{}) })
	c := w.set.Get(Key{Service: webKey})
	if p := c.Problem(); p != "the services are not known yet" {
		t.Errorf("problem %q", p)
	}
	w.update(func(tx *catalog.Txn) { tx.SetFreshness(catalog.Freshness{Synced: true}) })
	if p := c.Problem(); p != "service default/web does not exist" {
		t.Errorf("problem %q", p)
	}
}

// TestIdentity: an endpoint is the same one while its address and target are.
func TestIdentity(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	before := slices.Clone(c.Endpoints())
	w.endpoints(3, 2, 1)
	now := c.Endpoints()
	if len(now) != 3 || now[0] != before[0] || now[1] != before[1] {
		t.Errorf("endpoints %v became %v", before, now)
	}
	heavier := ready(1)
	heavier.Weight = 300
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, []catalog.Endpoint{heavier, ready(2)}) })
	if e := c.Endpoints()[0]; e != before[0] {
		t.Error("another weight made another endpoint")
	}
	other := ready(1)
	other.Target = catalog.Ref{Kind: "Pod", Name: "web-2"}
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, []catalog.Endpoint{other, ready(2)}) })
	if e := c.Endpoints()[0]; e == before[0] || e.ID() == before[0].ID() {
		t.Error("another pod at the address is the same endpoint")
	}
	if e := c.Endpoints()[1]; e != before[1] {
		t.Error("and the one beside it changed")
	}
}

// TestOthersAreUntouched: a change of one service leaves the lists of others.
func TestOthersAreUntouched(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	list := c.list.Load()
	w.update(func(tx *catalog.Txn) {
		tx.PutService(&catalog.Service{Key: catalog.Key{Namespace: "default", Name: "db"}})
	})
	if c.list.Load() != list {
		t.Error("a change of db made another list for web")
	}
	if w.set.Get(Key{Service: webKey, Port: "http"}) != c {
		t.Error("the same key gave another cluster")
	}
	if w.set.Get(Key{Service: webKey, Port: "http", Protocol: route.H2C}) == c {
		t.Error("another protocol gave the same cluster")
	}
}

func TestKeep(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	e := w.pick(c, Query{})
	l := w.connect(e)
	w.set.Keep(func(Key) bool { return false })
	late := w.pick(c, Query{}) // it was routed before
	if up, err := late.Connect(t.Context(), time.Minute); err != nil {
		t.Error(err)
	} else {
		up.Release()
		good(late)
		if !up.(*line).closed.Load() {
			t.Error("a connection is kept for nobody")
		}
	}
	if l.closed.Load() {
		t.Error("the exchange under way was broken")
	}
	l.Release()
	good(e)
	if !l.closed.Load() {
		t.Error("its connection stays after it")
	}
	w.endpoints(1, 2) // nobody follows it any more
	if n := len(c.Endpoints()); n != 1 {
		t.Errorf("a closed cluster follows the catalog: %d endpoints", n)
	}
	if d := w.set.Get(Key{Service: webKey, Port: "http"}); d == c || d.Problem() != "" {
		t.Errorf("the new cluster: %q", d.Problem())
	}
}

func TestSticky(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2, 3, 4, 5)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	first := w.pick(c, Query{})
	good(first)
	for range 50 {
		e := w.pick(c, Query{Sticky: first.ID()})
		good(e)
		if e != first {
			t.Fatal("it did not stick")
		}
	}
	if e := w.pick(c, Query{Sticky: first.ID(), Tried: []*Endpoint{first}}); e == first {
		t.Error("it was tried")
	}
	w.fail(w.pick(c, Query{Sticky: first.ID()}))
	if e := w.pick(c, Query{Sticky: first.ID()}); e == first {
		t.Error("it is ejected")
	}
	if e := w.pick(c, Query{Sticky: first.ID(), Persistent: true}); e != first {
		t.Error("it is ejected, but persistent")
	}
	w.pick(c, Query{Sticky: "gone"})
}

func TestNearFirst(t *testing.T) {
	w := newWorld(t, Config{Zone: "a"})
	var eps []catalog.Endpoint
	for n := range 6 {
		e := ready(n + 1)
		e.Zone = []string{"a", "b"}[n%2]
		eps = append(eps, e)
	}
	w.update(func(tx *catalog.Txn) {
		tx.PutService(&catalog.Service{Key: webKey, Distribution: "PreferSameZone",
			Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}})
		tx.PutEndpoints(webKey, eps)
	})
	c := w.set.Get(Key{Service: webKey})
	for range 100 {
		e := w.pick(c, Query{})
		good(e)
		if e.Addr().Addr().As4()[3]%2 != 1 {
			t.Fatalf("%v is in another zone", e.Addr())
		}
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2, 3, 4, 5)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	tried := c.Endpoints()[:1]
	id := tried[0].ID()
	if n := testing.AllocsPerRun(1000, func() {
		for _, q := range []Query{{}, {Tried: tried}, {Sticky: id}, {Hash: 3}} {
			e, _ := c.Pick(&q)
			e.Done(Outcome{Result: balance.Success, Status: 200})
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestDeadEndpoint: one that refuses gets a single request, then it is ejected;
// a retry goes elsewhere.
func TestDeadEndpoint(t *testing.T) {
	synctest.Test(t, deadEndpoint) // it is left out for a time
}

func deadEndpoint(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2, 3)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	dead := c.Endpoints()[1]
	hits := 0
	for range 1000 {
		e := w.pick(c, Query{})
		if e != dead {
			good(e)
			continue
		}
		hits++
		w.fail(e)
		if next := w.pick(c, Query{Tried: []*Endpoint{e}}); next == dead {
			t.Fatal("the retry went to the same one")
		} else {
			good(next)
		}
	}
	if hits != 1 {
		t.Errorf("%d requests went to the dead endpoint, want 1", hits)
	}
	s := dead.Stats()
	if s.Failures != 1 || s.Ejected <= 4*time.Second || s.Active != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestHanging: one broken exchange does not eject an endpoint, five in a row
// do; and what is wrong with the gateway itself never does.
func TestHanging(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2, 3)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	e := c.Endpoints()[0]
	for n := range 5 {
		if d := e.Stats().Ejected; d != 0 {
			t.Fatalf("ejected for %v after %d", d, n)
		}
		w.pick(c, Query{Sticky: e.ID()}).Done(Outcome{Result: balance.Failure})
	}
	if e.Stats().Ejected == 0 {
		t.Error("not ejected after 5")
	}
	e = c.Endpoints()[1]
	w.pipes.refuse(&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)})
	for range 10 {
		if _, err := w.pick(c, Query{Sticky: e.ID()}).Connect(t.Context(), 0); err == nil {
			t.Fatal("connected")
		}
		e.Done(Outcome{})
	}
	if e.Stats().Ejected != 0 {
		t.Error("ejected because the gateway has no file descriptors")
	}
}

// TestNothingToSee: a change that clusters do not look at makes no new list.
func TestNothingToSee(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	list := c.list.Load()
	e := ready(1)
	e.Health.Reason, e.Metadata = "all is well", map[string]string{"a": "b"}
	w.update(func(tx *catalog.Txn) { tx.PutEndpoints(webKey, []catalog.Endpoint{e, ready(2)}) })
	if c.list.Load() != list {
		t.Error("another list")
	}
}

func TestAllTried(t *testing.T) {
	w := newWorld(t, Config{})
	w.service()
	w.endpoints(1, 2)
	c := w.set.Get(Key{Service: webKey, Port: "http"})
	if e, p := c.Pick(&Query{Tried: c.Endpoints()}); e != nil || p != "every endpoint was tried" {
		t.Errorf("%v, %q", e, p)
	}
}

func TestKeyOf(t *testing.T) {
	tls := &route.EndpointTLS{}
	b := &route.Backend{Service: webKey, Port: "http"}
	k, err := KeyOf(b, &route.Policy{EndpointTLS: tls, Balance: route.Balance{Algorithm: "ring_hash", Bounded: 150}})
	if err != nil || k.TLS != nil || k.Balance.Bounded != 150 || k.Balance.Algorithm != balance.RingHash {
		t.Errorf("%+v, %v", k, err)
	}
	if k, _ := KeyOf(b, &route.Policy{EndpointTLS: tls, Protocol: route.HTTPS}); k.TLS != tls {
		t.Error("TLS is lost")
	}
	if _, err := KeyOf(b, &route.Policy{Balance: route.Balance{Algorithm: "magic"}}); err == nil {
		t.Error("an unknown algorithm is taken")
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 3, 10, 1000} {
		b.Run(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)).String()[8:], func(b *testing.B) {
			cat := catalog.New(nil)
			var eps []catalog.Endpoint
			for i := range n {
				eps = append(eps, ready(i+1))
			}
			cat.Update(func(tx *catalog.Txn) {
				tx.SetFreshness(catalog.Freshness{Synced: true})
				tx.PutService(&catalog.Service{Key: webKey, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}})
				tx.PutEndpoints(webKey, eps)
			})
			set, err := New(Config{HTTP1: newLine})
			if err != nil {
				b.Fatal(err)
			}
			sub := cat.Subscribe()
			defer sub.Close()
			if err := set.Apply(b.Context(), sub.TryNext()); err != nil {
				b.Fatal(err)
			}
			c := set.Get(Key{Service: webKey})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				q := Query{}
				for pb.Next() {
					e, _ := c.Pick(&q)
					e.Done(Outcome{Result: balance.Success, Status: 200})
				}
			})
		})
	}
}
