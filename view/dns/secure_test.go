package dns

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// certificate makes one for 127.0.0.1 and says whom clients trust then.
func certificate(t testing.TB) (*CertificateFiles, *x509.CertPool) {
	t.Helper()
	cert, key, err := SelfSigned(t.TempDir(), []string{"dns.test"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	files, err := NewCertificateFiles(cert, key, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return files, pool
}

// secureWorld is a running server with all transports.
func secureWorld(t *testing.T, cfg Config) (*world, *x509.CertPool) {
	t.Helper()
	files, pool := certificate(t)
	cfg.Addrs, cfg.TLSAddrs, cfg.HTTPSAddrs = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	cfg.Certificate = files.Get
	w := newWorld(t, cfg)
	w.must(t, "service a/web clusterip=10.96.0.1 ports=http:80", "service a/ext external=www.example.com")
	run(t, w.server)
	return w, pool
}

func (w *world) dialTLS(t testing.TB, pool *x509.CertPool) *miekg.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", w.server.TLSAddrs()[0].String(), &tls.Config{RootCAs: pool, NextProtos: []string{"dot"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if p := conn.ConnectionState().NegotiatedProtocol; p != "dot" {
		t.Errorf("ALPN %q", p)
	}
	return &miekg.Conn{Conn: conn}
}

// dialTLS is a transport of the wire cases; nil: the server has no TLS.
func dialTLS(t testing.TB, s *Server) net.Conn {
	t.Helper()
	if len(s.TLSAddrs()) == 0 {
		return nil
	}
	conn, err := tls.Dial("tcp", s.TLSAddrs()[0].String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialHTTPS is one too: a connection that makes of each question, framed as
// for TCP, a request.
func dialHTTPS(t testing.TB, s *Server) net.Conn {
	t.Helper()
	if len(s.HTTPSAddrs()) == 0 {
		return nil
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	return &httpsConn{client: &http.Client{Transport: tr}, url: "https://" + s.HTTPSAddrs()[0].String() + httpsPath, close: tr.CloseIdleConnections}
}

type httpsConn struct {
	net.Conn
	client  *http.Client
	url     string
	close   func()
	answers bytes.Buffer
}

func (c *httpsConn) Write(b []byte) (int, error) {
	resp, err := c.client.Post(c.url, dnsMessage, bytes.NewReader(b[2:]))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s %v", resp.Status, answer, err)
	}
	c.answers.Write(binary.BigEndian.AppendUint16(nil, uint16(len(answer))))
	c.answers.Write(answer)
	return len(b), nil
}

func (c *httpsConn) Read(b []byte) (int, error) { return c.answers.Read(b) }

func (c *httpsConn) Close() error {
	c.close()
	return nil
}

func ask(name string, typ uint16) *miekg.Msg {
	return new(miekg.Msg).SetQuestion(name, typ)
}

// TestTLSOutOfOrder: a question that waits for an upstream does not hold up
// those behind it.
func TestTLSOutOfOrder(t *testing.T) {
	release := make(chan struct{})
	up := upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
		<-release
		good(w, q)
	})
	w, pool := secureWorld(t, Config{Upstreams: []string{up}})
	c := w.dialTLS(t, pool)
	slow, fast := ask("www.example.com.", miekg.TypeA), ask("web.a.svc.cluster.local.", miekg.TypeA)
	slow.Id, fast.Id = 1, 2
	for _, m := range []*miekg.Msg{slow, fast} {
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []uint16{2, 1} {
		r, err := c.ReadMsg()
		if err != nil || r.Id != want || len(r.Answer) != 1 {
			t.Fatalf("answer %d: %v, %v; want the one to question %d", i, r, err, want)
		}
		if i == 0 {
			close(release)
		}
	}
}

func TestPadding(t *testing.T) {
	up := upstream(t, good)
	w, pool := secureWorld(t, Config{Upstreams: []string{up}})
	padded := func(name string) *miekg.Msg {
		m := ask(name, miekg.TypeA)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &miekg.EDNS0_COOKIE{Code: miekg.EDNS0COOKIE, Cookie: "0011223344556677"}, &miekg.EDNS0_PADDING{Padding: make([]byte, 40)})
		return m
	}
	c := w.dialTLS(t, pool)
	exchange := func(m *miekg.Msg) *miekg.Msg {
		t.Helper()
		if err := c.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		r, err := c.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	size := func(m *miekg.Msg) int {
		m.Compress = true
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	r := exchange(padded("web.a.svc.cluster.local."))
	if len(r.Answer) != 1 || len(r.IsEdns0().Option) != 1 || size(r) != padBlock {
		t.Errorf("%d bytes: %v", size(r), r)
	}
	plain := ask("web.a.svc.cluster.local.", miekg.TypeA)
	plain.SetEdns0(1232, false)
	if r := exchange(plain); len(r.IsEdns0().Option) != 0 {
		t.Errorf("padded, but nobody asked: %v", r)
	}
	if r, _, err := asker("udp").Exchange(padded("web.a.svc.cluster.local."), w.server.Addrs()[0].String()); err != nil || len(r.IsEdns0().Option) != 0 {
		t.Errorf("padded on UDP: %v %v", r, err)
	}
	// What the functions do with any bytes is the fuzz target's.
	if b := pad([]byte{1, 2, 3}); len(b) != 3 {
		t.Error("padded what is no message")
	}
}

func TestTLSLimits(t *testing.T) {
	w, pool := secureWorld(t, Config{MaxConns: 1})
	first := w.dialTLS(t, pool)
	conn, err := net.Dial("tcp", w.server.TLSAddrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a connection too many: read %d, %v", n, err)
	}
	// The other kinds have limits of their own.
	if _, _, err := asker("tcp").Exchange(ask("cluster.local.", miekg.TypeSOA), w.server.Addrs()[0].String()); err != nil {
		t.Error(err)
	}
	if err := first.WriteMsg(ask("cluster.local.", miekg.TypeSOA)); err != nil {
		t.Error(err)
	}
	if _, err := first.ReadMsg(); err != nil {
		t.Error(err)
	}
}

// httpsClient speaks HTTP/2, or 1.1.
func httpsClient(t *testing.T, pool *x509.CertPool, h2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestHTTPS(t *testing.T) {
	w, pool := secureWorld(t, Config{})
	base := "https://" + w.server.HTTPSAddrs()[0].String()
	pack := func(m *miekg.Msg) []byte {
		m.Id = 0
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	get := func(b []byte) string { return base + httpsPath + "?dns=" + base64.RawURLEncoding.EncodeToString(b) }
	web := pack(ask("web.a.svc.cluster.local.", miekg.TypeA))
	answer := pack(new(miekg.Msg).SetReply(ask("web.a.svc.cluster.local.", miekg.TypeA)))
	for _, c := range []struct {
		name, method, url, kind string
		body                    []byte
		status                  int
		cache, rcode            string
	}{
		{"get", "GET", get(web), "", nil, 200, "max-age=5", "NOERROR"},
		{"get, padded base64", "GET", get(web) + "==", "", nil, 200, "max-age=5", "NOERROR"},
		{"head", "HEAD", get(web), "", nil, 200, "max-age=5", ""},
		{"post", "POST", base + httpsPath, dnsMessage, web, 200, "max-age=5", "NOERROR"},
		{"post, type with parameter", "POST", base + httpsPath, dnsMessage + "; x=y", web, 200, "max-age=5", "NOERROR"},
		{"no such name", "POST", base + httpsPath, dnsMessage, pack(ask("no.a.svc.cluster.local.", miekg.TypeA)), 200, "max-age=5", "NXDOMAIN"},
		{"no such type", "POST", base + httpsPath, dnsMessage, pack(ask("web.a.svc.cluster.local.", miekg.TypeMX)), 200, "max-age=5", "NOERROR"},
		{"refused", "POST", base + httpsPath, dnsMessage, pack(ask("example.com.", miekg.TypeA)), 200, "no-store", "REFUSED"},
		{"malformed", "POST", base + httpsPath, dnsMessage, append(bytes.Clone(web[:12]), 0xC0), 200, "no-store", "FORMERR"},
		{"another path", "GET", base + "/", "", nil, 404, "", ""},
		{"no question", "GET", base + httpsPath, "", nil, 400, "", ""},
		{"two questions", "GET", get(web) + "&dns=AAAA", "", nil, 400, "", ""},
		{"not base64", "GET", base + httpsPath + "?dns=!!!", "", nil, 400, "", ""},
		{"too short", "GET", get([]byte{1, 2}), "", nil, 400, "", ""},
		{"an answer", "GET", get(answer), "", nil, 400, "", ""},
		{"empty body", "POST", base + httpsPath, dnsMessage, nil, 400, "", ""},
		{"another type", "POST", base + httpsPath, "text/plain", web, 415, "", ""},
		{"too long", "POST", base + httpsPath, dnsMessage, make([]byte, tcpMax+1), 413, "", ""},
		{"another method", "PUT", base + httpsPath, dnsMessage, web, 405, "", ""},
	} {
		for _, h2 := range []bool{true, false} {
			req, err := http.NewRequestWithContext(t.Context(), c.method, c.url, bytes.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", c.kind)
			resp, err := httpsClient(t, pool, h2).Do(req)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != c.status || resp.Header.Get("Cache-Control") != c.cache || (resp.ProtoMajor == 2) != h2 {
				t.Errorf("%s: %s %s %q: %s", c.name, resp.Proto, resp.Status, resp.Header.Get("Cache-Control"), b)
			}
			if c.rcode == "" {
				continue
			}
			var m miekg.Msg
			if err := m.Unpack(b); err != nil || miekg.RcodeToString[m.Rcode] != c.rcode || resp.Header.Get("Content-Type") != dnsMessage {
				t.Errorf("%s: %v %v %v", c.name, err, &m, resp.Header)
			}
		}
	}
}

// TestHTTPSForwards: an answer of an upstream is fresh for as long as it says.
func TestHTTPSForwards(t *testing.T) {
	w, pool := secureWorld(t, Config{Upstreams: []string{upstream(t, good)}})
	q, err := ask("www.example.com.", miekg.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := httpsClient(t, pool, true).Post("https://"+w.server.HTTPSAddrs()[0].String()+httpsPath, dnsMessage, bytes.NewReader(q))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	var m miekg.Msg
	if err != nil || m.Unpack(b) != nil || len(m.Answer) != 1 || resp.Header.Get("Cache-Control") != "max-age=60" {
		t.Errorf("%v %v %v", err, &m, resp.Header)
	}
}

func TestHTTPSLimits(t *testing.T) {
	w, pool := secureWorld(t, Config{MaxConns: 1})
	first, err := tls.Dial("tcp", w.server.HTTPSAddrs()[0].String(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", w.server.HTTPSAddrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a connection too many: read %d, %v", n, err)
	}
	_ = first.Close()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); { // until the server has seen that it was closed
		var c *tls.Conn
		if c, err = tls.Dial("tcp", w.server.HTTPSAddrs()[0].String(), &tls.Config{RootCAs: pool}); err == nil {
			_ = c.Close()
			break
		}
	}
	if err != nil {
		t.Errorf("the slot did not come back: %v", err)
	}
}

// TestCertificateIsReplaced: new files serve new connections; half of a pair,
// or nonsense, leaves the old one.
func TestCertificateIsReplaced(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	cert, key, err := SelfSigned(dir, []string{"one.test"}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := SelfSigned(dir, []string{"one.test"}, nil, now); err != nil || again != cert {
		t.Fatal(again, err)
	}
	var log bytes.Buffer
	files, err := NewCertificateFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		c, err := files.Get(nil)
		if err != nil || c.Leaf.VerifyHostname(want) != nil {
			t.Errorf("%v, %v; want one for %s\n%s", c.Leaf.DNSNames, err, want, log.String())
		}
	}
	is("one.test")
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := SelfSigned(dir, []string{"two.test"}, nil, now); err != nil {
		t.Fatal(err)
	}
	is("one.test") // not looked at yet
	fresh, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, append(old, '\n'), 0o600); err != nil { // of another certificate
		t.Fatal(err)
	}
	now = now.Add(certRecheck)
	is("one.test")
	if !strings.Contains(log.String(), "old one goes on serving") {
		t.Error(log.String())
	}
	if err := os.WriteFile(key, fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(certRecheck)
	is("two.test")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	now = now.Add(certRecheck)
	is("two.test")
	if _, err := NewCertificateFiles(cert, key, slog.Default(), nil); err == nil {
		t.Error("a missing file is no error at the start")
	}
	if _, _, err := SelfSigned(dir, []string{"two.test"}, nil, now.Add(300*24*time.Hour)); err != nil {
		t.Error(err)
	}
	now = now.Add(certRecheck)
	is("two.test")
}

func FuzzSecure(f *testing.F) {
	for _, m := range []*miekg.Msg{ask("a.b.", 1), new(miekg.Msg).SetReply(ask("a.b.", 1)), new(miekg.Msg).SetEdns0(1232, true)} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var q query
		if q.parse(b) == parsed && q.edns {
			asksPadding(b, q.end)
		}
		freshFor(b)
		var before, after miekg.Msg
		ok := before.Unpack(b) == nil
		p := pad(bytes.Clone(b))
		if len(p) != len(b) && (len(p)%padBlock != 0 || len(p) > tcpMax) {
			t.Fatalf("%d bytes became %d", len(b), len(p))
		}
		if ok && len(p) != len(b) {
			if err := after.Unpack(p); err != nil {
				t.Fatalf("%v\n%x\n%x", err, b, p)
			}
		}
	})
}
