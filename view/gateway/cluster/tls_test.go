package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
)

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestLookingAtTLS: tickets that wait to be read do not make a connection look
// dead, and an alert does, although the close behind it cannot be seen.
func TestLookingAtTLS(t *testing.T) {
	cert := selfSigned(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			step := make(chan struct{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				defer s.Close()
				if err := s.Handshake(); err != nil {
					t.Error(err)
				}
				<-step
			}()
			raw, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(socket.New(raw), &tls.Config{InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
			defer c.Close()
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			p := newProbe(c)
			rc, err := raw.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if version == tls.VersionTLS13 {
				// Until the tickets are there.
				plain := newProbe(raw)
				if err := rc.Read(func(uintptr) bool { return !plain.alive() }); err != nil {
					t.Fatal(err)
				}
			}
			if !p.alive() {
				t.Error("a new connection looks dead")
			}
			close(step)
			<-done
			if version == tls.VersionTLS13 {
				// What came before the alert is read with the next response.
				c.SetReadDeadline(time.Now().Add(2 * time.Minute))
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Fatal("read something")
				}
			} else if err := rc.Read(func(uintptr) bool { return !p.alive() }); err != nil {
				t.Fatal(err)
			}
			if p.alive() {
				t.Error("a connection that was closed looks alive")
			}
		})
	}
}
