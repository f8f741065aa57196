package apiserver

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
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
// servers on one etcd share ca.crt, ca.key, node-ca.crt, node-ca.key and sa.key.
//
// What the nodes' own ports show is signed by a second CA, which the API server
// alone trusts: with a certificate for its address, a node could otherwise
// stand in for an API server at that address.
type PKI struct {
	CACert     []byte // PEM
	NodeCACert []byte // PEM; it signs the serving certificates of nodes
	Serving    KeyPair
	Admin      KeyPair
	// KubeletClient is what the API server shows to the ports of nodes.
	KubeletClient KeyPair
	SAKey         *ecdsa.PrivateKey

	dir    string
	ca     authority
	nodeCA authority
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
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
	p := &PKI{dir: dir}
	var err error
	if p.ca, p.CACert, err = loadCA(dir, "ca", "fingerpost-ca", now); err != nil {
		return nil, err
	}
	if p.nodeCA, p.NodeCACert, err = loadCA(dir, "node-ca", "fingerpost-node-ca", now); err != nil {
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
	if err != nil {
		return nil, err
	}
	p.KubeletClient, err = p.loadPair(dir, kubeletClientFile, x509.Certificate{
		Subject:     pkix.Name{CommonName: UserKubeletClient},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
	return p, err
}

func loadCA(dir, name, subject string, now time.Time) (authority, []byte, error) {
	certFile := filepath.Join(dir, name+".crt")
	fail := func(err error) (authority, []byte, error) { return authority{}, nil, err }
	_, err := os.Stat(certFile)
	fresh := errors.Is(err, fs.ErrNotExist)
	key, err := loadKey(filepath.Join(dir, name+".key"))
	if err != nil {
		return fail(err)
	}
	if fresh {
		tmpl := x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: subject},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(caLife),
			IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		der, err := x509.CreateCertificate(rand.Reader, &tmpl, &tmpl, key.Public(), key)
		if err != nil {
			return fail(fmt.Errorf("apiserver: make the CA: %w", err))
		}
		if err := writeFile(certFile, pemBlock("CERTIFICATE", der), 0o644); err != nil {
			return fail(err)
		}
	}
	data, err := os.ReadFile(certFile)
	if err != nil {
		return fail(fmt.Errorf("apiserver: read the CA: %w", err))
	}
	ca, err := parseCert(data)
	if err != nil {
		return fail(fmt.Errorf("apiserver: %s: %w; restore it from a backup, or remove the directory to start with a new CA", certFile, err))
	}
	if !key.PublicKey.Equal(ca.PublicKey) {
		return fail(fmt.Errorf("apiserver: %s.key does not belong to %s; both must come from the same server", name, certFile))
	}
	if now.After(ca.NotAfter) {
		return fail(fmt.Errorf("apiserver: the CA %s ended on %s; remove the directory to start with a new CA", certFile, ca.NotAfter.Format(time.DateOnly)))
	}
	return authority{ca, key}, data, nil
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
	if err != nil || now.Add(renewBefore).After(c.NotAfter) || c.CheckSignatureFrom(p.ca.cert) != nil {
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
	cert, err := p.ca.sign(want, key.Public(), life, now)
	if err != nil {
		return KeyPair{}, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: write a key: %w", err)
	}
	return KeyPair{cert, pemBlock("EC PRIVATE KEY", keyDER)}, nil
}

// SignNodeClient signs a node's client certificate, PEM. Whether the node may
// have it is for the caller to know.
func (p *PKI) SignNodeClient(want x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) ([]byte, error) {
	want.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return p.ca.sign(want, key, life, now)
}

// SignNodeServing signs what a node's own port shows, PEM.
func (p *PKI) SignNodeServing(want x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) ([]byte, error) {
	want.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return p.nodeCA.sign(want, key, life, now)
}

// NodeServing makes what the port of a node in this process shows.
func (p *PKI) NodeServing(name string, addrs []netip.Addr, now time.Time) (KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: make a key: %w", err)
	}
	want := x509.Certificate{Subject: pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}, DNSNames: []string{name}}
	for _, a := range addrs {
		want.IPAddresses = append(want.IPAddresses, net.IP(a.Unmap().AsSlice()))
	}
	cert, err := p.SignNodeServing(want, key.Public(), certLife, now)
	if err != nil {
		return KeyPair{}, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return KeyPair{}, fmt.Errorf("apiserver: write a key: %w", err)
	}
	return KeyPair{cert, pemBlock("EC PRIVATE KEY", der)}, nil
}

// CAHash is what a node checks the server against when it joins: the SHA-256 of
// the CA's public key, as kubeadm writes it.
func (p *PKI) CAHash() string {
	sum := sha256.Sum256(p.ca.cert.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (a authority) sign(want x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) ([]byte, error) {
	want.SerialNumber = serial()
	// The hour forgives clocks that are behind.
	want.NotBefore, want.NotAfter = now.Add(-time.Hour), now.Add(life)
	if want.NotAfter.After(a.cert.NotAfter) {
		want.NotAfter = a.cert.NotAfter
	}
	want.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, &want, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("apiserver: sign a certificate for %s: %w", want.Subject.CommonName, err)
	}
	return pemBlock("CERTIFICATE", der), nil
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
