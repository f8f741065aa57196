package cert

import (
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// Identify says who the client of a connection is, under the rule of the host
// that it asked for. nil: it gave no certificate.
func Identify(cs *tls.ConnectionState, rule *route.ClientCert, now time.Time) *stream.Identity {
	if rule == nil || len(cs.PeerCertificates) == 0 {
		return nil
	}
	leaf := cs.PeerCertificates[0]
	sum := sha1.Sum(leaf.Raw) // the name that nginx gives it, not a proof
	id := &stream.Identity{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Serial: fmt.Sprintf("%X", leaf.SerialNumber),
		Digest: hex.EncodeToString(sum[:]),
	}
	if rule.Pass {
		id.PEM = url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})))
	}
	if err := verify(cs.PeerCertificates, rule, now); err != nil {
		id.Problem = err.Error()
	} else {
		id.Verified = true
	}
	return id
}

func verify(chain []*x509.Certificate, rule *route.ClientCert, now time.Time) error {
	if rule.Roots == nil {
		return fmt.Errorf("the gateway has no authorities to check it with")
	}
	opts := x509.VerifyOptions{Roots: rule.Roots, CurrentTime: now, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := chain[0].Verify(opts)
	if err != nil {
		return err
	}
	depth := max(1, rule.Depth)
	for _, c := range chains {
		if len(c)-1 <= depth {
			return nil
		}
	}
	return fmt.Errorf("more than %d certificates between the client's and an authority", depth)
}

// Misdirected says that a request for the host matched came over a connection
// made for the host asked (by SNI), whose rule for client certificates is not its
// own: the answer is 421, or it would get around the rule. nil is no host.
func Misdirected(asked, matched *route.Host) bool {
	if matched == nil || matched.ClientCert == nil || asked == matched {
		return false
	}
	return asked == nil || asked.ClientCert == nil || !sameAuthorities(asked.ClientCert, matched.ClientCert)
}
