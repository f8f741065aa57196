package dns

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// upstream is a name server with one behaviour.
func upstream(t *testing.T, answer miekg.HandlerFunc) string {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	for p == nil {
		var err error
		if l, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if p, err = net.ListenPacket("udp4", l.Addr().String()); err != nil {
			_ = l.Close() // somebody else has it for UDP
		}
	}
	var started sync.WaitGroup
	for _, s := range []*miekg.Server{{Listener: l, Handler: answer}, {PacketConn: p, Handler: answer}} {
		started.Add(1)
		s.NotifyStartedFunc = started.Done
		done := make(chan error, 1)
		go func() { done <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	started.Wait()
	return l.Addr().String()
}

// asker waits as long as a busy machine may need.
func asker(network string) *miekg.Client {
	return &miekg.Client{Net: network, Timeout: time.Minute}
}

// silent is an upstream that is dead.
func silent(t *testing.T) string {
	t.Helper()
	p, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p.LocalAddr().String()
}

func good(w miekg.ResponseWriter, q *miekg.Msg) {
	r := new(miekg.Msg).SetReply(q)
	r.RecursionAvailable = true
	name := q.Question[0].Name
	add := func(n int, form string, args ...any) {
		rr, err := miekg.NewRR(name + " 60 IN " + fmt.Sprintf(form, args...))
		if err != nil {
			panic(err)
		}
		for range n {
			r.Answer = append(r.Answer, rr)
		}
	}
	switch label, _, _ := strings.Cut(strings.ToLower(name), "."); {
	case label == "www" && q.Question[0].Qtype == miekg.TypeA:
		add(1, "A 192.0.2.80")
	case label == "big":
		for i := range 100 {
			add(1, "A 192.0.2.%d", i)
		}
		if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
			r.Truncate(512)
		}
	case label == "9":
		add(1, "PTR nine.example.com.")
	default:
		r.Rcode = miekg.RcodeNameError
	}
	_ = w.WriteMsg(r)
}

func with(rcode int) miekg.HandlerFunc {
	return func(w miekg.ResponseWriter, q *miekg.Msg) {
		_ = w.WriteMsg(new(miekg.Msg).SetRcode(q, rcode))
	}
}

func TestForward(t *testing.T) {
	works := upstream(t, good)
	servfail, refused := upstream(t, with(miekg.RcodeServerFailure)), upstream(t, with(miekg.RcodeRefused))
	for _, c := range []struct {
		name      string
		upstreams []string
		question  string
		want      string        // over UDP
		timeout   time.Duration // 0: whatever a busy machine needs
	}{
		{"answer", []string{works}, "www.example.com. A", "NOERROR rd ra\nanswer www.example.com. 60 IN A 192.0.2.80\n", 0},
		{"unknown reverse name", []string{works}, "9.2.0.192.in-addr.arpa. PTR", "NOERROR rd ra\nanswer 9.2.0.192.in-addr.arpa. 60 IN PTR nine.example.com.\n", 0},
		{"known reverse name", []string{works}, "1.0.96.10.in-addr.arpa. PTR", "NOERROR aa rd ra\nanswer 1.0.96.10.in-addr.arpa. 5 IN PTR web.a.svc.cluster.local.\n", 0},
		{"NXDOMAIN is an answer", []string{works, servfail}, "no.example.com. A", "NXDOMAIN rd ra\n", 0},
		{"CNAME chase", []string{works}, "ext.a.svc.cluster.local. A", "NOERROR aa rd ra\nanswer ext.a.svc.cluster.local. 5 IN CNAME www.example.com.\nanswer www.example.com. 60 IN A 192.0.2.80\n", 0},
		{"CNAME chase without end", []string{works}, "lost.a.svc.cluster.local. A", "NXDOMAIN aa rd ra\nanswer lost.a.svc.cluster.local. 5 IN CNAME no.example.com.\n", 0},
		{"CNAME itself", []string{works}, "ext.a.svc.cluster.local. CNAME", "NOERROR aa rd ra\nanswer ext.a.svc.cluster.local. 5 IN CNAME www.example.com.\n", 0},
		{"CNAME chase, nobody there", []string{silent(t)}, "ext.a.svc.cluster.local. A", "SERVFAIL rd ra\n", time.Second},
		{"the next one", []string{silent(t), servfail, refused, works}, "www.example.com. A", "NOERROR rd ra\nanswer www.example.com. 60 IN A 192.0.2.80\n", 0},
		{"nobody better", []string{refused, silent(t)}, "www.example.com. A", "REFUSED rd ra\n", 4 * time.Second},
		{"nobody", []string{silent(t)}, "www.example.com. A", "SERVFAIL rd ra\n", time.Second},
		{"transfers are not forwarded", []string{works}, "example.com. AXFR", "REFUSED rd ra\n", 0},
		{"long", []string{works}, "big.example.com. A", "NOERROR tc rd ra\nanswer: 29 records\n", 0},
		{"long, EDNS", []string{works}, "big.example.com. A edns=1000", "NOERROR tc rd ra\nanswer: 59 records\n", 0},
		{"the zone needs nobody", []string{silent(t)}, "web.a.svc.cluster.local. A", "NOERROR aa rd ra\nanswer web.a.svc.cluster.local. 5 IN A 10.96.0.1\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // some wait for the dead
			w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: c.upstreams, UpstreamTimeout: c.timeout})
			w.must(t, "service a/web clusterip=10.96.0.1", "service a/ext external=www.example.com", "service a/lost external=no.example.com")
			run(t, w.server)
			var m miekg.Msg
			words := strings.Fields(c.question)
			m.SetQuestion(words[0], miekg.StringToType[words[1]])
			if len(words) > 2 {
				m.SetEdns0(1000, false)
			}
			at := w.server.Addrs()[0].String()
			r, _, err := asker("udp").Exchange(&m, at)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Replace(render(r), " edns=1232", "", 1); got != c.want {
				t.Errorf("UDP:\n%s-- want\n%s", got, c.want)
			}
			r, _, err = asker("tcp").Exchange(&m, at)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case !strings.Contains(c.want, " tc ") && render(r) != c.want:
				t.Errorf("TCP:\n%s-- want\n%s", render(r), c.want)
			case strings.Contains(c.want, " tc ") && (r.Truncated || len(r.Answer) != 100):
				t.Errorf("TCP: %d records", len(r.Answer))
			}
			if direct := w.server.Resolve(context.Background(), &m); render(direct) != render(r) {
				t.Errorf("Resolve:\n%s", render(direct))
			}
		})
	}
}

// TestForwardForged: answers to other questions are not taken.
func TestForwardForged(t *testing.T) {
	var tries atomic.Int32
	addr := upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
		if isWWW(q) {
			tries.Add(1)
		}
		wrong := new(miekg.Msg).SetReply(q)
		wrong.Id++
		_ = w.WriteMsg(wrong)
		other := new(miekg.Msg).SetReply(q)
		other.Question[0].Name = "www.example.org."
		_ = w.WriteMsg(other)
		_, _ = w.Write([]byte{1, 2, 3})
		good(w, q)
	})
	w := newWorld(t, Config{Upstreams: []string{addr}})
	w.calm(t)
	var m miekg.Msg
	m.SetQuestion("www.example.com.", miekg.TypeA)
	if r := w.server.Resolve(context.Background(), &m); len(r.Answer) != 1 || tries.Load() != 1 {
		t.Errorf("%d tries, %v", tries.Load(), r)
	}
}

// TestForwardFlood: with all places taken by a dead upstream the zone is
// answered, and what cannot be forwarded fails at once.
func TestForwardFlood(t *testing.T) {
	hold := make(chan struct{})
	addr := upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
		<-hold
		good(w, q)
	})
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: []string{addr}, MaxForwards: 2, UpstreamTimeout: time.Minute})
	w.must(t, "service a/web clusterip=10.96.0.1")
	c := newClients(t, w.server)
	ask := func(name string, id uint16) {
		var m miekg.Msg
		m.SetQuestion(name, miekg.TypeA)
		m.Id = id
		if err := c.tcp.WriteMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint16(5) {
		ask("www.example.com.", i)
	}
	ask("web.a.svc.cluster.local.", 5)
	rcodes := map[uint16]int{}
	for range 4 {
		r, err := c.tcp.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		rcodes[r.Id] = r.Rcode
	}
	if want := map[uint16]int{2: 2, 3: 2, 4: 2, 5: 0}; fmt.Sprint(rcodes) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", rcodes, want)
	}
	close(hold)
	for range 2 { // those that waited
		if r, err := c.tcp.ReadMsg(); err != nil || len(r.Answer) != 1 {
			t.Errorf("%v %v", r, err)
		}
	}
}

// TestForwardLoop: the server does not ask itself.
func TestForwardLoop(t *testing.T) {
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: []string{silent(t)}})
	run(t, w.server)
	cfg := w.server.cfg
	cfg.Upstreams = []string{w.server.Addrs()[0].String()}
	if err := w.server.forward.Reload(w.server.forwardConfig(&cfg)); err != nil {
		t.Fatal(err)
	}
	var m miekg.Msg
	m.SetQuestion("www.example.com.", miekg.TypeA)
	if r := w.server.Resolve(context.Background(), &m); r.Rcode != miekg.RcodeRefused {
		t.Errorf("%v", r)
	}
}

// TestForwardCache: the second time nobody is asked, and nothing allocated.
func TestForwardCache(t *testing.T) {
	var asked atomic.Int32
	addr := upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
		if isWWW(q) {
			asked.Add(1)
		}
		good(w, q)
	})
	w := newWorld(t, Config{Upstreams: []string{addr}})
	w.calm(t)
	var m miekg.Msg
	m.SetQuestion("www.example.com.", miekg.TypeA)
	for range 3 {
		if r := w.server.Resolve(context.Background(), &m); len(r.Answer) != 1 {
			t.Fatalf("%v", r)
		}
	}
	if asked.Load() != 1 {
		t.Errorf("the upstream was asked %d times", asked.Load())
	}
	pkt, buf := question("www.example.com.", miekg.TypeA), make([]byte, 0, udpMax)
	var q query
	if n := testing.AllocsPerRun(100, func() {
		if _, _, wait := w.server.immediate(&q, pkt, buf, false); wait {
			t.Error("not in the cache")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// isWWW tells a client's question from the forwarder's own.
func isWWW(q *miekg.Msg) bool {
	return strings.HasPrefix(strings.ToLower(q.Question[0].Name), "www.")
}

// TestStop: a question that waits for an upstream when the server stops is
// answered still.
func TestStop(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		asked, hold := make(chan struct{}, 100), make(chan struct{})
		addr := upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
			if isWWW(q) {
				asked <- struct{}{}
				<-hold
			}
			good(w, q)
		})
		w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: []string{addr}})
		if err := w.server.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.server.Run(ctx) }()
		conn, err := miekg.Dial(network, w.server.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // rather than wait for ever
		var m miekg.Msg
		m.SetQuestion("www.example.com.", miekg.TypeA)
		if err := conn.WriteMsg(&m); err != nil {
			t.Fatal(err)
		}
		<-asked
		cancel()
		close(hold)
		if r, err := conn.ReadMsg(); err != nil || len(r.Answer) != 1 {
			t.Errorf("%s: %v %v", network, r, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	}
}
