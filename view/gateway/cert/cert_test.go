package cert

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

func key(t testing.TB, withRSA bool) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	if withRSA {
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB, cn string) *authority {
	t.Helper()
	k := key(t, false)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: k, pool: x509.NewCertPool()}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	return a
}

type leaf struct {
	rsa      bool
	from, to time.Time
	client   bool
	names    []string
}

func (a *authority) issue(t testing.TB, cn string, l leaf) *tls.Certificate {
	t.Helper()
	k := key(t, l.rsa)
	if l.from.IsZero() {
		l.from = time.Now().Add(-time.Hour)
	}
	if l.to.IsZero() {
		l.to = time.Now().Add(90 * 24 * time.Hour)
	}
	use := x509.ExtKeyUsageServerAuth
	if l.client {
		use = x509.ExtKeyUsageClientAuth
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(0xABC), Subject: pkix.Name{CommonName: cn}, NotBefore: l.from, NotAfter: l.to,
		DNSNames: l.names, ExtKeyUsage: []x509.ExtKeyUsage{use}, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	c.Leaf, _ = x509.ParseCertificate(der)
	return c
}

func newStore(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial does a handshake and one byte to and fro, and gives what both saw.
func dial(t testing.TB, s *Store, c *tls.Config) (client, server tls.ConnectionState, err error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			close(done)
			return
		}
		defer conn.Close()
		tc := tls.Server(conn, s.Config())
		b := make([]byte, 1)
		if _, err := io.ReadFull(tc, b); err == nil {
			done <- tc.ConnectionState()
			tc.Write(b)
		}
		close(done)
	}()
	conn, err := tls.Dial("tcp", ln.Addr().String(), c)
	if err != nil {
		<-done
		return client, server, err
	}
	defer conn.Close()
	conn.Write([]byte("x"))
	_, err = io.ReadFull(conn, make([]byte, 1))
	return conn.ConnectionState(), <-done, err
}

func certs(m map[string]*route.Certificate) *route.Update { return &route.Update{Certificates: m} }

func insecure(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
}

func TestSNI(t *testing.T) {
	a := newAuthority(t, "ca")
	s := newStore(t, Config{})
	put := func(cn string, l leaf) *route.Certificate {
		return &route.Certificate{Hosts: l.names, Chain: a.issue(t, cn, l)}
	}
	s.Update(certs(map[string]*route.Certificate{
		"exact":    put("exact", leaf{names: []string{"shop.example.com"}}),
		"wildcard": put("wildcard", leaf{names: []string{"*.example.com"}}),
		"empty":    {Hosts: []string{"broken.example.com"}},
	}))
	shown := func(name string) string {
		t.Helper()
		c, _, err := dial(t, s, insecure(name))
		if err != nil {
			t.Fatal(err)
		}
		if c.NegotiatedProtocol != "h2" || c.Version != tls.VersionTLS13 {
			t.Errorf("%s: %q, version %x", name, c.NegotiatedProtocol, c.Version)
		}
		return c.PeerCertificates[0].Subject.CommonName
	}
	const own = "Fingerpost Gateway Default Certificate"
	for name, want := range map[string]string{
		"shop.example.com": "exact", "SHOP.example.com": "exact", "a.example.com": "wildcard", "broken.example.com": "wildcard",
		"a.b.example.com": own, "example.com": own, "": own,
	} {
		if g := shown(name); g != want {
			t.Errorf("%q: %s, want %s", name, g, want)
		}
	}
	s.Update(&route.Update{Global: &route.Global{Certificate: a.issue(t, "global", leaf{})}, Certificates: map[string]*route.Certificate{"exact": nil}})
	if g := shown("shop.example.com"); g != "wildcard" {
		t.Errorf("after removal: %s", g)
	}
	if g := shown("x.y"); g != "global" {
		t.Errorf("default: %s", g)
	}
	s.Update(&route.Update{Replace: true})
	if g := shown("shop.example.com"); g != own {
		t.Errorf("after replacing all: %s", g)
	}
}

func TestSeveralOfOneName(t *testing.T) {
	a := newAuthority(t, "ca")
	s := newStore(t, Config{})
	now := time.Now()
	put := func(cn string, l leaf) *route.Certificate {
		return &route.Certificate{Hosts: []string{"h.example.com"}, Chain: a.issue(t, cn, l)}
	}
	s.Update(certs(map[string]*route.Certificate{
		"rsa":     put("rsa", leaf{rsa: true, to: now.Add(time.Hour)}),
		"rsalong": put("rsa long", leaf{rsa: true, to: now.Add(3 * time.Hour)}),
		"ec":      put("ec", leaf{to: now.Add(time.Hour)}),
		"eclong":  put("ec long", leaf{to: now.Add(2 * time.Hour)}),
		"future":  put("future", leaf{from: now.Add(time.Hour), to: now.Add(9 * time.Hour)}),
	}))
	shown := func(c *tls.Config) string {
		t.Helper()
		st, _, err := dial(t, s, c)
		if err != nil {
			t.Fatal(err)
		}
		return st.PeerCertificates[0].Subject.CommonName
	}
	if g := shown(insecure("h.example.com")); g != "ec long" {
		t.Error(g)
	}
	old := insecure("h.example.com")
	old.MaxVersion = tls.VersionTLS12
	old.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	if g := shown(old); g != "rsa long" {
		t.Error(g)
	}
	s.Update(certs(map[string]*route.Certificate{"ec": nil, "eclong": nil, "rsa": nil, "rsalong": nil}))
	if g := shown(insecure("h.example.com")); g != "future" {
		t.Error(g)
	}
	old.MaxVersion, old.MinVersion = tls.VersionTLS11, tls.VersionTLS10
	if _, _, err := dial(t, s, old); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

// A certificate is replaced while a connection lives and a session is kept.
func TestRotation(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a := newAuthority(t, "ca")
		s := newStore(t, Config{MaxVersion: version})
		put := func(cn string) {
			s.Update(certs(map[string]*route.Certificate{"s": {Hosts: []string{"h.example.com"}, Chain: a.issue(t, cn, leaf{names: []string{"h.example.com"}})}}))
		}
		put("one")
		live, server := net.Pipe()
		go func() {
			tc := tls.Server(server, s.Config())
			io.Copy(tc, tc)
			server.Close()
		}()
		conn := tls.Client(live, &tls.Config{ServerName: "h.example.com", RootCAs: a.pool})
		echo := func() {
			t.Helper()
			b := []byte("ping")
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatal(err)
			}
		}
		echo()
		c := &tls.Config{ServerName: "h.example.com", RootCAs: a.pool, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		if st, _, err := dial(t, s, c); err != nil || st.DidResume {
			t.Fatal(err, st.DidResume)
		}
		put("two")
		echo()
		for range accepted - 1 {
			s.rotate()
		}
		if st, _, err := dial(t, s, c); err != nil || !st.DidResume {
			t.Fatalf("version %x: not resumed: %v", version, err)
		}
		for range accepted {
			s.rotate()
		}
		if st, _, err := dial(t, s, c); err != nil || st.DidResume || st.PeerCertificates[0].Subject.CommonName != "two" {
			t.Fatalf("version %x: an old key still opens tickets: %v", version, err)
		}
		echo()
		live.Close()
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, Config{TicketPeriod: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		first := s.tickets.secrets[0]
		time.Sleep(2*time.Hour + time.Minute)
		synctest.Wait()
		s.mu.Lock()
		if n := len(s.tickets.secrets); n != 3 || s.tickets.secrets[2] != first {
			t.Errorf("%d secrets", n)
		}
		s.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestClientCertificates(t *testing.T) {
	a, other := newAuthority(t, "ca"), newAuthority(t, "other")
	s := newStore(t, Config{})
	required := &route.ClientCert{Roots: a.pool, Required: true, Pass: true}
	otherRule := &route.ClientCert{Roots: other.pool, Required: true}
	s.Update(&route.Update{Hosts: map[string]*route.Host{
		"m.example.com": {Name: "m.example.com", ClientCert: required},
		"o.example.com": {Name: "o.example.com", ClientCert: otherRule},
		"*.w.com":       {Name: "*.w.com", ClientCert: required},
		"free.w.com":    {Name: "free.w.com"},
	}})
	good, bad := a.issue(t, "alice", leaf{client: true}), other.issue(t, "mallory", leaf{client: true})
	expired := a.issue(t, "old", leaf{client: true, to: time.Now().Add(-time.Minute)})
	for _, c := range []struct {
		host string
		cert *tls.Certificate
		rule *route.ClientCert
		want string // problem
	}{
		{"m.example.com", good, required, ""},
		{"x.w.com", good, required, ""},
		{"m.example.com", bad, required, "unknown authority"},
		{"m.example.com", expired, required, "expired"},
		{"m.example.com", nil, required, "none"},
		{"free.w.com", good, nil, "none"},
		{"y.example.com", good, nil, "none"},
	} {
		conf := insecure(c.host)
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c.cert == nil {
				return &tls.Certificate{}, nil
			}
			return c.cert, nil
		}
		_, server, err := dial(t, s, conf)
		if err != nil {
			t.Fatalf("%s: the handshake failed: %v", c.host, err)
		}
		id := Identify(&server, c.rule, time.Now())
		switch {
		case c.want == "none":
			if id != nil {
				t.Errorf("%s: %+v", c.host, id)
			}
		case id == nil || id.Verified != (c.want == "") || !strings.Contains(id.Problem, c.want):
			t.Errorf("%s: %+v, want problem %q", c.host, id, c.want)
		case id.Serial != "ABC" || !strings.HasPrefix(id.PEM, "-----BEGIN%20CERTIFICATE") || len(id.Digest) != 40:
			t.Errorf("%+v", id)
		}
	}
	// A session of one class is not taken up in another.
	conf := insecure("m.example.com")
	conf.Certificates = []tls.Certificate{*good}
	cache := tls.NewLRUClientSessionCache(1)
	conf.ClientSessionCache = oneKey{cache}
	for i, host := range []string{"m.example.com", "m.example.com", "o.example.com", "y.example.com"} {
		conf.ServerName = host
		st, server, err := dial(t, s, conf)
		if err != nil || st.DidResume != (i == 1) {
			t.Errorf("%s: resumed %v, %v", host, st.DidResume, err)
		}
		if i == 1 && !Identify(&server, required, time.Now()).Verified {
			t.Error("the client is not known any more after resuming")
		}
	}
	m, o, free := &route.Host{ClientCert: required}, &route.Host{ClientCert: otherRule}, &route.Host{}
	for i, c := range []struct {
		asked, matched *route.Host
		want           bool
	}{{m, m, false}, {free, m, true}, {nil, m, true}, {o, m, true}, {m, free, false}, {nil, nil, false}, {&route.Host{ClientCert: required}, m, false}} {
		if Misdirected(c.asked, c.matched) != c.want {
			t.Errorf("Misdirected %d: %v", i, !c.want)
		}
	}
}

// oneKey makes a client offer its session to every name.
type oneKey struct{ tls.ClientSessionCache }

func (o oneKey) Get(string) (*tls.ClientSessionState, bool) { return o.ClientSessionCache.Get("k") }
func (o oneKey) Put(_ string, s *tls.ClientSessionState)    { o.ClientSessionCache.Put("k", s) }

func TestPair(t *testing.T) {
	a := newAuthority(t, "ca")
	pemOf := func(c *tls.Certificate) (cert, k []byte) {
		der, _ := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	c1, k1 := pemOf(a.issue(t, "1", leaf{}))
	_, k2 := pemOf(a.issue(t, "2", leaf{}))
	_, k3 := pemOf(a.issue(t, "3", leaf{rsa: true}))
	if _, err := Pair(c1, k1); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		c, k []byte
		want string
	}{
		{c1, k2, "the private key does not match"}, {c1, k3, "the private key does not match"}, {nil, k1, "tls.crt is missing"}, {c1, nil, "tls.key is missing"},
		{[]byte("x"), k1, "tls.crt has no PEM certificate"}, {c1, []byte("x"), "tls.key has no PEM private key"},
	} {
		if _, err := Pair(c.c, c.k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
