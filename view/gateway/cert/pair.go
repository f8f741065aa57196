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
