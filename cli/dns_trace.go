package cli

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/hostdns"
	"github.com/fingerpost/fingerpost/view/dns"
)

// What comparing the catalog's answer with the server's says.
const (
	wireSame      = "same"
	wireDiffers   = "differs"
	wireForwarded = "forwarded" // the catalog has no say
	wireSilent    = "silent"    // no answer
)

// trace is what dns trace found out, and the shape of -o json.
type trace struct {
	Name      string      `json:"name"` // as asked
	Type      string      `json:"type"`
	Namespace string      `json:"namespace"`
	Search    []string    `json:"search,omitempty"`
	Ndots     int         `json:"ndots"`
	Steps     []traceStep `json:"steps"`
	Outcome   string      `json:"outcome"` // answer, empty, missing
}

// traceStep is one name that was asked.
type traceStep struct {
	Catalog dns.Explanation     `json:"catalog"`
	Claims  map[string][]string `json:"claims,omitempty"` // by Instance
	Hints   []string            `json:"hints,omitempty"`
	Wire    *wireWord           `json:"wire,omitempty"`
}

// wireWord is what a name server says.
type wireWord struct {
	Server  string        `json:"server"`
	Rcode   string        `json:"rcode,omitempty"`
	Answers []record      `json:"answers,omitempty"`
	Took    time.Duration `json:"took,omitempty"`
	Verdict string        `json:"verdict"`
	Error   string        `json:"error,omitempty"`
}

type traceOptions struct {
	resolveOptions
	qtype    string
	clientIP string
	noServer bool
	upstream []string // of the server, where not told otherwise
	snapshot *catalog.Snapshot
	now      time.Time
	claims   func(ctx context.Context, namespace string) []v1alpha1.Instance
	explain  func(ctx context.Context, name, qtype string) (dns.Explanation, error)
	wire     asker
}

func (a *App) dnsTraceCmd() *cobra.Command {
	var o traceOptions
	c := &cobra.Command{
		Use:   "trace NAME",
		Short: "Tell step by step how a name is resolved, by which rule and from which registration",
		Long: `Tell step by step how a name is resolved: the names that a client's search list
makes of it, and for each which rule answers, from which registration, who is in
and who is out and why, and what the name server says to the same question.

A difference between the two means that the server has not heard of a change, or
serves something else. Names outside the cluster's zone are forwarded: there the
server's word is the only one.

Exit codes: 3 when the name does not exist, 5 when nothing alive stands behind
it, 1 when the server says otherwise, 4 when the API cannot be reached.`,
		Example: `  fingerpost dns trace web
  fingerpost dns trace _http._tcp.web.shop -t SRV
  fingerpost dns trace web --client-ip 10.244.1.7`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var types []string
			if o.qtype != "" {
				types = []string{o.qtype}
			}
			o.name = args[0]
			if err := o.pickTypes(types); err != nil {
				return err
			}
			return a.dnsTrace(cmd.Context(), &o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.qtype, "type", "t", "", "record type (default A; SRV for a name that begins with _, PTR for an address)")
	f.StringVar(&o.server, "server", "", "name server to compare with, ip:port (default that of 'dns install', else "+defaultDNS+")")
	f.BoolVar(&o.noServer, "no-server", false, "ask no name server")
	f.StringVar(&o.clientIP, "client-ip", "", "trace as for the pod or instance with this address: it decides the namespace")
	f.StringVar(&o.zone, "zone", "cluster.local", "domain of the cluster")
	f.StringVar(&o.node, "node", "", "answer as on this node (default this machine's host name)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "time that the name server may take")
	formatFlag(c, &o.format, formatTable, formatJSON, formatYAML)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.serviceNames(cmd.Context())
	}
	return c
}

func (a *App) dnsTrace(ctx context.Context, o *traceOptions) error {
	if o.server == "" {
		o.server = installedServer()
	} else if _, err := netip.ParseAddrPort(o.server); err != nil {
		return exitWith(ExitUsage, "--server %s: want an address with a port, like 127.0.0.1:53", o.server)
	}
	if o.node == "" {
		o.node, _ = os.Hostname()
	}
	c, stop, err := a.follow(ctx, "", loadTimeout)
	if err != nil {
		return err
	}
	defer stop()
	o.namespace = a.ns()
	if err := o.prepare(c); err != nil {
		return err
	}
	o.now = time.Now()
	o.claims = func(ctx context.Context, ns string) []v1alpha1.Instance {
		cfg, err := a.restConfig()
		if err != nil {
			return nil
		}
		found, _ := listInstances(ctx, cfg, ns) // who may not read them does without
		return found
	}
	if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		for _, n := range hostdns.Nameservers(string(text)) {
			if netip.AddrPortFrom(n, 53).String() != o.server {
				o.upstream = append(o.upstream, n.String())
			}
		}
	}
	t, err := o.trace(ctx)
	if err != nil {
		return err
	}
	if o.format == formatTable {
		t.print(a.Out, o)
	} else if err := writeObject(a.Out, o.format, t); err != nil {
		return err
	}
	return t.verdict(o)
}

// installedServer is the one that this machine was led to.
func installedServer() string {
	if in, err := localMachine().Installed(); err == nil && in != nil {
		return in.Want.Server.String()
	}
	return defaultDNS
}

// prepare makes the answering that explains, from a catalog.
func (o *traceOptions) prepare(c *catalog.Catalog) error {
	server, err := dns.New(dns.Config{Zone: o.zone, Node: o.node})
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	sub := c.Subscribe()
	defer sub.Close()
	batch := sub.TryNext()
	if err := server.Apply(context.Background(), batch); err != nil {
		return err
	}
	o.snapshot, o.explain = batch.Snapshot, server.Explain
	if !o.noServer {
		o.wire = o.overWire
	}
	if o.clientIP == "" {
		return nil
	}
	ip, err := netip.ParseAddr(o.clientIP)
	if err != nil {
		return exitWith(ExitUsage, "--client-ip %s: want an IP address", o.clientIP)
	}
	var spaces []string
	for e := range o.snapshot.All() {
		for i := range e.Endpoints {
			if e.Endpoints[i].Addr == ip.Unmap() && !slices.Contains(spaces, e.Service.Namespace) {
				spaces = append(spaces, e.Service.Namespace)
			}
		}
	}
	switch slices.Sort(spaces); len(spaces) {
	case 0:
		return exitWith(ExitNotFound, "no endpoint has the address %s, so that its namespace is not known: name it with -n", ip)
	case 1:
		o.namespace = spaces[0]
		return nil
	}
	return exitWith(ExitUsage, "%s is in several namespaces (%s): name one with -n", ip, strings.Join(spaces, ", "))
}

// ndots is what pods have.
const ndots = 5

// trace asks for one name after the other, as a client does: until one has
// records.
func (o *traceOptions) trace(ctx context.Context) (*trace, error) {
	zone := strings.Trim(o.zone, ".")
	t := &trace{Name: o.name, Type: o.types[0], Namespace: o.namespace, Ndots: ndots, Outcome: "missing"}
	names := o.candidates()
	if len(names) > 1 {
		t.Search = []string{o.namespace + ".svc." + zone, "svc." + zone, zone}
	}
	for _, name := range names {
		s, err := o.step(ctx, name, t.Type)
		if err != nil {
			return nil, err
		}
		t.Steps = append(t.Steps, *s)
		rcode, n := s.outcome()
		switch {
		case rcode == "NOERROR" && n > 0:
			t.Outcome = "answer"
			return t, nil
		case rcode == "NOERROR":
			t.Outcome = "empty"
		}
	}
	return t, nil
}

// outcome is the server's word where the catalog has none.
func (s *traceStep) outcome() (rcode string, answers int) {
	if s.Wire != nil && s.Wire.Verdict == wireForwarded {
		return s.Wire.Rcode, len(s.Wire.Answers)
	}
	return s.Catalog.Rcode, len(s.Catalog.Answer)
}

func (o *traceOptions) step(ctx context.Context, name, qtype string) (*traceStep, error) {
	e, err := o.explain(ctx, name, qtype)
	if err != nil {
		return nil, exitWith(ExitUsage, "%w", err)
	}
	// Whether there are upstreams is for the server to know, not for us.
	e.Rule, _, _ = strings.Cut(e.Rule, "; no upstream is configured")
	s := &traceStep{Catalog: e}
	o.addHints(s)
	o.addClaims(ctx, s, &e)
	if o.wire == nil {
		return s, nil
	}
	began := time.Now()
	r, err := o.wire(ctx, e.Name, e.Type)
	w := &wireWord{Server: o.server, Took: time.Since(began), Rcode: r.Rcode, Answers: r.Answers}
	s.Wire = w
	switch {
	case err != nil:
		w.Verdict, w.Error = wireSilent, err.Error()
		o.wire = nil // once is enough
	case e.Rcode == "REFUSED":
		w.Verdict = wireForwarded
	case sameWord(&e, w):
		w.Verdict = wireSame
	default:
		w.Verdict = wireDiffers
	}
	return s, nil
}

// sameWord: the server may add what an upstream says about an alias.
func sameWord(e *dns.Explanation, w *wireWord) bool {
	want := map[string]bool{}
	for _, line := range e.Answer {
		want[recordText(line)] = true
	}
	alias := false
	for _, r := range w.Answers {
		key := r.Type + " " + r.Data
		if !want[key] && !alias {
			return false
		}
		alias = alias || r.Type == "CNAME"
		delete(want, key)
	}
	// An alias of a name that no upstream knows is NXDOMAIN, with the alias.
	return len(want) == 0 && (e.Rcode == w.Rcode || alias)
}

// recordText leaves owner, TTL and class out of a record.
func recordText(line string) string {
	f := strings.Fields(line)
	if len(f) < 5 {
		return line
	}
	return strings.Join(f[3:], " ")
}

// addHints says what may have been meant by a service that does not exist.
func (o *traceOptions) addHints(s *traceStep) {
	if s.Catalog.Rcode != "NXDOMAIN" || s.Catalog.From != nil {
		return
	}
	below, ok := strings.CutSuffix(s.Catalog.Name, ".svc."+strings.Trim(o.zone, ".")+".")
	labels := strings.Split(below, ".")
	if !ok || len(labels) < 2 {
		return
	}
	labels = labels[len(labels)-2:]
	s.Hints = hintsNotFound(o.snapshot, catalog.Key{Namespace: labels[1], Name: labels[0]}, true)
}

// addClaims names who registered the Instances behind a name.
func (o *traceOptions) addClaims(ctx context.Context, s *traceStep, e *dns.Explanation) {
	ns, _, _ := strings.Cut(e.Service, "/")
	of := func(ep dns.ExplainedEndpoint) bool { return ep.Kind == "Instance" }
	if o.claims == nil || !slices.ContainsFunc(e.Endpoints, of) {
		return
	}
	s.Claims = map[string][]string{}
	for _, in := range o.claims(ctx, ns) {
		if !slices.ContainsFunc(e.Endpoints, func(ep dns.ExplainedEndpoint) bool { return of(ep) && ep.Object == in.Name }) {
			continue
		}
		for _, c := range in.Spec.Claims {
			text := c.Door + "/" + c.ID
			if c.Origin != "" {
				text += " from " + c.Origin
			}
			if c.TTL != nil {
				text += ", ttl " + c.TTL.Duration.String()
			}
			for _, x := range in.Status.Expired {
				if x.Door == c.Door && x.ID == c.ID {
					text += fmt.Sprintf(", silent since %s", age(x.Since.Time, o.now))
				}
			}
			s.Claims[in.Name] = append(s.Claims[in.Name], text)
		}
	}
}
