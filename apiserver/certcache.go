package apiserver

import (
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
)

// certCache remembers which client certificates were verified, so that a
// signature is not checked on every request of a connection. The CA does not
// change while the server runs; a certificate that ends is noticed certTTL
// late at most.
type certCache struct {
	inner authenticator.Request
	now   func() time.Time

	mu   sync.RWMutex
	seen map[string]certVerdict // by the certificate's DER
}

type certVerdict struct {
	resp  *authenticator.Response
	until time.Time
}

const (
	certTTL  = 10 * time.Second
	maxCerts = 10_000
)

func newCertCache(inner authenticator.Request) *certCache {
	return &certCache{inner: inner, now: time.Now, seen: map[string]certVerdict{}}
}

// AuthenticateRequest answers from memory for a certificate that was accepted
// lately.
func (c *certCache) AuthenticateRequest(req *http.Request) (*authenticator.Response, bool, error) {
	cert := leaf(req)
	if cert == nil {
		return c.inner.AuthenticateRequest(req)
	}
	now := c.now()
	c.mu.RLock()
	v, ok := c.seen[string(cert.Raw)]
	c.mu.RUnlock()
	if ok && now.Before(v.until) {
		return v.resp, true, nil
	}
	resp, ok, err := c.inner.AuthenticateRequest(req)
	if err != nil || !ok {
		return resp, ok, err
	}
	until := now.Add(certTTL)
	if cert.NotAfter.Before(until) {
		until = cert.NotAfter
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) >= maxCerts {
		clear(c.seen)
	}
	c.seen[string(cert.Raw)] = certVerdict{resp, until}
	return resp, true, nil
}

// leaf is the client's certificate when it alone decides: with intermediate
// ones sent along, the whole chain would have to be the key.
func leaf(req *http.Request) *x509.Certificate {
	if req.TLS == nil || len(req.TLS.PeerCertificates) != 1 {
		return nil
	}
	return req.TLS.PeerCertificates[0]
}
