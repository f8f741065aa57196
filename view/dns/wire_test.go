package dns

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/internal/script"
)

var update = flag.Bool("update", false, "write what came into testdata")

// TestWire replays testdata/*.txt: commands of world, and questions:
//
//	ask NAME TYPE [class=N] [opcode=N] [edns[=SIZE]] [do] [version=N] [cd] [no-rd] [tcp]
//	raw HEX
//
// Every question goes to Answer, and over a socket of every transport; and again
// with EDNS and with mixed case. The answers must be the same but for what the
// transport allows. Long answers are printed as counts: which part of a set
// comes is chance.
func TestWire(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%t", plain), func(t *testing.T) { testWire(t, plain) })
	}
}

func testWire(t *testing.T, plain bool) {
	script.Run(t, "testdata/*.txt", *update, func(t *testing.T) func(*script.Step) string {
		w := newWorld(t, wireConfig(t, plain))
		c := newClients(t, w.server)
		return func(s *script.Step) string {
			var out strings.Builder
			for _, l := range s.Lines {
				words := strings.Fields(l)
				var err error
				switch words[0] {
				case "ask":
					var answer string
					answer, err = c.ask(t, words[1:])
					out.WriteString(answer)
				case "raw":
					var pkt []byte
					if pkt, err = hex.DecodeString(strings.Join(words[1:], "")); err == nil {
						out.WriteString(c.raw(t, pkt))
					}
				default:
					err = w.do(words)
				}
				if err != nil {
					fmt.Fprintf(&out, "error: %v\n", err)
				}
			}
			return out.String()
		}
	})
}

// run serves until stop is called or the test ends.
func run(t testing.TB, s *Server) (stop func()) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// wireConfig is of the servers that TestWire asks.
func wireConfig(t testing.TB, plain bool) Config {
	files, _ := certificate(t)
	return Config{
		Addrs: []string{"127.0.0.1:0"}, PlainUDP: plain,
		TLSAddrs: []string{"127.0.0.1:0"}, HTTPSAddrs: []string{"127.0.0.1:0"}, Certificate: files.Get,
	}
}

// transport is one way to ask.
type transport struct {
	name   string
	stream bool // answers may have 65,535 bytes
	dial   func(t testing.TB, s *Server) net.Conn
}

// transports are those that every wire case is asked over, if the server
// listens there; the first two are UDP and TCP.
func transports() []transport {
	plain := func(network string) func(testing.TB, *Server) net.Conn {
		return func(t testing.TB, s *Server) net.Conn {
			conn, err := net.Dial(network, s.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
	}
	return []transport{{"udp", false, plain("udp")}, {"tcp", true, plain("tcp")}, {"tls", true, dialTLS}, {"https", true, dialHTTPS}}
}

// clients are sockets to a running server.
type clients struct {
	server   *Server
	udp, tcp *miekg.Conn
	all      []*miekg.Conn // one for each transport; nil: the server has none
}

func newClients(t testing.TB, s *Server) *clients {
	t.Helper()
	run(t, s)
	return dialClients(t, s)
}

func dialClients(t testing.TB, s *Server) *clients {
	t.Helper()
	c := &clients{server: s}
	for _, tr := range transports() {
		conn := tr.dial(t, s)
		if conn == nil {
			c.all = append(c.all, nil)
			continue
		}
		t.Cleanup(func() { _ = conn.Close() })
		c.all = append(c.all, &miekg.Conn{Conn: conn, UDPSize: 65535})
	}
	c.udp, c.tcp = c.all[0], c.all[1]
	return c
}

// ask sends one question every way there is and gives the answer to the first.
func (c *clients) ask(t testing.TB, words []string) (string, error) {
	var m miekg.Msg
	typ, ok := miekg.StringToType[words[1]]
	if !ok {
		n, err := strconv.ParseUint(strings.TrimPrefix(words[1], "TYPE"), 10, 16)
		if err != nil {
			return "", err
		}
		typ = uint16(n)
	}
	m.SetQuestion(words[0], typ)
	tcp, edns := false, false
	for _, w := range words[2:] {
		name, value, _ := strings.Cut(w, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "class":
			m.Question[0].Qclass = uint16(n)
		case "opcode":
			m.Opcode = n
		case "cd":
			m.CheckingDisabled = true
		case "no-rd":
			m.RecursionDesired = false
		case "tcp":
			tcp = true
		case "edns":
			edns = true
			if n == 0 {
				n = 1232
			}
			m.SetEdns0(uint16(n), false)
		case "do":
			m.IsEdns0().SetDo()
		case "version":
			m.IsEdns0().SetVersion(uint8(n))
		default:
			return "", fmt.Errorf("unknown word %q", w)
		}
	}
	c.everyWay(t, &m)
	if !edns {
		with := m.Copy()
		with.SetEdns0(1232, false)
		c.everyWay(t, with)
	}
	mixed := m.Copy()
	name := []byte(strings.ToLower(words[0]))
	for i := range name {
		if i%2 == 0 {
			name[i] = strings.ToUpper(string(name[i]))[0]
		}
	}
	mixed.Question[0].Name = string(name)
	c.everyWay(t, mixed)
	got := render(c.direct(t, &m, tcp))
	if folded := strings.ToLower(render(c.direct(t, mixed, tcp))); folded != strings.ToLower(got) {
		t.Errorf("%v: the answer depends on the case of the question:\n%s-- not\n%s", words, folded, got)
	}
	return got, nil
}

// everyWay holds the sockets' answers against those without sockets.
func (c *clients) everyWay(t testing.TB, m *miekg.Msg) {
	t.Helper()
	for i, way := range transports() {
		conn := c.all[i]
		if conn == nil {
			continue
		}
		want := render(c.direct(t, m, way.stream))
		if err := conn.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		got, err := conn.ReadMsg()
		if err != nil {
			t.Fatalf("%s: %s: %v", way.name, m.Question[0].String(), err)
		}
		if s := render(got); s != want {
			t.Errorf("%s: %s:\n%s-- but without socket\n%s", way.name, m.Question[0].String(), s, want)
		}
	}
}

// direct asks Answer, and checks what holds for every answer.
func (c *clients) direct(t testing.TB, m *miekg.Msg, tcp bool) *miekg.Msg {
	t.Helper()
	pkt, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	resp := c.server.Answer(pkt, nil, tcp)
	checkAnswer(t, pkt, resp, tcp)
	var r miekg.Msg
	if err := r.Unpack(resp); err != nil {
		t.Fatal(err)
	}
	return &r
}

// customTTL is of custom records in tests that have one of their own.
const customTTL = 77

// checkAnswer checks what must hold for the answer to any packet.
func checkAnswer(t testing.TB, pkt, resp []byte, tcp bool) {
	t.Helper()
	if resp == nil {
		if len(pkt) >= headerLen && pkt[2]&0x80 == 0 {
			t.Fatalf("no answer to %x", pkt)
		}
		return
	}
	var q query
	v := q.parse(pkt)
	limit := udpPlain
	if q.edns {
		limit = min(max(udpPlain, int(q.size)), udpMax)
	}
	if tcp {
		limit = tcpMax
	}
	var r miekg.Msg
	if err := r.Unpack(resp); err != nil {
		t.Fatalf("the answer to %x cannot be read: %v: %x", pkt, err, resp)
	}
	switch {
	case len(resp) > limit:
		t.Fatalf("the answer has %d bytes of %d", len(resp), limit)
	case r.Id != q.id || !r.Response || r.RecursionDesired != (q.flags&flagRD != 0):
		t.Fatalf("wrong header: %+v", r.MsgHdr)
	case tcp && r.Truncated:
		t.Fatal("truncated, over TCP")
	case v == parsed && string(resp[headerLen:q.end]) != string(pkt[headerLen:q.end]):
		t.Fatalf("the question is not repeated: %x", resp)
	case (r.IsEdns0() != nil) != (v == parsed && q.edns):
		t.Fatal("OPT goes with OPT")
	case r.Rcode == miekg.RcodeNameError && len(r.Ns) == 0:
		t.Fatal("NXDOMAIN without SOA")
	case v == parsed && r.Rcode == 0 && !r.Truncated && len(r.Answer)+len(r.Ns) == 0:
		t.Fatal("NODATA without SOA")
	}
	for _, rr := range slices.Concat(r.Answer, r.Ns) {
		if ttl := rr.Header().Ttl; ttl != 5 && ttl != customTTL {
			t.Fatalf("TTL %d", ttl)
		}
	}
}

// raw sends a packet. Silence on UDP is proved by the answer to the next
// question; on TCP by the end of the connection.
func (c *clients) raw(t testing.TB, pkt []byte) string {
	t.Helper()
	resp := c.server.Answer(pkt, nil, false)
	checkAnswer(t, pkt, resp, false)
	if _, err := c.udp.Conn.Write(pkt); err != nil {
		t.Fatal(err)
	}
	if resp == nil {
		var next miekg.Msg
		next.SetQuestion("cluster.local.", miekg.TypeSOA)
		if r, _, err := asker("udp").ExchangeWithConn(&next, c.udp); err != nil || r.Id != next.Id {
			t.Fatalf("no silence: %v, %v", r, err)
		}
		return "silence\n"
	}
	buf := make([]byte, 65535)
	n, err := c.udp.Conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var direct, r miekg.Msg
	if err := direct.Unpack(resp); err != nil {
		t.Fatal(err)
	}
	if err := r.Unpack(buf[:n]); err != nil || render(&r) != render(&direct) {
		t.Errorf("%x: %v %v", pkt, &r, err)
	}
	return render(&direct)
}

// render writes an answer so that two that mean the same are the same.
func render(m *miekg.Msg) string {
	var b strings.Builder
	b.WriteString(rcodeName(m.Rcode))
	for _, f := range []struct {
		name string
		set  bool
	}{{"aa", m.Authoritative}, {"tc", m.Truncated}, {"rd", m.RecursionDesired}, {"ra", m.RecursionAvailable}, {"cd", m.CheckingDisabled}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	if o := m.IsEdns0(); o != nil {
		fmt.Fprintf(&b, " edns=%d", o.UDPSize())
		if o.Do() {
			b.WriteString(" do")
		}
	}
	if m.Opcode != 0 {
		fmt.Fprintf(&b, " opcode=%d", m.Opcode)
	}
	if len(m.Question) == 0 {
		b.WriteString(" no question")
	}
	b.WriteString("\n")
	for _, s := range []struct {
		name string
		rrs  []miekg.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		var lines []string
		chain := false
		for _, rr := range s.rrs {
			if rr.Header().Rrtype != miekg.TypeOPT {
				lines = append(lines, s.name+" "+strings.ReplaceAll(rr.String(), "\t", " ")+"\n")
				chain = chain || rr.Header().Rrtype == miekg.TypeCNAME
			}
		}
		if len(lines) > 20 || m.Truncated && len(lines) > 0 {
			fmt.Fprintf(&b, "%s: %d records\n", s.name, len(lines))
			continue
		}
		if !chain { // there the order matters
			slices.Sort(lines)
		}
		b.WriteString(strings.Join(lines, ""))
	}
	return b.String()
}

// TestTCPPipelined sends many questions at once, in pieces.
func TestTCPPipelined(t *testing.T) {
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}})
	w.must(t, "service default/web clusterip=10.96.0.1")
	c := newClients(t, w.server)
	var all []byte
	const n = 200
	for i := range n {
		var m miekg.Msg
		m.SetQuestion("web.default.svc.cluster.local.", miekg.TypeA)
		m.Id = uint16(i)
		pkt, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(pkt))), pkt...)
	}
	go func() {
		for len(all) > 0 {
			k := min(len(all), 777)
			if _, err := c.tcp.Conn.Write(all[:k]); err != nil {
				t.Error(err)
				return
			}
			all = all[k:]
		}
	}()
	for i := range n {
		r, err := c.tcp.ReadMsg()
		if err != nil || r.Id != uint16(i) || len(r.Answer) != 1 {
			t.Fatalf("answer %d: %v %v", i, r, err)
		}
	}
}

// TestTCPLimits: an idle connection and one too many are closed.
func TestTCPLimits(t *testing.T) {
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, MaxConns: 1, IdleTimeout: 50 * time.Millisecond})
	run(t, w.server)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", w.server.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := dial()
	defer a.Close()
	b := dial()
	defer b.Close()
	for _, c := range []net.Conn{b, a} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d, %v: want it closed", n, err)
		}
	}
}
