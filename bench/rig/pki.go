package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// writePKI makes what kube-apiserver wants to be given: ca.crt, serving.crt and
// .key, admin.crt and .key, sa.key. Keys are of the kind that Fingerpost makes,
// so that TLS costs both the same.
func writePKI(dir string) error {
	caKey, err := newKey(dir, "ca")
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench-ca"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if err := writeCert(dir, "ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	for i, c := range []*x509.Certificate{
		{
			Subject: pkix.Name{CommonName: "serving"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		},
		{
			Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		},
	} {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(int64(i+2)), ca.NotBefore, ca.NotAfter
		c.KeyUsage = x509.KeyUsageDigitalSignature
		key, err := newKey(dir, c.Subject.CommonName)
		if err != nil {
			return err
		}
		if err := writeCert(dir, c.Subject.CommonName, c, ca, key, caKey); err != nil {
			return err
		}
	}
	_, err = newKey(dir, "sa")
	return err
}

func newKey(dir, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("rig: make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("rig: encode a key: %w", err)
	}
	return key, writePEM(dir, name+".key", "EC PRIVATE KEY", der)
}

func writeCert(dir, name string, c, parent *x509.Certificate, key, by *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		return fmt.Errorf("rig: make the certificate %s: %w", name, err)
	}
	return writePEM(dir, name+".crt", "CERTIFICATE", der)
}

func writePEM(dir, name, kind string, der []byte) error {
	if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("rig: write a certificate: %w", err)
	}
	return nil
}
