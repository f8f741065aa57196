package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/vip"
)

func (a *App) vipTraceCmd() *cobra.Command {
	var o vipOptions
	var from, proto string
	c := &cobra.Command{
		Use:   "trace ADDRESS:PORT",
		Short: "Tell what a packet to an address meets, step by step",
		Long: `Tell what the first packet of a connection to ADDRESS:PORT meets on the node, step
by step: which service has the address, which rule or map finds it, whether it is
rejected, dropped or masqueraded and why, and where it may go.

--from is where the packet comes from: node (a process there), pod, outside, or
the address of the client.

Exit codes: 3 when the address is no virtual IP, 5 when the packet is rejected
or dropped.`,
		Example: `  fingerpost vip trace 10.96.0.1:443
  fingerpost vip trace 192.0.2.10:80 --from 203.0.113.7
  fingerpost vip trace '[fd96::a]:53' --protocol udp`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return exitWith(ExitUsage, "%q: want an address with a port, such as 10.96.0.1:443", args[0])
			}
			p := catalog.Protocol(strings.ToUpper(proto))
			if !slices.Contains([]catalog.Protocol{catalog.TCP, catalog.UDP, catalog.SCTP}, p) {
				return exitWith(ExitUsage, "--protocol %q: want tcp, udp or sctp", proto)
			}
			w, err := a.loadVIPs(cmd.Context(), &o)
			if err != nil {
				return err
			}
			src, err := w.source(from)
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			t := w.trace(vip.Front{Addr: netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), Proto: p}, src)
			if o.format != formatTable {
				if err := writeObject(a.Out, o.format, t); err != nil {
					return err
				}
			} else if err := a.printVIPTrace(t, countHits(cmd.Context(), w)); err != nil {
				return err
			}
			switch t.Verdict {
			case verdictPass:
				return exitWith(ExitNotFound, "%s is no virtual IP", args[0])
			case verdictReject, verdictDrop:
				return exitWith(ExitNotReady, "the packet is %s", t.Verdict)
			}
			return nil
		},
	}
	o.flags(c)
	c.Flags().StringVar(&from, "from", "node", "where the packet comes from: node, pod, outside or an address")
	c.Flags().StringVar(&proto, "protocol", "tcp", "tcp, udp or sctp")
	return c
}

// source is where a packet comes from.
type source struct {
	Kind string     `json:"kind"` // node, pod or outside
	Addr netip.Addr `json:"address,omitzero"`
}

const (
	fromNode    = "node"
	fromPod     = "pod"
	fromOutside = "outside"
)

func (w *vipWorld) source(s string) (source, error) {
	switch s {
	case fromNode, fromPod, fromOutside:
		return source{Kind: s}, nil
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return source{}, fmt.Errorf("--from %q: want node, pod, outside or an address", s)
	}
	addr = addr.Unmap()
	switch {
	case addr.IsLoopback() || slices.Contains(w.Addresses, addr):
		return source{fromNode, addr}, nil
	case slices.ContainsFunc(w.Pods, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return source{fromPod, addr}, nil
	}
	return source{fromOutside, addr}, nil
}

// vipTrace is the shape of -o json of vip trace.
type vipTrace struct {
	Address    string        `json:"address"`
	Protocol   string        `json:"protocol"`
	From       source        `json:"from"`
	Node       string        `json:"node"`
	Mode       string        `json:"mode,omitempty"`
	Service    string        `json:"service,omitempty"`
	Steps      []packetStep  `json:"steps"`
	Verdict    string        `json:"verdict"`
	Masquerade bool          `json:"masquerade"`
	Backends   []backendItem `json:"backends,omitempty"`

	front *vip.Frontend
}

type packetStep struct {
	Where string `json:"where"` // the rule, map or chain; or what was asked
	What  string `json:"what"`
}

// Verdicts of a packet.
const (
	verdictForward = "forwarded"
	verdictReject  = "rejected"
	verdictDrop    = "dropped"
	verdictPass    = "not translated"
)

func (t *vipTrace) step(where, format string, args ...any) {
	t.Steps = append(t.Steps, packetStep{where, fmt.Sprintf(format, args...)})
}

func (w *vipWorld) trace(at vip.Front, src source) *vipTrace {
	t := &vipTrace{Address: at.Addr.String(), Protocol: string(at.Proto), From: src, Node: w.Node, Mode: w.Mode, Steps: []packetStep{}}
	r := rulesOf(w.Mode)
	t.step(r.entry(src.Kind), "a packet from %s", sourceText(src))
	f := w.table.Get(at)
	if f == nil && w.nodeAddress(at.Addr.Addr()) {
		any := netip.IPv4Unspecified()
		if at.Addr.Addr().Is6() {
			any = netip.IPv6Unspecified()
		}
		f = w.table.Get(vip.Front{Addr: netip.AddrPortFrom(any, at.Addr.Port()), Proto: at.Proto})
	}
	if f == nil {
		w.traceNothing(t, r, at)
		return t
	}
	t.front, t.Service = f, f.Service.String()
	for _, x := range w.conflicts {
		if x.Front == f.Front {
			t.step("conflict", "service %s asks for this address, too, and does not get it: %s has the stronger or older claim", x.Loser, x.Winner)
		}
	}
	if len(f.Sources) > 0 {
		allowed := src.Kind == fromNode && slices.ContainsFunc(w.Addresses, f.Allowed)
		if src.Addr.IsValid() {
			allowed = allowed || f.Allowed(src.Addr)
		}
		if !allowed {
			t.Verdict = verdictDrop
			t.step(r.guard(f), "loadBalancerSourceRanges let in %v only: drop", f.Sources)
			return t
		}
		t.step(r.guard(f), "loadBalancerSourceRanges let it in")
	}
	outside := src.Kind == fromOutside
	t.step(r.find(f, outside && f.LocalOnly), "%s %s of service %s%s", f.Scope, frontAddress(f), f.Service, portSuffix(f))
	list := f.For(outside)
	switch {
	case outside && f.LocalOnly:
		t.step("policy", "externalTrafficPolicy Local: endpoints of node %s only, and the client's address is kept", w.Node)
	case f.LocalOnly:
		t.step("policy", "externalTrafficPolicy Local does not bind traffic that starts in the cluster: all endpoints")
	}
	if e := w.snap.Get(f.Service); e != nil && e.Service.InternalLocal && f.Scope == vip.Cluster {
		t.step("policy", "internalTrafficPolicy Local: endpoints of node %s only", w.Node)
	}
	if len(list) == 0 {
		if len(f.Backends) > 0 {
			t.Verdict = verdictDrop
			t.step(r.refuse(f, true), "no endpoint is on this node, but others have some: drop, so that the sender tries another node")
		} else {
			t.Verdict = verdictReject
			t.step(r.refuse(f, false), "no endpoint is usable: reject ('fingerpost explain %s.%s' tells why)", f.Service.Name, f.Service.Namespace)
		}
		return t
	}
	why := w.masquerade(f, src)
	t.Masquerade = !strings.HasPrefix(why, "no: ")
	t.step(r.masquerade(w.Mode), "%s", why)
	if f.Affinity > 0 {
		t.step(r.affinity(), "session affinity: a client seen within %v goes where it went", f.Affinity)
	}
	t.Backends = backendItems(list, f, &hitCounts{})
	t.step(r.choose(len(list), f), "one of %s, at random by weight", plural(len(list), "endpoint"))
	if loopback := func(b vip.Backend) bool { return b.Addr.Addr().IsLoopback() }; w.Mode != server.ProxyUserspace && slices.ContainsFunc(list, loopback) {
		t.step("relay", "an endpoint on a loopback address is reached by way of the proxy, which connects to it from this machine")
	}
	t.Verdict = verdictForward
	return t
}

func (w *vipWorld) traceNothing(t *vipTrace, r rules, at vip.Front) {
	ip := at.Addr.Addr()
	var owner *vip.Frontend
	for f := range w.table.All() {
		if f.Scope == vip.Cluster && f.Addr.Addr() == ip && (owner == nil || f.Addr.Compare(owner.Addr) < 0) {
			owner = f
		}
	}
	switch {
	case owner != nil:
		t.Service, t.Verdict = owner.Service.String(), verdictReject
		t.step(r.undefined(), "service %s has this ClusterIP, but no port %d/%s: reject", owner.Service, at.Addr.Port(), at.Proto)
	case slices.ContainsFunc(w.Services, func(p netip.Prefix) bool { return p.Contains(ip) }):
		for e := range w.snap.All() {
			if slices.Contains(e.Service.ClusterIPs, ip) && e.Service.ProxyName != "" {
				t.Service, t.Verdict = e.Service.Key.String(), verdictPass
				t.step("services", "service %s is left to the proxy %s (label service.kubernetes.io/service-proxy-name)", e.Service.Key, e.Service.ProxyName)
				return
			}
		}
		t.Verdict = verdictDrop
		t.step(r.unallocated(), "an address for services that none has: drop")
	default:
		t.Verdict = verdictPass
		t.step("services", "no service has this address and port: it goes on unchanged")
	}
}

func (w *vipWorld) nodeAddress(a netip.Addr) bool {
	return slices.Contains(w.Addresses, a) || len(w.Addresses) == 0 && !a.IsLoopback() && w.Mode != server.ProxyUserspace
}

// masquerade says whether the client's address is replaced by the node's.
func (w *vipWorld) masquerade(f *vip.Frontend, src source) string {
	switch {
	case w.Mode == server.ProxyUserspace:
		return "always: the proxy itself connects to the endpoint"
	case src.Kind == fromOutside && f.LocalOnly:
		return "no: externalTrafficPolicy Local keeps the client's address"
	case f.Scope != vip.Cluster && !f.LocalOnly:
		return "yes: externalTrafficPolicy Cluster, so that the answer comes back through this node"
	case src.Kind == fromPod:
		return "no: a pod's address reaches every endpoint (but for a pod that reaches itself: hairpin)"
	case src.Kind == fromOutside:
		return "yes: it comes from outside the pods' ranges, so that the answer comes back through this node"
	case len(w.Pods) > 0 || src.Kind == fromNode:
		return "yes: it starts on the node, which is no pod"
	}
	return "no: the pods' ranges are not known"
}

func sourceText(s source) string {
	what := map[string]string{fromNode: "a process of this node", fromPod: "a pod", fromOutside: "outside the cluster"}[s.Kind]
	if s.Addr.IsValid() {
		what += ", " + s.Addr.String()
	}
	return what
}

func portSuffix(f *vip.Frontend) string {
	if f.Port == "" {
		return ""
	}
	return ", port " + f.Port
}

func (a *App) printVIPTrace(t *vipTrace, hits hitCounts) error {
	if t.front != nil && t.Backends != nil {
		for i, b := range t.Backends {
			if n, ok := hits.of(t.front, b.Address); ok {
				t.Backends[i].Hits = &n
			}
		}
	}
	mode := orElseText(t.Mode, "not known")
	fmt.Fprintf(a.Out, "%s/%s on node %s, mode %s\n", t.Address, t.Protocol, t.Node, mode)
	tab := table{}
	for i, s := range t.Steps {
		tab.row(fmt.Sprintf("  %d", i+1), s.Where, s.What)
	}
	if err := tab.write(a.Out); err != nil {
		return err
	}
	tab = table{}
	for _, b := range t.Backends {
		hits := ""
		if b.Hits != nil {
			hits = fmt.Sprintf("%d hits", *b.Hits)
		}
		tab.row("     -> "+b.Address, fmt.Sprintf("weight %d", b.Weight), fmt.Sprintf("%.1f %%", 100*b.Share), b.Target, b.Node, hits)
	}
	if err := tab.write(a.Out); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.Out, "The packet is %s.\n", t.Verdict)
	return err
}
