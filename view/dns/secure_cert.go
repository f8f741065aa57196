package dns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// CertificateFiles is a certificate and its key in PEM files, read again when
// they change.
type CertificateFiles struct {
	cert, key string
	log       *slog.Logger
	now       func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]stamp
	checked time.Time
}

// stamp tells a file that was replaced from the one before.
type stamp struct {
	changed time.Time
	size    int64
}

// NewCertificateFiles reads the files once, so that an error is known early.
// now may be nil.
func NewCertificateFiles(cert, key string, log *slog.Logger, now func() time.Time) (*CertificateFiles, error) {
	if now == nil {
		now = time.Now
	}
	c := &CertificateFiles{cert: cert, key: key, log: log, now: now, checked: now()}
	stamps, err := c.stamps()
	if err == nil {
		err = c.load(stamps)
	}
	if err != nil {
		return nil, fmt.Errorf("view/dns: certificate for DNS over TLS: %w", err)
	}
	return c, nil
}

// Get gives the certificate; it is for Config.Certificate. The files are
// looked at every few seconds; while they make no sense (one of them was
// replaced, the other not yet) the old certificate serves.
func (c *CertificateFiles) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.checked) >= certRecheck {
		c.checked = now
		stamps, err := c.stamps()
		if err == nil && stamps != c.stamp {
			if err = c.load(stamps); err == nil {
				c.log.Info("the certificate of DNS over TLS was replaced", "file", c.cert, "until", c.current.Leaf.NotAfter)
			}
		}
		if err != nil {
			c.log.Warn("the certificate of DNS over TLS cannot be read: the old one goes on serving", "error", err)
		}
	}
	return c.current, nil
}

func (c *CertificateFiles) stamps() (s [2]stamp, err error) {
	for i, f := range []string{c.cert, c.key} {
		info, err := os.Stat(f)
		if err != nil {
			return s, err
		}
		s[i] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (c *CertificateFiles) load(stamps [2]stamp) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("%s and %s: %w", c.cert, c.key, err)
	}
	c.current, c.stamp = &pair, stamps
	return nil
}

const (
	certRecheck = 5 * time.Second

	ownLife   = 365 * 24 * time.Hour
	renewLast = 90 * 24 * time.Hour
)

// SelfSigned gives the files of a certificate that this machine signed itself,
// in a directory: dns-tls.crt and dns-tls.key. They are made if they are not
// there, end within three months, or do not name all the names and addresses.
// Clients cannot check such a certificate unless they are given it.
func SelfSigned(dir string, names []string, addrs []netip.Addr, now time.Time) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, "dns-tls.crt"), filepath.Join(dir, "dns-tls.key")
	if pair, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil && serves(pair.Leaf, names, addrs, now.Add(renewLast)) {
		return certFile, keyFile, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("view/dns: %s: %w; remove both files to have new ones made", certFile, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("view/dns: make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return "", "", fmt.Errorf("view/dns: make a certificate: %w", err)
	}
	want := x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "fingerpost-dns"}, DNSNames: names,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(ownLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, a := range addrs {
		want.IPAddresses = append(want.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, &want, &want, key.Public(), key)
	if err != nil {
		return "", "", fmt.Errorf("view/dns: make a certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("view/dns: make a certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("view/dns: keep the certificate: %w", err)
	}
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{keyFile, "PRIVATE KEY", keyDER}, {certFile, "CERTIFICATE", der}} {
		tmp := f.name + ".new"
		if err := os.WriteFile(tmp, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return "", "", fmt.Errorf("view/dns: keep the certificate: %w", err)
		}
		if err := os.Rename(tmp, f.name); err != nil {
			return "", "", fmt.Errorf("view/dns: keep the certificate: %w", err)
		}
	}
	return certFile, keyFile, nil
}

// serves says whether a certificate is for all names and addresses and lasts.
func serves(c *x509.Certificate, names []string, addrs []netip.Addr, until time.Time) bool {
	if until.After(c.NotAfter) {
		return false
	}
	for _, n := range names {
		if c.VerifyHostname(n) != nil {
			return false
		}
	}
	for _, a := range addrs {
		if c.VerifyHostname(a.String()) != nil {
			return false
		}
	}
	return true
}
