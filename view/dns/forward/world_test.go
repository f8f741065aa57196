package forward

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// server is a real name server on loopback.
type server struct {
	addr  string
	asked atomic.Int64
	udp   atomic.Int64
	tcp   atomic.Int64

	mu     sync.Mutex
	handle func(w miekg.ResponseWriter, r *miekg.Msg)
	seen   map[string]int // by lower-case name and type
}

func (s *server) ServeDNS(w miekg.ResponseWriter, r *miekg.Msg) {
	s.asked.Add(1)
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		s.udp.Add(1)
	} else {
		s.tcp.Add(1)
	}
	s.mu.Lock()
	s.seen[strings.ToLower(r.Question[0].Name)+" "+miekg.TypeToString[r.Question[0].Qtype]]++
	h := s.handle
	s.mu.Unlock()
	if h != nil {
		h(w, r)
	}
}

func (s *server) answers(h func(w miekg.ResponseWriter, r *miekg.Msg)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handle = h
}

func (s *server) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[name]
}

// listen opens one port for TCP and UDP.
func listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if pc, err := net.ListenPacket("udp", l.Addr().String()); err == nil {
			return l, pc
		}
		_ = l.Close() // somebody else has it for UDP
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

// upstreamAt starts a server; with conf its TCP is TLS and it has no UDP.
func upstreamAt(t testing.TB, conf *tls.Config, h func(w miekg.ResponseWriter, r *miekg.Msg)) *server {
	t.Helper()
	s := &server{handle: h, seen: map[string]int{}}
	l, pc := listen(t)
	s.addr = l.Addr().String()
	var servers []*miekg.Server
	if conf != nil {
		_ = pc.Close()
		servers = append(servers, &miekg.Server{Listener: tls.NewListener(l, conf), Handler: s})
	} else {
		servers = append(servers, &miekg.Server{Listener: l, Handler: s}, &miekg.Server{PacketConn: pc, Handler: s})
	}
	for _, m := range servers {
		started := make(chan struct{})
		m.NotifyStartedFunc = func() { close(started) }
		go func() { _ = m.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = m.ShutdownContext(ctx)
		})
	}
	return s
}

// rr parses a record.
func rr(s string) miekg.RR {
	r, err := miekg.NewRR(s)
	if err != nil || r == nil {
		panic("bad record " + s)
	}
	return r
}

// zoneOf answers from records like "www.example. 60 IN A 192.0.2.1": type and
// name must be equal, CNAMEs always count; else NXDOMAIN with a SOA.
func zoneOf(records ...string) func(w miekg.ResponseWriter, r *miekg.Msg) {
	return func(w miekg.ResponseWriter, r *miekg.Msg) {
		_ = w.WriteMsg(answerOf(r, records...))
	}
}

func answerOf(r *miekg.Msg, records ...string) *miekg.Msg {
	m := new(miekg.Msg)
	m.SetReply(r)
	q := r.Question[0]
	exists := false
	for name, i := q.Name, 0; i < len(records); i++ {
		rec := rr(records[i])
		if !strings.EqualFold(rec.Header().Name, name) {
			continue
		}
		exists = true
		if rec.Header().Rrtype == q.Qtype || rec.Header().Rrtype == miekg.TypeCNAME {
			m.Answer = append(m.Answer, rec)
			if c, ok := rec.(*miekg.CNAME); ok {
				name = c.Target
			}
		}
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, rr("example. 300 IN SOA ns.example. root.example. 1 2 3 4 60"))
		if !exists {
			m.Rcode = miekg.RcodeNameError
		}
	}
	if r.IsEdns0() != nil {
		m.SetEdns0(1232, r.IsEdns0().Do())
	}
	return m
}

// clock is a time that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// patient gives upstreams all the time they want, if the test says nothing: on a
// busy machine an answer may take seconds, and a second question for want of the
// first one's answer would be counted.
func patient(cfg Config) Config {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Hedge == 0 {
		cfg.Hedge = time.Minute
	}
	return cfg
}

func forwarder(t testing.TB, cfg Config) *Forwarder {
	t.Helper()
	f, err := New(patient(cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func running(t testing.TB, cfg Config) *Forwarder {
	t.Helper()
	f := forwarder(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

func root(addrs ...string) Config { return Config{Zones: []Zone{{".", addrs}}} }

type option func(*miekg.Msg)

func edns(size uint16, do bool) option { return func(m *miekg.Msg) { m.SetEdns0(size, do) } }
func noRD(m *miekg.Msg)                { m.RecursionDesired = false }
func cd(m *miekg.Msg)                  { m.CheckingDisabled = true }

// request packs a question.
func request(t testing.TB, name string, qtype uint16, opts ...option) ([]byte, int) {
	t.Helper()
	m := new(miekg.Msg)
	m.SetQuestion(name, qtype)
	for _, o := range opts {
		o(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	end, ok := wiredns.SkipName(b, headerLen)
	if !ok {
		t.Fatal("bad question")
	}
	return b, end + 4
}

func unpack(t testing.TB, q, b []byte) *miekg.Msg {
	t.Helper()
	m := new(miekg.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("answer %x: %v", b, err)
	}
	if string(b[:2]) != string(q[:2]) || !m.Response {
		t.Fatalf("answer %v to another question", m)
	}
	return m
}

// resolve does what a server does: the cache, then upstreams. The second result
// says whether it was the cache.
func resolve(t testing.TB, f *Forwarder, name string, qtype uint16, opts ...option) (*miekg.Msg, bool) {
	t.Helper()
	q, end := request(t, name, qtype, opts...)
	if b, ok := f.Cached(q, end, tcpMax, nil); ok {
		return unpack(t, q, b), true
	}
	b, err := f.Exchange(context.Background(), q, end, tcpMax)
	if err != nil {
		return &miekg.Msg{MsgHdr: miekg.MsgHdr{Rcode: miekg.RcodeServerFailure}}, false
	}
	return unpack(t, q, b), false
}

// eventually waits for something that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("it never happened: %s", what)
		}
	}
}
