package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"
)

// soon is how long before the end of a certificate Check begins to warn.
const soon = 7 * 24 * time.Hour

// Pair reads a certificate and its key from PEM. The errors are for people who
// look at a Secret.
func Pair(certPEM, keyPEM []byte) (*tls.Certificate, error) {
	switch {
	case len(certPEM) == 0:
		return nil, fmt.Errorf("cert: tls.crt is missing or empty")
	case len(keyPEM) == 0:
		return nil, fmt.Errorf("cert: tls.key is missing or empty")
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err == nil {
		return &c, nil
	}
	text := strings.TrimPrefix(err.Error(), "tls: ")
	switch {
	case strings.Contains(text, "private key does not match"), strings.Contains(text, "private key type does not match"):
		return nil, fmt.Errorf("cert: the private key does not match the certificate")
	case strings.Contains(text, "certificate input"):
		return nil, fmt.Errorf("cert: tls.crt has no PEM certificate (%s)", text)
	case strings.Contains(text, "key input"):
		return nil, fmt.Errorf("cert: tls.key has no PEM private key (%s)", text)
	}
	return nil, fmt.Errorf("cert: %s", text)
}

// Problem is what is wrong with a certificate.
type Problem struct {
	Text string
	// Broken: clients refuse it now. Else it is a warning.
	Broken bool
}

// Check says what clients will not like about a certificate for these hosts.
func Check(c *tls.Certificate, hosts []string, now time.Time) []Problem {
	if c == nil || len(c.Certificate) == 0 {
		return []Problem{{"there is no certificate", true}}
	}
	leaf := c.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return []Problem{{"cannot be read: " + err.Error(), true}}
		}
	}
	var out []Problem
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		out = append(out, Problem{"expired at " + stamp(leaf.NotAfter), true})
	case left < soon:
		out = append(out, Problem{"expires in " + span(left), false})
	}
	if now.Before(leaf.NotBefore) {
		out = append(out, Problem{"is not valid before " + stamp(leaf.NotBefore), true})
	}
	for _, h := range hosts {
		if !Covers(leaf, h) {
			out = append(out, Problem{"does not cover host " + h, true})
		}
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func span(d time.Duration) string {
	n, unit := int(d/(24*time.Hour)), "day"
	if n == 0 {
		n, unit = int(d/time.Hour), "hour"
	}
	if n == 0 {
		return "less than an hour"
	}
	if n > 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// Covers says that clients accept the certificate for a host; for a wildcard
// host, that they do so for every name under it.
func Covers(leaf *x509.Certificate, host string) bool {
	if h, ok := strings.CutPrefix(host, "*."); ok {
		for _, n := range leaf.DNSNames {
			if w, ok := strings.CutPrefix(n, "*."); ok && strings.EqualFold(w, h) {
				return true
			}
		}
		return false
	}
	if host == "" {
		return true
	}
	return leaf.VerifyHostname(host) == nil
}

// selfSigned makes the certificate for when there is no other one.
func selfSigned(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Fingerpost Gateway Default Certificate", Organization: []string{"Fingerpost"}},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"gateway.invalid"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
