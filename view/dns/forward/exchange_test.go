package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestEqualQuestionsAreOne(t *testing.T) {
	const n = 1000
	release := make(chan struct{})
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		<-release
		_ = w.WriteMsg(answerOf(r, "www.example. 60 IN A 192.0.2.1"))
	})
	cfg := root(up.addr)
	cfg.Hedge, cfg.Timeout = time.Minute, time.Minute
	f := forwarder(t, cfg)
	var wg sync.WaitGroup
	var good atomic.Int64
	for i := range n {
		wg.Go(func() {
			name := "www.example."
			if i%2 == 0 {
				name = "WWW.example."
			}
			q, end := request(t, name, miekg.TypeA)
			if b, err := f.Exchange(context.Background(), q, end, 512); err == nil && unpack(t, q, b).Question[0].Name == name {
				good.Add(1)
			}
		})
	}
	eventually(t, "all wait", func() bool {
		f.flights.mu.Lock()
		defer f.flights.mu.Unlock()
		return f.flights.waiting == n
	})
	close(release)
	wg.Wait()
	if good.Load() != n || up.asked.Load() != 1 {
		t.Errorf("%d of %d answered by %d questions upstream, want 1", good.Load(), n, up.asked.Load())
	}
}

func TestBusy(t *testing.T) {
	release := make(chan struct{})
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		<-release
		_ = w.WriteMsg(answerOf(r))
	})
	cfg := root(up.addr)
	cfg.Hedge, cfg.Timeout, cfg.MaxInFlight = time.Minute, time.Minute, 2
	f := forwarder(t, cfg)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA) })
	}
	eventually(t, "two are under way", func() bool { return up.asked.Load() == 2 })
	q, end := request(t, "n3.example.", miekg.TypeA)
	if _, err := f.Exchange(context.Background(), q, end, 512); !errors.Is(err, ErrBusy) {
		t.Errorf("third question: %v, want ErrBusy", err)
	}
	close(release)
	wg.Wait()
}

// silent is an address where nothing answers.
func silent(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc.LocalAddr().String()
}

func TestDeadUpstreams(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf())
	refused := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := new(miekg.Msg)
		_ = w.WriteMsg(m.SetRcode(r, miekg.RcodeRefused))
	})
	dead := silent(t)
	cfg := root(dead, "127.0.0.1:1", refused.addr, up.addr)
	cfg.Hedge = 20 * time.Millisecond
	f := forwarder(t, cfg)
	for i := range 20 {
		if m, _ := resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA); m.Rcode != miekg.RcodeNameError {
			t.Fatalf("question %d: %v", i, m)
		}
	}
	if n := f.order(f.routes.Load().find([]byte{0}))[0].target.String(); n != up.addr {
		t.Errorf("the first to be asked is %s, want the one that works, %s", n, up.addr)
	}
}

func TestDownAndUp(t *testing.T) {
	var alive atomic.Bool
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		if alive.Load() {
			_ = w.WriteMsg(answerOf(r))
		}
	})
	cfg := root(up.addr)
	cfg.Timeout, cfg.Hedge = 50*time.Millisecond, 10*time.Millisecond
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	f := forwarder(t, cfg)
	for i := 0; f.Upstreams()[0].Up; i++ {
		if i > maxFails {
			t.Fatal("the upstream is not down")
		}
		resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA)
	}
	if s := f.Upstreams()[0]; s.Error == "" || s.Fails < maxFails {
		t.Errorf("status: %+v", s)
	}
	eventually(t, "when all are down they are asked all the same", func() bool {
		resolve(t, f, "still.example.", miekg.TypeA)
		return up.count("still.example. A") > 0
	})
	if n := testutil.ToFloat64(f.metrics.broken); n == 0 {
		t.Error("coredns_forward_healthcheck_broken_total is 0")
	}
	alive.Store(true)
	eventually(t, "a probe finds it alive", func() bool { return f.Upstreams()[0].Up })
	eventually(t, "it answers when it is up", func() bool {
		m, _ := resolve(t, f, "again.example.", miekg.TypeA)
		return m.Rcode == miekg.RcodeNameError
	})
	if n, err := testutil.GatherAndCount(reg, "coredns_proxy_request_duration_seconds", "coredns_cache_hits_total", "coredns_cache_entries"); err != nil || n < 5 {
		t.Errorf("metrics: %d, %v", n, err)
	}
}

func TestPacketLoss(t *testing.T) {
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		if rand.IntN(10) >= 4 { // of four attempts 2.6 % fail
			_ = w.WriteMsg(answerOf(r))
		}
	})
	cfg := root(up.addr)
	cfg.Hedge, cfg.Timeout = 10*time.Millisecond, 10*time.Second
	f := forwarder(t, cfg)
	var wg sync.WaitGroup
	var good atomic.Int64
	for i := range 200 {
		wg.Go(func() {
			for range 3 { // as clients do
				q, end := request(t, fmt.Sprintf("n%d.example.", i), miekg.TypeA)
				ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
				_, err := f.Exchange(ctx, q, end, 512)
				cancel()
				if err == nil {
					good.Add(1)
					return
				}
			}
		})
	}
	wg.Wait()
	if good.Load() < 170 {
		t.Errorf("%d of 200 answered with 40 %% loss", good.Load())
	}
}

func TestStale(t *testing.T) {
	var alive atomic.Bool
	alive.Store(true)
	hang := make(chan struct{})
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		if alive.Load() {
			_ = w.WriteMsg(answerOf(r, "www.example. 60 IN A 192.0.2.1"))
			return
		}
		select {
		case <-hang:
		default:
			m := new(miekg.Msg)
			_ = w.WriteMsg(m.SetRcode(r, miekg.RcodeServerFailure))
		}
	})
	c := newClock()
	cfg := root(up.addr)
	cfg.Now, cfg.StaleAfter = c.now, 10*time.Millisecond
	f := running(t, cfg)
	eventually(t, "Run runs", f.running.Load)
	resolve(t, f, "www.example.", miekg.TypeA)
	alive.Store(false)
	c.advance(61 * time.Second)
	m, hit := resolve(t, f, "www.example.", miekg.TypeA, edns(1232, false))
	if hit || len(m.Answer) != 1 || m.Answer[0].Header().Ttl != staleTTL {
		t.Fatalf("when upstreams fail, hit %v: %v", hit, m)
	}
	if o := m.IsEdns0(); o == nil || len(o.Option) != 1 || o.Option[0].(*miekg.EDNS0_EDE).InfoCode != miekg.ExtendedErrorCodeStaleAnswer {
		t.Errorf("no word that it is stale: %v", m)
	}
	eventually(t, "the cache answers while upstreams are known to fail", func() bool {
		m, hit := resolve(t, f, "www.example.", miekg.TypeA)
		return hit && m.Answer[0].Header().Ttl == staleTTL
	})
	alive.Store(true)
	c.advance(recheck + time.Second)
	if _, hit := resolve(t, f, "www.example.", miekg.TypeA); !hit {
		t.Error("the first answer afterwards must not wait")
	}
	eventually(t, "it is renewed behind the answer", func() bool {
		m, _ := resolve(t, f, "www.example.", miekg.TypeA)
		return m.Answer[0].Header().Ttl == 60
	})
	// An upstream that is slow: the old answer comes first.
	alive.Store(false)
	close(hang)
	slow := patient(cfg)
	slow.Timeout = 300 * time.Millisecond
	if err := f.Reload(slow); err != nil {
		t.Fatal(err)
	}
	c.advance(61 * time.Second)
	if m, hit := resolve(t, f, "www.example.", miekg.TypeA); hit || m.Answer[0].Header().Ttl != staleTTL {
		t.Errorf("when upstreams are slow, hit %v: %v", hit, m)
	}
	c.advance(2 * time.Hour)
	if m, _ := resolve(t, f, "www.example.", miekg.TypeA); m.Rcode != miekg.RcodeServerFailure {
		t.Errorf("after StaleFor: %v", m)
	}
}

func TestPrefetch(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf("www.example. 100 IN A 192.0.2.1", "rare.example. 100 IN A 192.0.2.1"))
	c := newClock()
	cfg := root(up.addr)
	cfg.Now, cfg.Prefetch = c.now, true
	f := running(t, cfg)
	for range 5 {
		resolve(t, f, "www.example.", miekg.TypeA)
	}
	resolve(t, f, "rare.example.", miekg.TypeA)
	c.advance(91 * time.Second)
	for _, name := range []string{"rare.example.", "www.example."} {
		if m, hit := resolve(t, f, name, miekg.TypeA); !hit || m.Answer[0].Header().Ttl != 9 {
			t.Fatalf("%s, hit %v: %v", name, hit, m)
		}
	}
	eventually(t, "it is renewed", func() bool {
		m, hit := resolve(t, f, "www.example.", miekg.TypeA)
		return hit && m.Answer[0].Header().Ttl == 100
	})
	if n := up.count("www.example. A"); n != 2 {
		t.Errorf("%d questions upstream, want 2", n)
	}
	if n := up.count("rare.example. A"); n != 1 {
		t.Errorf("%d questions for a rare name, want 1", n)
	}
}

func TestZonesAndReload(t *testing.T) {
	says := func(ip string) func(w miekg.ResponseWriter, r *miekg.Msg) {
		return func(w miekg.ResponseWriter, r *miekg.Msg) {
			_ = w.WriteMsg(answerOf(r, r.Question[0].Name+" 60 IN A "+ip))
		}
	}
	a, b, c := upstreamAt(t, nil, says("192.0.2.1")), upstreamAt(t, nil, says("192.0.2.2")), upstreamAt(t, nil, says("192.0.2.3"))
	cfg := Config{Zones: []Zone{{".", []string{a.addr}}, {"Corp.Example", []string{b.addr}}}}
	f := forwarder(t, cfg)
	check := func(name, want string, wantHit bool) {
		t.Helper()
		m, hit := resolve(t, f, name, miekg.TypeA)
		if hit != wantHit || len(m.Answer) != 1 || m.Answer[0].(*miekg.A).A.String() != want {
			t.Errorf("%s: want %s, hit %v; hit %v: %v", name, want, wantHit, hit, m)
		}
	}
	check("www.example.", "192.0.2.1", false)
	check("corp.example.", "192.0.2.2", false)
	check("a.CORP.example.", "192.0.2.2", false)
	check("acorp.example.", "192.0.2.1", false)
	if err := f.Reload(Config{Zones: []Zone{{"corp.example.", []string{"nonsense"}}}}); err == nil {
		t.Error("Reload took nonsense")
	}
	cfg.Zones = []Zone{{".", []string{a.addr}}, {"corp.example.", []string{c.addr}}}
	if err := f.Reload(patient(cfg)); err != nil {
		t.Fatal(err)
	}
	check("www.example.", "192.0.2.1", true)
	check("a.corp.example.", "192.0.2.3", false)
	for _, u := range f.Upstreams() {
		if u.Address == a.addr && (u.RTT == 0 || u.Zones[0] != ".") || u.Address == b.addr {
			t.Errorf("after reload: %+v", u)
		}
	}
	cfg.Zones = cfg.Zones[1:]
	if err := f.Reload(patient(cfg)); err != nil {
		t.Fatal(err)
	}
	if f.Serves([]byte("\x03www\x07example\x00")) || !f.Serves([]byte("\x01x\x04corp\x07example\x00")) {
		t.Error("Serves after . is gone")
	}
	q, end := request(t, "new.example.", miekg.TypeA)
	if _, err := f.Exchange(context.Background(), q, end, 512); !errors.Is(err, ErrNoUpstream) {
		t.Errorf("nobody to ask: %v", err)
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("# x\nnameserver 192.0.2.1\nsearch a b\nnameserver 2001:db8::1\nnameserver junk\n")
	f := running(t, Config{ResolvConf: path})
	has := func(want ...string) bool {
		var got []string
		for _, u := range f.Upstreams() {
			got = append(got, u.Address)
		}
		return strings.Join(got, " ") == strings.Join(want, " ")
	}
	if !has("192.0.2.1:53", "[2001:db8::1]:53") {
		t.Errorf("upstreams: %+v", f.Upstreams())
	}
	write("nameserver 192.0.2.99\n")
	eventually(t, "the change is seen", func() bool { return has("192.0.2.99:53") })
}

func TestRandomPolicy(t *testing.T) {
	a, b := upstreamAt(t, nil, zoneOf()), upstreamAt(t, nil, zoneOf())
	cfg := root(a.addr, b.addr)
	cfg.Policy = Random
	f := forwarder(t, cfg)
	for i := range 100 {
		resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA)
	}
	if a.asked.Load() < 10 || b.asked.Load() < 10 {
		t.Errorf("asked %d and %d times", a.asked.Load(), b.asked.Load())
	}
}

func TestClosed(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf("www.example. 60 IN A 192.0.2.1"))
	f := forwarder(t, root(up.addr))
	resolve(t, f, "www.example.", miekg.TypeA)
	f.Close()
	q, end := request(t, "other.example.", miekg.TypeA)
	if _, err := f.Exchange(context.Background(), q, end, 512); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := f.Reload(root(up.addr)); !errors.Is(err, ErrClosed) {
		t.Errorf("Reload after Close: %v", err)
	}
	if _, hit := resolve(t, f, "www.example.", miekg.TypeA); !hit {
		t.Error("the cache must outlive Close")
	}
}

// BenchmarkExchange has another name each time: an upstream on loopback is
// part of it.
func BenchmarkExchange(b *testing.B) {
	up := upstreamAt(b, nil, zoneOf())
	f := forwarder(b, root(up.addr))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		q, end := request(b, fmt.Sprintf("n%d.example.", i), miekg.TypeA)
		if _, err := f.Exchange(context.Background(), q, end, 512); err != nil {
			b.Fatal(err)
		}
	}
}

// TestWhatUpstreamsSee: the bits that matter, and nothing of the client.
func TestWhatUpstreamsSee(t *testing.T) {
	seen := make(chan *miekg.Msg, 1)
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		seen <- r
		m := answerOf(r, r.Question[0].Name+" 60 IN A 192.0.2.1")
		m.AuthenticatedData = true
		if o := m.IsEdns0(); o != nil {
			o.Option = append(o.Option, &miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: "0102030405060708"})
		}
		_ = w.WriteMsg(m)
	})
	f := forwarder(t, root(up.addr))
	ad := func(m *miekg.Msg) { m.AuthenticatedData = true }
	subnet := func(m *miekg.Msg) {
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &miekg.EDNS0_SUBNET{Code: miekg.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 0, 2, 0)})
	}
	for i, c := range []struct {
		opts           []option
		rd, cd, do, ad bool // ad: of the answer
	}{
		{nil, true, false, false, false},
		{[]option{ad}, true, false, false, true},
		{[]option{cd}, true, true, false, false},
		{[]option{noRD}, false, false, false, false},
		{[]option{subnet}, true, false, true, true},
	} {
		m, _ := resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA, c.opts...)
		r := <-seen
		o := r.IsEdns0()
		if r.RecursionDesired != c.rd || r.CheckingDisabled != c.cd || o == nil || o.Do() != c.do || len(o.Option) != 0 || o.UDPSize() != udpMax {
			t.Errorf("case %d: upstream got %v", i, r)
		}
		if m.RecursionDesired != c.rd || m.CheckingDisabled != c.cd || m.AuthenticatedData != c.ad || len(m.Answer) != 1 {
			t.Errorf("case %d: client got %v", i, m)
		}
		if o := m.IsEdns0(); o != nil && (len(o.Option) != 0 || o.Do() != c.do) {
			t.Errorf("case %d: client got the options of another hop: %v", i, m)
		}
		q, end := request(t, fmt.Sprintf("n%d.example.", i), miekg.TypeA, c.opts...)
		if _, hit := f.Cached(q, end, 512, nil); hit != c.rd {
			t.Errorf("case %d: cached %v", i, hit)
		}
	}
}
