package cert

import (
	"crypto/tls"
	"fmt"
	"hash/maphash"
	"net"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Both sides of a handshake over a pipe. "plain" is a tls.Config with one
// certificate, "store" ours with 10,000 names, "clone" what it costs to
// make a configuration for each handshake.
func BenchmarkHandshake(b *testing.B) {
	a := newAuthority(b, "ca")
	for _, withRSA := range []bool{false, true} {
		crt := a.issue(b, "x", leaf{rsa: withRSA, names: []string{"h1.example.com"}})
		s := newStore(b, Config{})
		s.Update(certs(many(crt, 10000)))
		plain := &tls.Config{Certificates: []tls.Certificate{*crt}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
		clone := plain.Clone()
		clone.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return plain.Clone(), nil }
		for _, c := range []struct {
			name string
			conf *tls.Config
		}{{"plain", plain}, {"store", s.Config()}, {"clone", clone}} {
			for _, resume := range []bool{false, true} {
				for _, classic := range []bool{false, true} {
					b.Run(fmt.Sprintf("%s/rsa=%v/resume=%v/x25519only=%v", c.name, withRSA, resume, classic), func(b *testing.B) {
						client := &tls.Config{ServerName: "h1.example.com", InsecureSkipVerify: true}
						if resume {
							client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
						}
						if classic {
							client.CurvePreferences = []tls.CurveID{tls.X25519}
						}
						b.ReportAllocs()
						for b.Loop() {
							handshake(b, client, c.conf)
						}
					})
				}
			}
		}
	}
}

func handshake(b *testing.B, client, server *tls.Config) {
	x, y := net.Pipe()
	done := make(chan error, 1)
	go func() {
		tc := tls.Server(y, server)
		err := tc.Handshake()
		if err == nil {
			_, err = tc.Write([]byte("x"))
		}
		done <- err
	}()
	tc := tls.Client(x, client)
	if _, err := tc.Read(make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	x.Close()
	y.Close()
}

func many(crt *tls.Certificate, n int) map[string]*route.Certificate {
	m := make(map[string]*route.Certificate, n)
	for i := range n {
		m[fmt.Sprint("default/tls-", i)] = &route.Certificate{Hosts: []string{fmt.Sprintf("h%d.example.com", i)}, Chain: crt}
	}
	return m
}

func BenchmarkUpdate(b *testing.B) {
	crt := newAuthority(b, "ca").issue(b, "x", leaf{})
	all := many(crt, 10000)
	b.Run("10000", func(b *testing.B) {
		for b.Loop() {
			s := &Store{seed: maphash.MakeSeed(), origins: map[string]*held{}, hosts: map[string]*class{}}
			s.current.Store(&state{})
			s.Update(certs(all))
		}
	})
	b.Run("1of10000", func(b *testing.B) {
		s := newStore(b, Config{})
		s.Update(certs(all))
		for b.Loop() {
			s.Update(certs(map[string]*route.Certificate{"default/tls-7": {Hosts: []string{"h7.example.com"}, Chain: crt}}))
		}
	})
}

func BenchmarkCertificate(b *testing.B) {
	crt := newAuthority(b, "ca").issue(b, "x", leaf{})
	s := newStore(b, Config{})
	s.Update(certs(many(crt, 10000)))
	hello := &tls.ClientHelloInfo{ServerName: "h77.example.com"}
	b.ReportAllocs()
	for b.Loop() {
		s.Certificate(hello)
	}
}

func BenchmarkSniff(b *testing.B) {
	p := hello(b, &tls.Config{ServerName: "shop.example.com", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		Sniff(p)
	}
}
