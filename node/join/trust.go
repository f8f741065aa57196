package join

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

const dialTimeout = 10 * time.Second

// trust gives the CA, PEM, after the server has shown that it belongs to it.
func (i *Identity) trust(ctx context.Context) ([]byte, error) {
	u, err := url.Parse(i.c.Server)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	var given []byte
	if i.c.CAFile != "" {
		if given, err = os.ReadFile(i.c.CAFile); err != nil {
			return nil, fmt.Errorf("join: read the CA: %w", err)
		}
	} else if i.c.CAHash == "" {
		return nil, errors.New("join: who the server is must be known: give --ca-hash as 'fingerpost token create' prints it, or --ca-file")
	}
	chain, err := shown(ctx, u)
	if err != nil {
		return nil, err
	}
	if given == nil {
		if given = find(chain, i.c.CAHash); given == nil {
			return nil, fmt.Errorf("join: the CA of %s is %s, and --ca-hash says %s: it is another server, or somebody is in between; get a new line from 'fingerpost token create'",
				i.c.Server, describe(chain), i.c.CAHash)
		}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(given) {
		return nil, fmt.Errorf("join: %s holds no PEM certificate", i.c.CAFile)
	}
	now := i.c.Now()
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: u.Hostname(), CurrentTime: now})
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case err == nil:
		return given, nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return nil, fmt.Errorf("join: this machine's clock says %s, and the server's certificate is good from %s to %s; set the clock right",
			now.UTC().Format(time.DateTime), chain[0].NotBefore.UTC().Format(time.DateTime), chain[0].NotAfter.UTC().Format(time.DateTime))
	case errors.As(err, &host):
		return nil, fmt.Errorf("join: the server's certificate is not for %q: %w; start the server with --cert-name %s", u.Hostname(), err, u.Hostname())
	}
	return nil, fmt.Errorf("join: the server's certificate does not belong to the CA: %w", err)
}

// shown gives the certificates that the server shows, unverified.
func shown(ctx context.Context, u *url.URL) ([]*x509.Certificate, error) {
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "443")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// Nothing is sent on this connection; what it shows is verified by hash.
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname()}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("join: the server %s does not answer: %w; does it run, and listen on that address (--listen)?", u.Host, err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return nil, fmt.Errorf("join: the server %s shows no certificate", u.Host)
	}
	return chain, nil
}

// find gives the CA of the hash, PEM.
func find(chain []*x509.Certificate, hash string) []byte {
	for _, c := range chain {
		if c.IsCA && strings.EqualFold(hashOf(c), hash) {
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
	}
	return nil
}

func describe(chain []*x509.Certificate) string {
	for _, c := range chain {
		if c.IsCA {
			return hashOf(c)
		}
	}
	return "not shown"
}

func hashOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func hashMatches(caPEM []byte, hash string) bool {
	h, err := HashOf(caPEM)
	return err == nil && strings.EqualFold(h, hash)
}

// HashOf gives the hash of a CA, PEM, as --ca-hash wants it.
func HashOf(caPEM []byte) (string, error) {
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return "", errors.New("join: the CA holds no PEM certificate")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("join: the CA: %w", err)
	}
	return hashOf(c), nil
}
