package forward

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Zone says whom to ask about the names below it.
type Zone struct {
	Name string // "." or "corp.example."
	// Upstreams are "192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:53", or with
	// TLS "tls://192.0.2.1:853#dns.example"; without a name the certificate
	// must be for the address.
	Upstreams []string
}

// Policy orders the upstreams of a zone that are up.
type Policy string

// Policies.
const (
	Sequential Policy = "sequential" // as configured, but the one that worked last first
	Random     Policy = "random"
)

// Config is what New and Reload take. Zeros are defaults.
type Config struct {
	Zones []Zone
	// ResolvConf is a resolver configuration file with the upstreams of "."
	// when Zones has none for it. Run re-reads it when it changes.
	ResolvConf string
	Policy     Policy
	// Own says whether an address is this server's: it is never asked. It is
	// called often, also by New and Reload, and must not call the forwarder.
	Own func(netip.AddrPort) bool

	// Timeout is how long a question may take in all; 3 s. Hedge is how long
	// the first upstream has before the next one is asked too; 300 ms.
	Timeout, Hedge time.Duration
	// MaxInFlight bounds the different questions under way; 1024. Eight times
	// as many may wait for their answers.
	MaxInFlight int

	// CacheSize is in bytes; 4 MiB if 0, no cache if negative.
	CacheSize int
	// MinTTL and MaxTTL bound how long positive answers are kept; 0 and 1 h.
	MinTTL, MaxTTL time.Duration
	// NegativeTTL is the longest that a name or type is taken not to exist; 5 s.
	NegativeTTL time.Duration
	// StaleFor is how long answers are given after their time when upstreams
	// fail; 1 h if 0, never if negative. StaleAfter is how long upstreams are
	// waited for before; 1.8 s.
	StaleFor, StaleAfter time.Duration
	// Prefetch renews answers that are asked for often before their time ends.
	Prefetch bool

	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: no metrics
	Server     string                // the label "server" of the cache's metrics; "dns://"
	Now        func() time.Time      // nil: time.Now. The time of the cache only
	RootCAs    *x509.CertPool        // nil: the machine's
}

func (c *Config) complete() error {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&c.Timeout, 3*time.Second)
	set(&c.Hedge, 300*time.Millisecond)
	set(&c.MaxTTL, time.Hour)
	set(&c.NegativeTTL, 5*time.Second)
	set(&c.StaleFor, time.Hour)
	set(&c.StaleAfter, 1800*time.Millisecond)
	for _, d := range []struct {
		what      string
		is        time.Duration
		low, high time.Duration
	}{
		{"Timeout", c.Timeout, time.Millisecond, time.Minute},
		{"Hedge", c.Hedge, time.Millisecond, time.Minute},
		{"MinTTL", c.MinTTL, 0, time.Hour},
		{"MaxTTL", c.MaxTTL, c.MinTTL, 7 * 24 * time.Hour},
		{"NegativeTTL", c.NegativeTTL, 0, time.Hour},
		{"StaleFor", c.StaleFor, -1 << 62, 7 * 24 * time.Hour},
	} {
		if d.is < d.low || d.is > d.high {
			return fmt.Errorf("%s %v: it must be between %v and %v", d.what, d.is, max(d.low, 0), d.high)
		}
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 1024
	}
	if c.MaxInFlight < 0 {
		return fmt.Errorf("MaxInFlight %d: it must not be negative", c.MaxInFlight)
	}
	if c.CacheSize == 0 {
		c.CacheSize = 4 << 20
	}
	switch c.Policy {
	case "":
		c.Policy = Sequential
	case Sequential, Random:
	default:
		return fmt.Errorf("policy %q: it must be %s or %s", c.Policy, Sequential, Random)
	}
	if c.Own == nil {
		c.Own = func(netip.AddrPort) bool { return false }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Server == "" {
		c.Server = "dns://"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	seen := map[string]bool{}
	for _, z := range c.Zones {
		wire, err := wireName(z.Name)
		if err != nil {
			return err
		}
		if seen[wire] {
			return fmt.Errorf("zone %s: it is there twice; give all its upstreams in one place", z.Name)
		}
		seen[wire] = true
		if len(z.Upstreams) == 0 {
			return fmt.Errorf("zone %s: no upstream; name at least one, like 192.0.2.1", z.Name)
		}
		for _, u := range z.Upstreams {
			if _, err := parseTarget(u); err != nil {
				return fmt.Errorf("zone %s: %w", z.Name, err)
			}
		}
	}
	return nil
}

// wireName gives the lower-case wire form of a name.
func wireName(name string) (string, error) {
	var b [maxName + 1]byte
	n, err := miekg.PackDomainName(miekg.CanonicalName(name), b[:], 0, nil, false)
	if err != nil || name == "" {
		return "", fmt.Errorf("zone %q: it is no domain name", name)
	}
	return string(b[:n]), nil
}

// target is where an upstream listens; it is the upstream's identity.
type target struct {
	addr netip.AddrPort
	tls  bool
	name string // in the certificate
}

func (t target) String() string {
	switch {
	case !t.tls:
		return t.addr.String()
	case t.name == "":
		return "tls://" + t.addr.String()
	}
	return "tls://" + t.addr.String() + "#" + t.name
}

func parseTarget(s string) (target, error) {
	var t target
	rest, port := s, uint16(53)
	if after, ok := strings.CutPrefix(s, "tls://"); ok {
		rest, t.name, _ = strings.Cut(after, "#")
		t.tls, port = true, 853
	} else if after, ok := strings.CutPrefix(s, "dns://"); ok {
		rest = after
	}
	if ap, err := netip.ParseAddrPort(rest); err == nil && ap.Port() != 0 {
		t.addr = ap
	} else if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		t.addr = netip.AddrPortFrom(a, port)
	} else {
		return t, fmt.Errorf("upstream %q: it must be an address, like 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:53 or tls://192.0.2.1:853#dns.example", s)
	}
	t.addr = netip.AddrPortFrom(t.addr.Addr().Unmap(), t.addr.Port())
	return t, nil
}
