package dns

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/catalog/viewtest"
)

// reacher shows the view to the conformance suite. DNS hands out a virtual IP
// as it is, so only headless services say where traffic goes: the suite makes
// all of its services headless.
type reacher struct{ *Server }

func (r reacher) Carries(s *catalog.Service) bool { return s.Headless }

// Reach asks the questions that a client asks: SRV for a named port with the
// addresses beside it, addresses alone for a port without a name.
func (r reacher) Reach(svc catalog.Key, port string, proto catalog.Protocol) []string {
	p := r.index.services.get(string(rune(len(svc.Name))) + svc.Name + string(rune(len(svc.Namespace))) + svc.Namespace)
	if p == nil {
		return nil
	}
	var want *catalog.Port
	for _, byName := range []bool{true, false} {
		for i := range (*p).source.Service.Ports {
			if sp := &(*p).source.Service.Ports[i]; want == nil && sp.Protocol == proto && (byName && sp.Name == port || !byName && strconv.Itoa(int(sp.Port)) == port) {
				want = sp
			}
		}
	}
	if want == nil {
		return nil
	}
	name := fmt.Sprintf("%s.%s.svc.cluster.local.", svc.Name, svc.Namespace)
	var all []string
	if want.Name == "" {
		for _, rr := range r.ask(name, miekg.TypeA).Answer {
			a, _ := netip.AddrFromSlice(rr.(*miekg.A).A.To4())
			for _, ep := range (*p).source.Endpoints {
				if number, ok := ep.Port("", proto); ok && ep.Addr == a {
					all = append(all, netip.AddrPortFrom(a, number).String())
				}
			}
		}
	} else {
		m := r.ask("_"+want.Name+"._"+string(proto)+"."+name, miekg.TypeSRV)
		for _, rr := range m.Answer {
			srv := rr.(*miekg.SRV)
			for _, extra := range m.Extra {
				if extra.Header().Name == srv.Target {
					all = append(all, net.JoinHostPort(extra.(*miekg.A).A.String(), strconv.Itoa(int(srv.Port))))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (r reacher) ask(name string, typ uint16) *miekg.Msg {
	var m miekg.Msg
	m.SetQuestion(name, typ)
	return r.Resolve(context.Background(), &m)
}

func TestConformance(t *testing.T) {
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		s, err := New(Config{Node: viewtest.Node})
		if err != nil {
			t.Fatal(err)
		}
		return reacher{s}
	})
}

// TestIncremental holds an index that lived through random changes against
// one that is built from the result.
func TestIncremental(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, Config{})
		batch := func() {
			for range 1 + rnd.IntN(20) {
				var c string
				svc := fmt.Sprintf("%s/s%d", []string{"a", "b", "c"}[rnd.IntN(3)], rnd.IntN(6))
				switch rnd.IntN(12) {
				case 0:
					c = "delete " + svc
				case 1:
					c = fmt.Sprintf("service %s clusterip=10.96.0.%d ports=http:80,%d/UDP", svc, rnd.IntN(9), 1+rnd.IntN(9))
				case 2:
					c = fmt.Sprintf("service %s headless ports=http:80,sql:%d", svc, 1+rnd.IntN(3))
				case 3:
					c = fmt.Sprintf("service %s external=w%d.example.com", svc, rnd.IntN(3))
				case 4:
					c = fmt.Sprintf("%s %s", []string{"namespace", "no-namespace"}[rnd.IntN(2)], []string{"a", "b", "e"}[rnd.IntN(3)])
				case 5:
					c = []string{"synced", "not-synced", "stale"}[rnd.IntN(3)]
				case 6:
					c = fmt.Sprintf("service %s headless publish-not-ready ports=http:80", svc)
				case 7, 8:
					c = fmt.Sprintf("remove %s 10.0.0.%d", svc, rnd.IntN(6))
				default:
					addr := fmt.Sprintf([]string{"10.0.0.%d", "10.96.0.%d", "fd00::%d"}[rnd.IntN(3)], rnd.IntN(6))
					c = fmt.Sprintf("endpoint %s %s ports=http:%d%s", svc, addr, 80+rnd.IntN(2),
						[]string{"", "", " out", " host=h1", " host=10-0-0-3", " local node=there", " weight=0"}[rnd.IntN(7)])
				}
				var err error
				w.catalog.Update(func(tx *catalog.Txn) { err = w.change(tx, strings.Fields(c)) })
				if err != nil {
					t.Fatal(c, err)
				}
			}
			if err := w.server.Apply(context.Background(), w.sub.TryNext()); err != nil {
				t.Fatal(err)
			}
		}
		for range 30 {
			batch()
			fresh, err := New(Config{Node: "here"})
			if err != nil {
				t.Fatal(err)
			}
			sub := w.catalog.Subscribe()
			if err := fresh.Apply(context.Background(), sub.TryNext()); err != nil {
				t.Fatal(err)
			}
			sub.Close()
			if got, want := w.server.index.dump(), fresh.index.dump(); !slices.Equal(got, want) {
				t.Fatalf("seed %d\n-- grown\n%s\n-- built\n%s", seed, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}

// TestReadersAndWriter: while services change, those that do not change are
// always answered, and the others with one state or the other.
func TestReadersAndWriter(t *testing.T) {
	w := newWorld(t, Config{})
	w.must(t, "service a/steady clusterip=10.96.0.1", "service a/moving clusterip=10.96.0.2")
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			buf := make([]byte, 0, udpMax)
			steady, moving := question("steady.a.svc.cluster.local.", miekg.TypeA), question("moving.a.svc.cluster.local.", miekg.TypeA)
			for !stop.Load() {
				if r := w.server.Answer(steady, buf, false); r[len(r)-1] != 1 {
					t.Errorf("steady: %x", r)
					return
				}
				if r := w.server.Answer(moving, buf, false); r[7] == 1 && (r[len(r)-1] < 2 || r[len(r)-1] > 200) {
					t.Errorf("moving: %x", r)
					return
				}
			}
		})
	}
	for i := range 3000 {
		w.must(t, fmt.Sprintf("service a/moving clusterip=10.96.0.%d", 2+i%199))
		w.must(t, fmt.Sprintf("service a/other%d clusterip=10.97.%d.%d", i%500, i/250, i%250))
		if i%3 == 0 {
			w.must(t, "delete a/moving", fmt.Sprintf("delete a/other%d", (i*7)%500))
		}
	}
	stop.Store(true)
	readers.Wait()
}

func question(name string, typ uint16) []byte {
	var m miekg.Msg
	m.SetQuestion(name, typ)
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// TestOrder: every endpoint comes first about as often as any other.
func TestOrder(t *testing.T) {
	w := newWorld(t, Config{})
	w.must(t, "service a/db headless ports=x:1", "endpoints a/db 10 ports=x:1")
	for name, at := range map[string]func(*miekg.Msg) string{
		"db.a.svc.cluster.local.": func(m *miekg.Msg) string { return m.Answer[0].(*miekg.A).A.String() },
		"_x._tcp.db.a.svc.cluster.local.": func(m *miekg.Msg) string {
			return m.Answer[0].(*miekg.SRV).Target
		},
	} {
		typ := miekg.TypeA
		if name[0] == '_' {
			typ = miekg.TypeSRV
		}
		first := map[string]int{}
		const n = 5000
		for range n {
			var m miekg.Msg
			if err := m.Unpack(w.server.Answer(question(name, typ), nil, true)); err != nil {
				t.Fatal(err)
			}
			first[at(&m)]++
		}
		for who, times := range first {
			if times < n/10*7/10 || times > n/10*13/10 {
				t.Errorf("%s is first %d times of %d", who, times, n)
			}
		}
		if len(first) != 10 {
			t.Errorf("only %d of 10 are ever first", len(first))
		}
	}
}

func TestConfigErrors(t *testing.T) {
	for want, cfg := range map[string]Config{
		"zone":     {Zone: "a..b"},
		"59":       {Zone: strings.Repeat("a.", 40) + "b"},
		"TTL":      {TTL: time.Millisecond},
		"upstream": {Upstreams: []string{"nowhere"}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), cmp.Or(want)) && want != "59" {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestPortInUse(t *testing.T) {
	a := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}}).server
	run(t, a)
	b, err := New(Config{Addrs: []string{a.Addrs()[0].String()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err == nil || !strings.Contains(err.Error(), "port in use") || !strings.Contains(err.Error(), "--dns-address") {
		t.Errorf("TCP: %v", err)
	}
	// The UDP port alone is taken.
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if b, err = New(Config{Addrs: []string{p.LocalAddr().String()}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err == nil || !strings.Contains(err.Error(), "port in use") {
		t.Errorf("UDP: %v", err)
	}
}

// TestWildcard: on the unspecified address the answer comes from the address
// that was asked; a client that asked another would not take it.
func TestWildcard(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			w := newWorld(t, Config{Addrs: []string{listen}})
			run(t, w.server)
			hosts := []string{"127.0.0.1", "127.0.0.7"}
			if listen[0] == '[' {
				hosts = append(hosts, "::1")
			}
			for _, host := range hosts {
				var m miekg.Msg
				m.SetQuestion("cluster.local.", miekg.TypeSOA)
				at := net.JoinHostPort(host, strconv.Itoa(int(w.server.Addrs()[0].Port())))
				r, _, err := asker("udp").Exchange(&m, at)
				if err != nil || len(r.Answer) != 1 {
					t.Errorf("%s: %v %v", at, r, err)
				}
			}
		})
	}
}
