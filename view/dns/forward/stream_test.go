package forward

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// authority makes a certificate for dns.test and a pool that trusts it.
func authority(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"dns.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLS(t *testing.T) {
	conf, pool := authority(t)
	var conns, padded atomic.Int64
	var seen sync.Map
	up := upstreamAt(t, conf, func(w miekg.ResponseWriter, r *miekg.Msg) {
		if _, old := seen.LoadOrStore(w.RemoteAddr().String(), true); !old {
			conns.Add(1)
		}
		if r.Len()%128 == 0 {
			padded.Add(1)
		}
		_ = w.WriteMsg(answerOf(r))
	})
	cfg := root("tls://" + up.addr + "#dns.test")
	cfg.RootCAs = pool
	f := forwarder(t, cfg)
	const n = 500
	var wg sync.WaitGroup
	var good atomic.Int64
	for i := range n {
		wg.Go(func() {
			if m, _ := resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA); m.Rcode == miekg.RcodeNameError {
				good.Add(1)
			}
		})
	}
	wg.Wait()
	if good.Load() < n {
		t.Errorf("%d of %d answered", good.Load(), n)
	}
	if c := conns.Load(); c == 0 || c > maxStreams {
		t.Errorf("%d connections, at most %d", c, maxStreams)
	}
	if padded.Load() != up.asked.Load() {
		t.Errorf("%d of %d questions padded", padded.Load(), up.asked.Load())
	}
	for what, bad := range map[string]Config{
		"another name":      {Zones: []Zone{{".", []string{"tls://" + up.addr + "#other.test"}}}, RootCAs: pool},
		"its address":       {Zones: []Zone{{".", []string{"tls://" + up.addr}}}, RootCAs: pool},
		"another authority": {Zones: []Zone{{".", []string{"tls://" + up.addr + "#dns.test"}}}, RootCAs: x509.NewCertPool()},
	} {
		before := up.asked.Load()
		if m, _ := resolve(t, forwarder(t, bad), "x.example.", miekg.TypeA); m.Rcode != miekg.RcodeServerFailure || up.asked.Load() != before {
			t.Errorf("a certificate for %s was taken: %v", what, m)
		}
	}
}

// TestTLSResumption: a connection that has to be made anew costs half.
func TestTLSResumption(t *testing.T) {
	conf, pool := authority(t)
	var conns, resumed atomic.Int64
	conf.NextProtos = []string{"dot"}
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		conns.Add(1)
		if cs.DidResume && cs.NegotiatedProtocol == "dot" && cs.Version >= tls.VersionTLS12 {
			resumed.Add(1)
		}
		return nil
	}
	up := upstreamAt(t, conf, func(w miekg.ResponseWriter, r *miekg.Msg) {
		_ = w.WriteMsg(answerOf(r))
		_ = w.Close()
	})
	cfg := root("tls://" + up.addr + "#dns.test")
	cfg.RootCAs = pool
	f := forwarder(t, cfg)
	for i := range 10 {
		if m, _ := resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA); m.Rcode != miekg.RcodeNameError {
			t.Fatalf("question %d: %v", i, m)
		}
	}
	if resumed.Load() == 0 {
		t.Errorf("none of %d connections took up an old session", conns.Load())
	}
}

// TestUnpredictable: what a forger must guess is new with each question.
func TestUnpredictable(t *testing.T) {
	ports, ids, cases := map[string]bool{}, map[uint16]bool{}, map[string]bool{}
	var mu sync.Mutex
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		mu.Lock()
		ports[w.RemoteAddr().String()], ids[r.Id], cases[r.Question[0].Name] = true, true, true
		mu.Unlock()
		_ = w.WriteMsg(new(miekg.Msg).SetRcode(r, miekg.RcodeRefused)) // never cached
	})
	f := forwarder(t, root(up.addr))
	const n = 200
	for range n {
		resolve(t, f, "a-long-name-of-many-letters.example.", miekg.TypeA)
	}
	mu.Lock()
	defer mu.Unlock()
	for what, got := range map[string]int{"ports": len(ports), "numbers": len(ids), "spellings": len(cases)} {
		if got < n*9/10 {
			t.Errorf("%d %s in %d questions", got, what, n)
		}
	}
}

// TestClosedConnection: a connection that the other side closed while it was
// idle costs nobody an answer.
func TestClosedConnection(t *testing.T) {
	var again atomic.Int64
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := answerOf(r, r.Question[0].Name+" 60 IN A 192.0.2.1")
		if w.RemoteAddr().Network() == "udp" {
			m.Answer, m.Truncated = nil, true
		}
		tcp := w.RemoteAddr().Network() == "tcp"
		if tcp {
			again.Add(1) // before the answer is there
		}
		_ = w.WriteMsg(m)
		if tcp {
			_ = w.Close()
		}
	})
	f := forwarder(t, root(up.addr))
	for i := range 20 {
		if m, _ := resolve(t, f, fmt.Sprintf("n%d.example.", i), miekg.TypeA); len(m.Answer) != 1 {
			t.Fatalf("question %d: %v", i, m)
		}
	}
	if again.Load() < 20 {
		t.Errorf("%d questions by TCP", again.Load())
	}
}

// TestOddServers: servers that change the case, or know no EDNS, work.
func TestOddServers(t *testing.T) {
	for what, h := range map[string]func(w miekg.ResponseWriter, r *miekg.Msg){
		"changes the case": func(w miekg.ResponseWriter, r *miekg.Msg) {
			r.Question[0].Name = strings.ToLower(r.Question[0].Name)
			_ = w.WriteMsg(answerOf(r, r.Question[0].Name+" 60 IN A 192.0.2.1"))
		},
		"FORMERR to EDNS": func(w miekg.ResponseWriter, r *miekg.Msg) {
			m := answerOf(r, r.Question[0].Name+" 60 IN A 192.0.2.1")
			if r.IsEdns0() != nil {
				m = new(miekg.Msg).SetRcode(r, miekg.RcodeFormatError)
			}
			_ = w.WriteMsg(m)
		},
		"FORMERR without the question": func(w miekg.ResponseWriter, r *miekg.Msg) {
			m := answerOf(r, r.Question[0].Name+" 60 IN A 192.0.2.1")
			if r.IsEdns0() != nil {
				m = new(miekg.Msg).SetRcode(r, miekg.RcodeFormatError)
				m.Question = nil
			}
			_ = w.WriteMsg(m)
		},
	} {
		f := forwarder(t, root(upstreamAt(t, nil, h).addr))
		if m, _ := resolve(t, f, "abcdefghijklmnop.example.", miekg.TypeA); len(m.Answer) != 1 {
			t.Errorf("%s: %v", what, m)
		}
	}
}

// hostile answers each UDP packet with what make gives.
func hostile(t *testing.T, make func(q []byte) [][]byte) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = pc.Close(); wg.Wait() })
	wg.Go(func() {
		buf := [2048]byte{}
		for {
			n, from, err := pc.ReadFrom(buf[:])
			if err != nil {
				return
			}
			for _, b := range make(append([]byte(nil), buf[:n]...)) {
				_, _ = pc.WriteTo(b, from)
			}
		}
	})
	return pc.LocalAddr().String()
}

// reply is a positive answer to a packet.
func reply(q []byte) []byte {
	var r miekg.Msg
	if err := r.Unpack(q); err != nil {
		return nil
	}
	b, _ := answerOf(&r, r.Question[0].Name+" 60 IN A 192.0.2.66").Pack()
	return b
}

func TestHostileUpstreams(t *testing.T) {
	one := func(change func(b []byte) []byte) func(q []byte) [][]byte {
		return func(q []byte) [][]byte { return [][]byte{change(reply(q))} }
	}
	for what, h := range map[string]func(q []byte) [][]byte{
		"another number":   one(func(b []byte) []byte { b[0] ^= 1; return b }),
		"another question": one(func(b []byte) []byte { b[headerLen+1] = '!'; return b }),
		"another type":     one(func(b []byte) []byte { b[len("\x03www\x07example\x00")+headerLen+1] = typeNS; return b }),
		"a question":       one(func(b []byte) []byte { b[2] &^= 0x80; return b }),
		"nothing":          one(func([]byte) []byte { return nil }),
		"half":             one(func(b []byte) []byte { return b[:len(b)/2] }),
		"one byte":         one(func(b []byte) []byte { return b[:1] }),
		"a pointer loop": one(func(b []byte) []byte {
			end := headerLen + len("\x03www\x07example\x00") + 4
			return append(b[:end], 0xC0, byte(end), 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4)
		}),
		"many records that are not there": one(func(b []byte) []byte { b[6], b[7] = 0xFF, 0xFF; return b }),
		"a flood of guesses": func(q []byte) [][]byte {
			var list [][]byte
			for i := range 2 * maxForged {
				b := reply(q)
				binary.BigEndian.PutUint16(b, binary.BigEndian.Uint16(b)+uint16(i)+1)
				list = append(list, b)
			}
			return append(list, reply(q)) // even the right one is too late
		},
	} {
		t.Run(what, func(t *testing.T) {
			good := upstreamAt(t, nil, zoneOf("www.example. 60 IN A 192.0.2.1"))
			cfg := root(hostile(t, h), good.addr)
			cfg.Hedge = 10 * time.Millisecond
			f := forwarder(t, cfg)
			m, _ := resolve(t, f, "www.example.", miekg.TypeA)
			if len(m.Answer) != 1 || m.Answer[0].(*miekg.A).A.String() != "192.0.2.1" {
				t.Errorf("answer: %v", m)
			}
		})
	}
}

// TestHostileStreams: connections that lie about lengths, drip, or close.
func TestHostileStreams(t *testing.T) {
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }
	for what, h := range map[string]func(c net.Conn, q []byte){
		"closes":                func(c net.Conn, _ []byte) { _ = c.Close() },
		"nothing":               func(net.Conn, []byte) {},
		"a length and no bytes": func(c net.Conn, _ []byte) { _, _ = c.Write([]byte{0xFF, 0xFF}) },
		"length 0":              func(c net.Conn, _ []byte) { _, _ = c.Write([]byte{0, 0}) },
		"64 KiB of zeros":       func(c net.Conn, _ []byte) { _, _ = c.Write(framed(make([]byte, tcpMax))) },
		"64 KiB after the header": func(c net.Conn, q []byte) {
			_, _ = c.Write(framed(append(reply(q), make([]byte, 60000)...)))
		},
		"another question": func(c net.Conn, q []byte) {
			b := reply(q)
			b[headerLen+1] = '!'
			_, _ = c.Write(framed(b))
		},
		"strays for ever": func(c net.Conn, q []byte) {
			b := reply(q)
			b[0] ^= 1
			for range 1000 {
				if _, err := c.Write(framed(b)); err != nil {
					return
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			l, pc := listen(t)
			var wg sync.WaitGroup
			var asked atomic.Int64
			ctx, cancel := context.WithCancel(context.Background())
			t.Cleanup(func() { cancel(); _ = l.Close(); _ = pc.Close(); wg.Wait() })
			wg.Go(func() { // by UDP: cut
				var buf [2048]byte
				for {
					n, from, err := pc.ReadFrom(buf[:])
					if err != nil {
						return
					}
					b := append([]byte(nil), buf[:n]...)
					b[2] |= 0x82
					_, _ = pc.WriteTo(b, from)
				}
			})
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() {
						defer func() { _ = c.Close() }()
						defer context.AfterFunc(ctx, func() { _ = c.Close() })()
						var length [2]byte
						for {
							if _, err := io.ReadFull(c, length[:]); err != nil {
								return
							}
							q := make([]byte, binary.BigEndian.Uint16(length[:]))
							if _, err := io.ReadFull(c, q); err != nil {
								return
							}
							asked.Add(1)
							h(c, q)
						}
					})
				}
			})
			cfg := root(l.Addr().String())
			cfg.Timeout, cfg.Hedge = 200*time.Millisecond, 50*time.Millisecond
			f := forwarder(t, cfg)
			eventually(t, "a question arrives by TCP", func() bool {
				if m, _ := resolve(t, f, "www.example.", miekg.TypeA); m.Rcode == 0 && !m.Truncated {
					t.Errorf("answer: %v", m)
				}
				return asked.Load() > 0
			})
			if yes, no, _ := f.cache.size(); yes+no != 0 {
				t.Error("something was cached")
			}
		})
	}
}
