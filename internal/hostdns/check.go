package hostdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Ask puts one question to a name server: over UDP, and over TCP if the answer
// is cut. The data of the answers is sorted.
func Ask(ctx context.Context, server netip.AddrPort, name, qtype string) (rcode string, data []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	q.SetEdns0(1232, false)
	c := dns.Client{Net: "udp", Timeout: 4 * time.Second}
	resp, _, err := c.ExchangeContext(ctx, q, server.String())
	if err == nil && resp.Truncated {
		c.Net = "tcp"
		resp, _, err = c.ExchangeContext(ctx, q, server.String())
	}
	if err != nil {
		return "", nil, err
	}
	for _, rr := range resp.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return cmp.Or(dns.RcodeToString[resp.Rcode], fmt.Sprint(resp.Rcode)), data, nil
}

// Lookup resolves a name as the machine's programs do, within a few seconds:
// no address is an answer, as is no answer.
func (m *Machine) Lookup(ctx context.Context, name string) []string {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	var addrs []string
	if m.OS == "darwin" {
		out, _ := m.Run(ctx, "dscacheutil", "-q", "host", "-a", "name", name)
		for line := range strings.Lines(out) {
			if k, v, ok := strings.Cut(line, ": "); ok && (k == "ip_address" || k == "ipv6_address") {
				addrs = append(addrs, strings.TrimSpace(v))
			}
		}
	} else {
		out, err := m.Run(ctx, "getent", "ahosts", name)
		if errors.Is(err, exec.ErrNotFound) { // musl systems without its tools
			addrs, _ = net.DefaultResolver.LookupHost(ctx, name)
		}
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) > 0 {
				addrs = append(addrs, f[0])
			}
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// Check watches over one installation.
type Check struct {
	Machine *Machine
	Want    Want
	Method  Method
	Outside string // a name that is not the zone's
	Ask     func(ctx context.Context, server netip.AddrPort, name, qtype string) (rcode string, data []string, err error)

	outside []string      // what Outside was before
	inside  string        // a name of the zone
	data    []string      // and its addresses
	missing time.Duration // how long it took to learn that a name does not exist
}

// Health is what a name server says of itself.
type Health struct {
	Answers  bool          `json:"answers"`
	Version  string        `json:"version,omitempty"` // of the specification
	Took     time.Duration `json:"took,omitempty"`
	Error    string        `json:"error,omitempty"`
	Forwards bool          `json:"forwards"` // it resolves the outside name
}

// Health asks the server for its version and for the outside name.
func (c *Check) Health(ctx context.Context) Health {
	var h Health
	began := time.Now()
	rcode, data, err := c.Ask(ctx, c.Want.Server, "dns-version."+c.Want.Zone, "TXT")
	h.Took = time.Since(began)
	switch {
	case err != nil:
		h.Error = err.Error()
	case rcode != "NOERROR" || len(data) == 0:
		h.Error = fmt.Sprintf("it does not serve the zone %s (dns-version.%s: %s)", c.Want.Zone, c.Want.Zone, rcode)
	default:
		h.Answers, h.Version = true, strings.Trim(data[0], `"`)
	}
	if err == nil {
		rcode, data, err = c.Ask(ctx, c.Want.Server, c.Outside, "A")
		h.Forwards = err == nil && rcode == "NOERROR" && len(data) > 0
	}
	return h
}

// Before looks at the server, and at what the machine resolves now.
func (c *Check) Before(ctx context.Context) error {
	h := c.Health(ctx)
	if !h.Answers {
		return fmt.Errorf("hostdns: %s does not answer for %s, so that nothing is changed: %s. Start the server with that address: fingerpost dev --dns-address %s", c.Want.Server, c.Want.Zone, h.Error, c.Want.Server)
	}
	c.outside = c.Machine.Lookup(ctx, c.Outside)
	c.missing = c.timeMissing(ctx)
	if len(c.outside) > 0 && !h.Forwards && !c.Method.Split() {
		return fmt.Errorf("hostdns: %s does not resolve %s, which this machine does resolve: every question would go there, so that nothing is changed. Give the server upstreams: --dns-upstream", c.Want.Server, c.Outside)
	}
	for _, name := range []string{"kubernetes.default.svc." + c.Want.Zone, "ns.dns." + c.Want.Zone} {
		for _, t := range []string{"A", "AAAA"} {
			if rcode, data, err := c.Ask(ctx, c.Want.Server, name, t); err == nil && rcode == "NOERROR" && len(data) > 0 {
				c.inside, c.data = name, data
				return nil
			}
		}
	}
	return fmt.Errorf("hostdns: %s knows neither kubernetes.default.svc.%s nor ns.dns.%s, so that it cannot be checked whether names of the zone resolve afterwards; nothing is changed", c.Want.Server, c.Want.Zone, c.Want.Zone)
}

// After looks whether the machine resolves the zone, and what it resolved
// before. A program that was restarted is given a few seconds.
func (c *Check) After(ctx context.Context) error {
	var err error
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 5 {
		if err = c.look(ctx); err == nil || errors.Is(err, errSlow) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (c *Check) look(ctx context.Context) error {
	if got := c.Machine.Lookup(ctx, c.inside); !slices.ContainsFunc(got, func(a string) bool { return slices.Contains(c.data, a) }) {
		return fmt.Errorf("hostdns: after the change this machine resolves %s to %s, and %s says %s", c.inside, list(got), c.Want.Server, list(c.data))
	}
	if len(c.outside) > 0 && len(c.Machine.Lookup(ctx, c.Outside)) == 0 {
		return fmt.Errorf("hostdns: after the change this machine does not resolve %s any more", c.Outside)
	}
	// Two servers that forward to each other answer what exists, and go round
	// in a circle for what does not.
	if took := c.timeMissing(ctx); took > c.missing+slow {
		return fmt.Errorf("hostdns: after the change this machine takes %.1f s to learn that a name does not exist, and took %.1f s before: %w: most likely %s forwards to the server that asks it. Start it with the upstreams behind that: %s", took.Seconds(), c.missing.Seconds(), errSlow, c.Want.Server, c.Machine.upstreamFlags())
	}
	return nil
}

// errSlow is no beginner's trouble: waiting does not mend it.
var errSlow = errors.New("questions go round in a circle")

// slow is what nobody waits for without noticing.
const slow = 2 * time.Second

// timeMissing looks up a name that nobody has asked for before.
func (c *Check) timeMissing(ctx context.Context) time.Duration {
	began := time.Now()
	c.Machine.Lookup(ctx, fmt.Sprintf("nobody-%x.%s", began.UnixNano(), c.Outside))
	return time.Since(began)
}

// upstreamFlags names the servers behind systemd-resolved, as flags.
func (m *Machine) upstreamFlags() string {
	var flags []string
	for _, a := range Nameservers(m.text("/run/systemd/resolve/resolv.conf")) {
		flags = append(flags, "--dns-upstream "+a.String())
	}
	return orElse(strings.Join(flags, " "), "--dns-upstream ADDRESS")
}

// Reaches says whether the machine resolves a name of the zone as the server
// does; why is for a person.
func (c *Check) Reaches(ctx context.Context) (ok bool, why string) {
	if err := c.Before(ctx); err != nil && c.inside == "" {
		return false, strings.TrimPrefix(err.Error(), "hostdns: ")
	}
	got := c.Machine.Lookup(ctx, c.inside)
	if slices.ContainsFunc(got, func(a string) bool { return slices.Contains(c.data, a) }) {
		return true, c.inside + " is " + list(got)
	}
	return false, fmt.Sprintf("%s is %s to this machine, and %s to the server", c.inside, list(got), list(c.data))
}

func list(s []string) string {
	if len(s) == 0 {
		return "nothing"
	}
	return strings.Join(s, ", ")
}
