package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/dns"
	"github.com/fingerpost/fingerpost/view/dns/forward"
)

// nodeLameduck is the default of --dns-lameduck where other machines may send
// their clients elsewhere; dev has none.
const nodeLameduck = time.Second

// dnsFlags are those of DNS that need to be read.
type dnsFlags struct {
	stubs    []string
	queryLog string
	pods     string
}

func (f *dnsFlags) add(fs *pflag.FlagSet, c *server.Config) {
	fs.StringArrayVar(&f.stubs, "dns-stub", nil, "DNS servers for one zone, such as corp.example=192.0.2.1,192.0.2.2 (may be repeated)")
	fs.StringArrayVar(&c.DNS.Records, "dns-record", nil, "record of your own: 'printer.example A 192.0.2.7', or '192.0.2.7 printer.example' with PTR (may be repeated)")
	fs.StringVar(&f.pods, "dns-pods", string(dns.PodsInsecure), "which 1-2-3-4.ns.pod names exist: disabled, insecure (any) or verified (of endpoints)")
	fs.BoolVar(&c.DNS.Autopath, "dns-autopath", false, "answer a pod's first search list name with the first one that exists")
	fs.DurationVar(&c.DNS.TTL, "dns-ttl", 5*time.Second, "TTL of the cluster's names")
	fs.StringVar(&f.queryLog, "dns-query-log", "off", "questions to log on stderr: off, all, errors or 1/N, such as 1/100")
	fs.StringSliceVar(&c.DNSTLS, "dns-tls-address", nil, "address for DNS over TLS, such as 127.0.0.1:853")
	fs.StringSliceVar(&c.DNSHTTPS, "dns-https-address", nil, "address for DNS over HTTPS, such as 127.0.0.1:8443; the path is /dns-query")
	fs.StringVar(&c.DNSCert, "dns-tls-cert", "", "certificate for both, PEM, read again when it changes (default one of the cluster's CA, or self-made)")
	fs.StringVar(&c.DNSKey, "dns-tls-key", "", "key of the certificate, PEM")
	fs.DurationVar(&c.Lameduck, "dns-lameduck", 0, "how long to go on answering, not ready, when told to stop (node: default 1s)")
	fs.StringVar(&c.DNSConfig, "config", "", "YAML file with settings of DNS, taken when it changes and on SIGHUP")
	fs.StringVar(&c.StateDir, "state-dir", DataDir(), "directory of the last state, for a start without the server (\"\" for none)")
}

// complete reads what was typed.
func (f *dnsFlags) complete(c *server.Config, log io.Writer) error {
	c.QueryLogTo = log
	if (c.DNSCert == "") != (c.DNSKey == "") {
		return fmt.Errorf("--dns-tls-cert and --dns-tls-key must be given together")
	}
	if len(c.DNSListen) == 0 && len(c.DNSTLS)+len(c.DNSHTTPS) > 0 {
		return fmt.Errorf("--dns-tls-address and --dns-https-address need the DNS server: leave out --no-dns")
	}
	if c.Lameduck < 0 {
		return fmt.Errorf("--dns-lameduck %v: it cannot be negative", c.Lameduck)
	}
	var err error
	if c.DNS.QueryLog, err = dns.ParseQueryLog(f.queryLog); err != nil {
		return fmt.Errorf("--dns-query-log: %w", err)
	}
	c.DNS.Pods = dns.PodMode(f.pods)
	if f.pods != "" && !slices.Contains([]dns.PodMode{dns.PodsDisabled, dns.PodsInsecure, dns.PodsVerified}, c.DNS.Pods) {
		return fmt.Errorf("--dns-pods %q: want disabled, insecure or verified", f.pods)
	}
	c.DNS.Forward = nil
	for _, s := range f.stubs {
		zone, servers, ok := strings.Cut(s, "=")
		if !ok || zone == "" || servers == "" {
			return fmt.Errorf("--dns-stub %q: want ZONE=SERVER[,SERVER], such as corp.example=192.0.2.1", s)
		}
		c.DNS.Forward = append(c.DNS.Forward, forward.Zone{Name: strings.TrimSuffix(zone, ".") + ".", Upstreams: strings.Split(servers, ",")})
	}
	return nil
}
