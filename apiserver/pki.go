package apiserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// PKI is the server's identity: a CA of its own, the serving certificate, the
// administrator's client certificate and the key that signs service account
// tokens. It lives in a directory (0700) and is made on the first start. Two
// servers on one etcd share ca.crt, ca.key and sa.key.
type PKI struct {
	CACert  []byte // PEM
	Serving KeyPair
	Admin   KeyPair
	SAKey   *ecdsa.PrivateKey

	ca    *x509.Certificate
	caKey crypto.Signer
}

// KeyPair is a certificate (with its chain) and its key, PEM.
type KeyPair struct{ Cert, Key []byte }

const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 365 * 24 * time.Hour
	// renewBefore: a certificate is made anew at start when it ends sooner.
	renewBefore = 90 * 24 * time.Hour
)

// LoadPKI reads the directory, and makes what is missing, ends soon, or does
// not cover the given names and addresses.
func LoadPKI(dir string, names []string, addrs []netip.Addr, now time.Time) (*PKI, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("apiserver: make the directory for certificates: %w", err)
	}
	p := &PKI{}
	if err := p.loadCA(dir, now); err != nil {
		return nil, err
	}
	key, err := loadKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return nil, err
	}
	p.SAKey = key
	serving := x509.Certificate{
		Subject:     pkix.Name{CommonName: "fingerpost"},
		DNSNames:    names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, a := range addrs {
		serving.IPAddresses = append(serving.IPAddresses, net.IP(a.AsSlice()))
	}
	if p.Serving, err = p.loadPair(dir, "serving", serving, now); err != nil {
		return nil, err
	}
	p.Admin, err = p.loadPair(dir, "admin", x509.Certificate{
		Subject:     pkix.Name{CommonName: "fingerpost-admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
	return p, err
}

func (p *PKI) loadCA(dir string, now time.Time) error {
	certFile := filepath.Join(dir, "ca.crt")
	_, err := os.Stat(certFile)
	fresh := errors.Is(err, fs.ErrNotExist)
	key, err := loadKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return err
	}
	if fresh {
		tmpl := x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: "fingerpost-ca"},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife),
			IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, key.Public(), key)
		if err != nil {
			return fmt.Errorf("apiserver: make the CA: %w", err)
		}
		if err := writeFile(certFile, pemBlock("CERTIFICATE", der), 0o644); err != nil {
			return err
		}
	}
	if p.CACert, err = os.ReadFile(certFile); err != nil {
		return fmt.Errorf("apiserver: read the CA: %w", err)
	}
	if p.ca, err = parseCert(p.CACert); err != nil {
		return fmt.Errorf("apiserver: %s: %w; restore it from a backup, or remove the directory to start with a new CA", certFile, err)
	}
	if !key.PublicKey.Equal(p.ca.PublicKey) {
		return fmt.Errorf("apiserver: ca.key does not belong to %s; both must come from the same server", certFile)
	}
	if now.After(p.ca.NotAfter) {
		return fmt.Errorf("apiserver: the CA %s ended on %s; remove the directory to start with a new CA", certFile, p.ca.NotAfter.Format(time.DateOnly))
	}
	p.caKey = key
	return nil
}

// loadPair reads a certificate, or makes it when it does not serve any more.
func (p *PKI) loadPair(dir, name string, want x509.Certificate, now time.Time) (KeyPair, error) {
	certFile, keyFile := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if _, err := os.Stat(keyFile); err == nil {
		cert, cerr := os.ReadFile(certFile)
		key, kerr := os.ReadFile(keyFile)
		if cerr == nil && kerr == nil && p.stillGood(cert, want, now) {
			return KeyPair{cert, key}, nil
		}
	}
	pair, err := p.Issue(want, certLife, now)
	if err != nil {
		return KeyPair{}, err
	}
	if err := writeFile(keyFile, pair.Key, 0o600); err != nil {
		return KeyPair{}, err
	}
	return pair, writeFile(certFile, pair.Cert, 0o644)
}

func (p *PKI) stillGood(certPEM []byte, want x509.Certificate, now time.Time) bool {
	c, err := parseCert(certPEM)
	if err != nil || now.Add(renewBefore).After(c.NotAfter) || c.CheckSignatureFrom(p.ca) != nil {
		return false
	}
	for _, n := range want.DNSNames {
		if !slices.Contains(c.DNSNames, n) {
			return false
		}
	}
	for _, ip := range want.IPAddresses {
		if !slices.ContainsFunc(c.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

// Issue signs a certificate with the CA, for a new key.
func (p *PKI) Issue(want x509.Certificate, life time.Duration, now time.Time) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: make a key: %w", err)
	}
	want.SerialNumber = serial()
	want.NotBefore, want.NotAfter = now.Add(-time.Hour), now.Add(life)
	want.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, &want, p.ca, key.Public(), p.caKey)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: sign a certificate for %s: %w", want.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: write a key: %w", err)
	}
	return KeyPair{pemBlock("CERTIFICATE", der), pemBlock("EC PRIVATE KEY", keyDER)}, nil
}

func loadKey(file string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("apiserver: make a key: %w", err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("apiserver: write a key: %w", err)
		}
		return key, writeFile(file, pemBlock("EC PRIVATE KEY", der), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("apiserver: read a key: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("apiserver: %s holds no PEM key; restore it from a backup", file)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("apiserver: %s: %w; restore it from a backup", file, err)
	}
	return key, nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("holds no PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail on the systems Go supports
	}
	return n.Add(n, big.NewInt(1))
}

// writeFile replaces a file in one step, so that a crash leaves the old one
// or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return fmt.Errorf("apiserver: write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("apiserver: write %s: %w", path, err)
	}
	return nil
}
