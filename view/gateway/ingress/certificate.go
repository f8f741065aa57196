package ingress

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/cert"
)

// pair is what was read of a Secret with a certificate.
type pair struct {
	from  *corev1.Secret
	chain *tls.Certificate
	leaf  *x509.Certificate
	why   string // it cannot be used
}

// keyPair reads a certificate once for each version of its Secret.
func (t *translator) keyPair(k catalog.Key) (*pair, string) {
	s := t.objects.Secrets[k]
	if s == nil {
		delete(t.pairs, k)
		return nil, fmt.Sprintf("there is no Secret %s of type %s; make it with: kubectl create secret tls %s -n %s --cert=FILE --key=FILE", k, corev1.SecretTypeTLS, k.Name, k.Namespace)
	}
	if p := t.pairs[k]; p != nil && p.from == s {
		return p, p.why
	}
	p := readPair(s)
	t.pairs[k] = p
	return p, p.why
}

func readPair(s *corev1.Secret) *pair {
	p := &pair{from: s}
	c, err := cert.Pair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		p.why = fmt.Sprintf("the Secret %s/%s has no certificate with its key: %s", s.Namespace, s.Name, strings.TrimPrefix(err.Error(), "cert: "))
		return p
	}
	p.chain, p.leaf = c, c.Leaf
	return p
}

// altNames are the names of a certificate, all lower case.
func (p *pair) altNames() []string {
	names := slices.Clone(p.leaf.DNSNames)
	for _, ip := range p.leaf.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 && p.leaf.Subject.CommonName != "" {
		// Browsers do not look at it any more; people who made one with openssl
		// and an old recipe still want to see theirs.
		names = append(names, p.leaf.Subject.CommonName)
	}
	for i := range names {
		names[i] = strings.ToLower(names[i])
	}
	return names
}

func (p *pair) covers(host string) bool {
	return host == "" || slices.ContainsFunc(p.altNames(), func(n string) bool { return matchesHost(n, host) })
}

func (p *pair) names() string {
	all := p.altNames()
	if len(all) == 0 {
		return "no host at all"
	}
	if len(all) > 10 {
		all = append(all[:10:10], "...")
	}
	return strings.Join(all, ", ")
}

// soon is how long before its end a certificate is worth a word.
const soon = 10 * 24 * time.Hour

func (p *pair) dates(now time.Time) string {
	const day = "2006-01-02 15:04 MST"
	switch {
	case now.After(p.leaf.NotAfter):
		return "expired at " + p.leaf.NotAfter.UTC().Format(day) + ": browsers refuse it; renew it"
	case now.Before(p.leaf.NotBefore):
		return "is not valid before " + p.leaf.NotBefore.UTC().Format(day) + ": browsers refuse it; look at the clocks"
	case now.Add(soon).After(p.leaf.NotAfter):
		return "expires at " + p.leaf.NotAfter.UTC().Format(day) + ": renew it"
	}
	return ""
}
