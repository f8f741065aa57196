package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/view/dns"
)

// dns makes the DNS server, listening already, and what keeps its settings.
func (s *System) dns(c *Config) (*dns.Server, error) {
	cert, err := c.certificate()
	if err != nil {
		return nil, err
	}
	set := c.DNS
	set.Upstreams = c.Upstreams
	var file *dns.File
	again := make(chan os.Signal, 1)
	if c.DNSConfig != "" {
		if file, err = dns.NewFile(dns.FileConfig{Path: c.DNSConfig, Base: set, Again: again, Registerer: c.Registry}); err != nil {
			return nil, err
		}
		if set, err = file.Read(); err != nil {
			return nil, err
		}
	}
	d, err := dns.New(dns.Config{
		Zone: c.DNSZone, Addrs: c.DNSListen, Node: c.NodeName, ResolvConf: c.ResolvConf,
		TLSAddrs: c.DNSTLS, HTTPSAddrs: c.DNSHTTPS, Certificate: cert, QueryLogTo: c.QueryLogTo,
		Log: c.Log, Registerer: c.Registry,
	}.With(set))
	if err != nil {
		return nil, err
	}
	if err := d.Listen(); err != nil {
		return nil, err
	}
	if file != nil {
		s.add("DNS configuration", func(ctx context.Context) error {
			signal.Notify(again, syscall.SIGHUP)
			defer signal.Stop(again)
			return file.Follow(ctx, d)
		}, nil)
	}
	return d, nil
}

// certificate is that of DNS over TLS and HTTPS: the files that were given, one
// of the cluster's CA where it is in this process, or one of the node's own.
func (c *Config) certificate() (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if len(c.DNSTLS)+len(c.DNSHTTPS) == 0 {
		return nil, nil
	}
	names := []string{"localhost", c.NodeName, "ns.dns." + c.DNSZone}
	addrs := slices.Clone(c.NodeAddrs)
	for _, l := range slices.Concat(c.DNSTLS, c.DNSHTTPS, c.DNSListen) {
		if a, err := netip.ParseAddrPort(l); err == nil && !a.Addr().IsUnspecified() && !slices.Contains(addrs, a.Addr().Unmap()) {
			addrs = append(addrs, a.Addr().Unmap())
		}
	}
	if c.DNSCert == "" && c.pki != nil {
		i := &issued{pki: c.pki, names: names, addrs: addrs}
		return i.get, nil
	}
	if c.DNSCert != "" {
		files, err := dns.NewCertificateFiles(c.DNSCert, c.DNSKey, c.Log, nil)
		if err != nil {
			return nil, err
		}
		return files.Get, nil
	}
	dir := c.stateDir()
	if dir == "" {
		return nil, errors.New("DNS over TLS needs a certificate: give --dns-tls-cert and --dns-tls-key, or a --state-dir to keep one in")
	}
	cert, key, err := dns.SelfSigned(dir, names, addrs, time.Now())
	if err != nil {
		return nil, err
	}
	files, err := dns.NewCertificateFiles(cert, key, c.Log, nil)
	if err != nil {
		return nil, err
	}
	var one sync.Mutex
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := files.Get(hello)
		if err != nil || time.Until(cert.Leaf.NotAfter) > issuedRenew {
			return cert, err
		}
		one.Lock()
		defer one.Unlock()
		if _, _, err := dns.SelfSigned(dir, names, addrs, time.Now()); err != nil { // files.Get will see it
			c.Log.Warn("the certificate of DNS over TLS ends soon and cannot be made anew", "until", cert.Leaf.NotAfter, "error", err)
		}
		return cert, nil
	}, nil
}

const (
	issuedLife  = 365 * 24 * time.Hour
	issuedRenew = 90 * 24 * time.Hour
)

// issued is a certificate of the cluster's CA, made anew before it ends.
type issued struct {
	pki   *apiserver.PKI
	names []string
	addrs []netip.Addr
	// issue makes another kind; nil: one of the cluster's CA for names and addrs.
	issue func(now time.Time) (apiserver.KeyPair, error)

	mu      sync.Mutex
	current *tls.Certificate
}

func (i *issued) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if i.current != nil && now.Add(issuedRenew).Before(i.current.Leaf.NotAfter) {
		return i.current, nil
	}
	issue := i.issue
	if issue == nil {
		issue = i.fromCA
	}
	pair, err := issue(now)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		return nil, err
	}
	i.current = &cert
	return i.current, nil
}

func (i *issued) fromCA(now time.Time) (apiserver.KeyPair, error) {
	want := x509.Certificate{
		Subject: pkix.Name{CommonName: "fingerpost-dns"}, DNSNames: i.names,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, a := range i.addrs {
		want.IPAddresses = append(want.IPAddresses, net.IP(a.AsSlice()))
	}
	return i.pki.Issue(want, issuedLife, now)
}
