package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/dns"
)

// resolveOptions is what resolve was asked for.
type resolveOptions struct {
	name      string
	types     []string
	namespace string
	zone      string
	node      string
	server    string // empty: answer from the catalog
	timeout   time.Duration
	format    format
}

// resolution is what one question found, and the shape of -o json.
type resolution struct {
	Name    string   `json:"name"` // as asked, fully qualified
	Type    string   `json:"type"`
	Rcode   string   `json:"rcode"`
	Answers []record `json:"answers"`
	Service string   `json:"service,omitempty"` // namespace/name, where known
	Rule    string   `json:"rule,omitempty"`    // which rule answered, where known
	// Ready and Total count the service's endpoints; not known over the wire.
	Ready int  `json:"ready,omitempty"`
	Total int  `json:"total,omitempty"`
	known bool // Ready and Total mean something
}

type record struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl"`
	Type string `json:"type"`
	Data string `json:"data"`
}

func (a *App) resolveCmd() *cobra.Command {
	var o resolveOptions
	c := &cobra.Command{
		Use:   "resolve NAME [TYPE]",
		Short: "Answer a name as the cluster DNS does",
		Long: `Answer a name as the cluster DNS does, from what the server knows, or, with
--server, by asking a name server.

A short name is completed with the search list of a process in the namespace:
NAMESPACE.svc.ZONE, svc.ZONE, ZONE; a dot at its end makes it complete. TYPE
is A, AAAA, SRV, PTR, CNAME, TXT …; without it both A and AAAA are asked for,
SRV for a name that begins with _ and PTR for an address. -o name prints the
data only.

Exit codes: 3 when the name does not exist, 5 when it does but nothing alive
stands behind it, 4 when nobody answers.`,
		Example: `  fingerpost resolve web
  fingerpost resolve _http._tcp.web
  fingerpost resolve web.shop.svc.cluster.local AAAA --server 127.0.0.1:8053`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name, o.namespace = args[0], a.ns()
			if o.node == "" {
				o.node, _ = os.Hostname()
			}
			if err := o.pickTypes(args[1:]); err != nil {
				return err
			}
			ask := o.overWire
			if o.server == "" {
				c, stop, err := a.follow(cmd.Context(), "", loadTimeout)
				if err != nil {
					return err
				}
				defer stop()
				if ask, err = o.fromCatalog(c); err != nil {
					return err
				}
			} else if _, err := netip.ParseAddrPort(o.server); err != nil {
				return exitWith(ExitUsage, "--server %s: want an address with a port, like 127.0.0.1:53", o.server)
			}
			found, err := o.resolve(cmd.Context(), ask)
			if err != nil {
				return err
			}
			return renderResolve(a.Out, found, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.server, "server", "", "ask this name server (ip:port) instead of reading the catalog")
	f.StringVar(&o.zone, "zone", "cluster.local", "domain of the cluster")
	f.StringVar(&o.node, "node", "", "answer as on this node (default this machine's host name)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "time that the name server may take")
	formatFlag(c, &o.format, formatTable, formatJSON, formatYAML, formatName)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return a.serviceNames(cmd.Context())
		case 1:
			return []string{"A", "AAAA", "SRV", "PTR", "CNAME", "TXT"}, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func (o *resolveOptions) pickTypes(args []string) error {
	switch _, err := netip.ParseAddr(o.name); {
	case len(args) > 0:
		t := strings.ToUpper(args[0])
		if _, ok := miekg.StringToType[t]; !ok {
			return exitWith(ExitUsage, "%q is no record type: try A, AAAA, SRV, PTR, CNAME or TXT", args[0])
		}
		o.types = []string{t}
	case err == nil:
		o.types = []string{"PTR"}
	case strings.HasPrefix(o.name, "_"):
		o.types = []string{"SRV"}
	default:
		o.types = []string{"A", "AAAA"}
	}
	return nil
}

// candidates are the complete names to try, in the order of a pod's resolver
// (search list, ndots:5).
func (o *resolveOptions) candidates() []string {
	if a, err := netip.ParseAddr(o.name); err == nil {
		name, err := miekg.ReverseAddr(a.WithZone("").String())
		if err == nil {
			return []string{name}
		}
	}
	if strings.HasSuffix(o.name, ".") {
		return []string{o.name}
	}
	zone := strings.Trim(o.zone, ".")
	var search []string
	for _, s := range []string{o.namespace + ".svc." + zone, "svc." + zone, zone} {
		search = append(search, o.name+"."+s+".")
	}
	complete := []string{o.name + "."}
	if strings.Count(o.name, ".") >= 5 {
		return append(complete, search...)
	}
	return append(search, complete...)
}

type asker func(ctx context.Context, name, qtype string) (resolution, error)

// resolve asks for each candidate until one exists. The first question that
// got an answer's records decides; of names that exist without records the
// first is kept.
func (o *resolveOptions) resolve(ctx context.Context, ask asker) ([]resolution, error) {
	var empty, missing []resolution
	for _, name := range o.candidates() {
		if _, ok := miekg.IsDomainName(name); !ok {
			return nil, exitWith(ExitUsage, "%q is no domain name", o.name)
		}
		var found []resolution
		exists, answers := false, 0
		for _, t := range o.types {
			r, err := ask(ctx, name, t)
			if err != nil {
				return nil, err
			}
			found = append(found, r)
			exists = exists || r.Rcode == "NOERROR"
			answers += len(r.Answers)
		}
		switch {
		case answers > 0:
			return found, nil
		case exists && empty == nil:
			empty = found
		case missing == nil, found[0].Rcode != "REFUSED" && missing[0].Rcode == "REFUSED":
			missing = found
		}
	}
	if empty != nil {
		return empty, nil
	}
	return missing, nil
}

// fromCatalog answers as the DNS view does, from a catalog's current state.
func (o *resolveOptions) fromCatalog(c *catalog.Catalog) (asker, error) {
	server, err := dns.New(dns.Config{Zone: o.zone, Node: o.node})
	if err != nil {
		return nil, exitWith(ExitUsage, "%w", err)
	}
	sub := c.Subscribe()
	defer sub.Close()
	batch := sub.TryNext()
	if err := server.Apply(context.Background(), batch); err != nil {
		return nil, err
	}
	return func(ctx context.Context, name, qtype string) (resolution, error) {
		e, err := server.Explain(ctx, name, qtype)
		if err != nil {
			return resolution{}, exitWith(ExitUsage, "%w", err)
		}
		r := resolution{Name: e.Name, Type: e.Type, Rcode: e.Rcode, Rule: e.Rule, Service: e.Service, Answers: []record{}}
		for _, line := range e.Answer {
			if rr, err := miekg.NewRR(line); err == nil && rr != nil {
				r.Answers = append(r.Answers, newRecord(rr))
			}
		}
		if ns, name, ok := strings.Cut(e.Service, "/"); ok {
			if entry := batch.Snapshot.Get(catalog.Key{Namespace: ns, Name: name}); entry != nil && entry.Service.Type != catalog.ExternalName {
				r.known, r.Ready, r.Total = true, readyCount(entry), len(entry.Endpoints)
			}
		}
		return r, nil
	}, nil
}

func newRecord(rr miekg.RR) record {
	h := rr.Header()
	return record{h.Name, h.Ttl, miekg.TypeToString[h.Rrtype], strings.TrimPrefix(rr.String(), h.String())}
}

// overWire asks a name server: over UDP, and over TCP if the answer is cut.
func (o *resolveOptions) overWire(ctx context.Context, name, qtype string) (resolution, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	q := new(miekg.Msg).SetQuestion(name, miekg.StringToType[qtype])
	q.SetEdns0(1232, false)
	client := miekg.Client{Net: "udp", Timeout: o.timeout}
	resp, _, err := client.ExchangeContext(ctx, q, o.server)
	if err == nil && resp.Truncated {
		client.Net = "tcp"
		resp, _, err = client.ExchangeContext(ctx, q, o.server)
	}
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return resolution{}, exitWith(ExitUnavailable, "%s does not answer within %v", o.server, o.timeout)
		}
		return resolution{}, exitWith(ExitUnavailable, "ask %s: %w", o.server, err)
	}
	r := resolution{Name: name, Type: qtype, Rcode: cmp.Or(miekg.RcodeToString[resp.Rcode], fmt.Sprint(resp.Rcode)), Answers: []record{}}
	for _, rr := range resp.Answer {
		r.Answers = append(r.Answers, newRecord(rr))
	}
	return r, nil
}

// renderResolve prints what was found. Its error carries the exit code.
func renderResolve(out io.Writer, found []resolution, o *resolveOptions) error {
	var all []record
	for _, r := range found {
		for _, a := range r.Answers {
			if !containsRecord(all, a) { // a CNAME answers to every type
				all = append(all, a)
			}
		}
	}
	switch o.format {
	case formatJSON, formatYAML:
		if err := writeObject(out, o.format, list[resolution]{found}); err != nil {
			return err
		}
	case formatName:
		for _, r := range all {
			fmt.Fprintln(out, r.Data)
		}
	default:
		if len(all) > 0 {
			t := table{head: []string{"NAME", "TTL", "TYPE", "DATA"}}
			for _, r := range all {
				t.row(r.Name, fmt.Sprint(r.TTL), r.Type, r.Data)
			}
			if err := t.write(out); err != nil {
				return err
			}
		}
	}
	return o.verdict(found, len(all))
}

// verdict turns what was found into an exit code and a sentence.
func (o *resolveOptions) verdict(found []resolution, answers int) error {
	types := strings.Join(o.types, " or ")
	for i := range found {
		if found[i].Rcode == "NOERROR" {
			r := &found[i]
			switch {
			case r.known && r.Total == 0:
				return exitWith(ExitNotReady, "service %s exists, but has no endpoints. See: fingerpost explain %s", r.Service, explainArg(r.Service))
			case r.known && r.Ready == 0 && r.Total == 1:
				return exitWith(ExitNotReady, "service %s exists, but its only endpoint is not ready. See: fingerpost explain %s", r.Service, explainArg(r.Service))
			case r.known && r.Ready == 0:
				return exitWith(ExitNotReady, "service %s exists, but none of its %d endpoints is ready. See: fingerpost explain %s", r.Service, r.Total, explainArg(r.Service))
			case answers > 0:
				return nil
			case r.known:
				return exitWith(ExitNotFound, "%s exists, but has no %s records", r.Name, types)
			}
			return exitWith(ExitNotReady, "%s exists, but has no %s records", r.Name, types)
		}
	}
	r := &found[0]
	switch r.Rcode {
	case "NXDOMAIN":
		return exitWith(ExitNotFound, "%s does not exist (tried %s)", o.name, strings.Join(o.candidates(), ", "))
	case "REFUSED":
		return exitWith(ExitNotFound, "%s is not a name of the zone %s. A name server that forwards may know it: --server ip:port", o.name, o.zone)
	}
	return exitWith(ExitUnavailable, "%s: the name server says %s", r.Name, r.Rcode)
}

// explainArg gives namespace/name as arguments of explain.
func explainArg(service string) string {
	ns, name, _ := strings.Cut(service, "/")
	return name + " -n " + ns
}

func containsRecord(all []record, a record) bool {
	for _, r := range all {
		if r.Name == a.Name && r.Type == a.Type && r.Data == a.Data {
			return true
		}
	}
	return false
}
