package dns

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/catalog"
)

// Explanation says what is answered to a question and why. It comes from the
// answering itself, so that it cannot differ from what clients get.
type Explanation struct {
	Name    string   `json:"name"` // fully qualified
	Type    string   `json:"type"`
	Rcode   string   `json:"rcode"`
	Rule    string   `json:"rule"`              // which rule answers, for a person
	Service string   `json:"service,omitempty"` // namespace/name, if one is concerned
	Answer  []string `json:"answer,omitempty"`  // records in zone file form
	// Endpoints of the service, those that are not named with the reason.
	Endpoints []ExplainedEndpoint `json:"endpoints,omitempty"`
	// From is the registration that the answer, or its absence, comes from.
	From *Registration `json:"from,omitempty"`
	// Target explains the name of the zone that an alias leads to.
	Target *Explanation `json:"target,omitempty"`
}

// ExplainedEndpoint is an endpoint and whether DNS names it.
type ExplainedEndpoint struct {
	Addr   netip.Addr    `json:"addr"`
	Name   string        `json:"name"` // its label below the service
	In     bool          `json:"in"`
	Why    string        `json:"why,omitempty"` // why it is out
	State  catalog.State `json:"state,omitempty"`
	Reason string        `json:"reason,omitempty"`
	By     string        `json:"by,omitempty"`
	Since  time.Time     `json:"since,omitzero"`
	Origin string        `json:"origin,omitempty"`
	Node   string        `json:"node,omitempty"`
	Kind   string        `json:"kind,omitempty"`   // of the object behind it: Pod, Instance
	Object string        `json:"object,omitempty"` // its name
	Weight uint16        `json:"weight"`
	Ports  []string      `json:"ports,omitempty"` // name:number/protocol
}

// Explain answers a question, with reasons. The type is "A", "SRV" …; "" is A.
// The name is taken as complete, with or without a dot at its end.
func (s *Server) Explain(ctx context.Context, name, qtype string) (Explanation, error) {
	return s.explain(ctx, name, qtype, 0)
}

func (s *Server) explain(ctx context.Context, name, qtype string, depth int) (Explanation, error) {
	qtype = cmp.Or(strings.ToUpper(qtype), "A")
	typ, ok := miekg.StringToType[qtype]
	if !ok {
		return Explanation{}, fmt.Errorf("view/dns: explain %s: %q is no record type: try A, AAAA, SRV, PTR, CNAME or TXT", name, qtype)
	}
	if a, err := netip.ParseAddr(name); err == nil {
		name, _ = miekg.ReverseAddr(a.String())
		typ, qtype = miekg.TypePTR, "PTR"
	}
	e := Explanation{Name: miekg.Fqdn(name), Type: qtype}
	var req miekg.Msg
	req.SetQuestion(e.Name, typ)
	wire, err := req.Pack()
	if err != nil {
		return e, fmt.Errorf("view/dns: explain %s: it is no domain name: %w", name, err)
	}
	resp, f := s.resolve(ctx, wire)
	var m miekg.Msg
	if err := m.Unpack(resp); err != nil {
		return e, fmt.Errorf("view/dns: explain %s: the answer cannot be read: %w", name, err)
	}
	e.Rcode = rcodeName(m.Rcode)
	for _, rr := range m.Answer {
		e.Answer = append(e.Answer, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	e.Rule = s.explainRule(&f)
	if f.entry != nil {
		e.Service = f.entry.owner.key.String()
		e.Endpoints = s.explainEndpoints(f.entry)
		e.From = register(f.entry.source)
		if f.rule == ruleExternal && depth < maxChain && s.index.holds(f.entry.target) && text(f.entry.target) != strings.ToLower(e.Name) {
			target, err := s.explain(ctx, text(f.entry.target), qtype, depth+1)
			if err != nil {
				return e, err
			}
			e.Target = &target
		}
	}
	return e, nil
}

func (s *Server) explainEndpoints(e *entry) []ExplainedEndpoint {
	if e.kind == external {
		return nil
	}
	var all []ExplainedEndpoint
	for i := range e.source.Endpoints {
		ep := &e.source.Endpoints[i]
		why := s.index.build.out(e.source.Service, ep)
		all = append(all, ExplainedEndpoint{
			Addr: ep.Addr, Name: endpointLabel(ep), In: why == "", Why: why,
			State: ep.Health.State, Reason: ep.Health.Reason, By: ep.Health.By, Since: ep.Health.Since,
			Origin: ep.Origin, Node: ep.Node, Kind: ep.Target.Kind, Object: ep.Target.Name,
			Weight: ep.Weight, Ports: explainPorts(ep),
		})
	}
	slices.SortStableFunc(all, func(a, b ExplainedEndpoint) int { return a.Addr.Compare(b.Addr) })
	return all
}

// explainRule puts a rule into words.
func (s *Server) explainRule(f *finding) string {
	var key, external string
	if f.entry != nil {
		key, external = f.entry.owner.key.String(), f.entry.source.Service.ExternalName
	}
	switch f.rule {
	case ruleApex:
		return "the zone itself: it has SOA and NS records only"
	case ruleTree:
		return "a name that only has names below it"
	case ruleSchema:
		return "the version of the Kubernetes DNS specification"
	case ruleNameserver:
		return "this name server's own address"
	case ruleVirtual:
		return "service " + key + ": its cluster IPs, whatever its endpoints do"
	case ruleHeadless:
		return "headless service " + key + ": the addresses of its endpoints that are in"
	case ruleExternal:
		if f.next != "" && !s.forwards() {
			return "service " + key + " stands for " + external + "; no upstream is configured to resolve that"
		}
		return "service " + key + " stands for " + external
	case ruleEndpoint:
		return "an endpoint of service " + key
	case rulePort, rulePortTree:
		return "a named port of service " + key
	case rulePod:
		return "an address spelled as a pod's name: true for any address in a namespace that exists"
	case rulePTRService:
		return "the cluster IP of service " + key
	case rulePTREndpoint:
		return "the address of an endpoint of service " + key
	case ruleCustom:
		return "a custom record of this server's configuration"
	case ruleAutopath:
		return "the first name that exists on the search list of a client in that namespace"
	case ruleElsewhere:
		if s.forwards() {
			return "not in zone " + text(s.index.zone) + " and no address of the cluster: an upstream's answer"
		}
		return "not in zone " + text(s.index.zone) + " and no address of the cluster; no upstream is configured"
	case ruleTransfer:
		return "zone transfers are not allowed"
	}
	why := "the question is not one that this server answers"
	switch f.rule {
	case ruleNoName:
		return "no name of this form exists in the zone"
	case ruleNoNamespace:
		why = "there is no such namespace"
	case ruleNoService:
		why = "there is no such service in that namespace"
	case ruleNotReady:
		why = "headless service " + key + " has no endpoint that is in, so that its name does not exist"
	case ruleNoEndpoint:
		why = "no endpoint of service " + key + " that is in has this name"
	case ruleUnverified:
		why = "no endpoint that is in, of a service in that namespace, has this address, or names of pods are switched off"
	case ruleNoPort:
		why = "service " + key + " has no port of this name and protocol"
	case ruleReverseUnsynced:
		why = "the address is not known"
	}
	if f.rcode == rcodeServFail {
		why += " so far; the catalog is not complete yet, so it may come"
	}
	return why
}

// String is the explanation for a terminal.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n  %s\n", e.Name, e.Type, e.Rcode, e.Rule)
	for _, a := range e.Answer {
		fmt.Fprintf(&b, "  %s\n", a)
	}
	for _, ep := range e.Endpoints {
		state := "in"
		if !ep.In {
			state = "out: " + ep.Why
		}
		fmt.Fprintf(&b, "  endpoint %s %s", ep.Addr, state)
		if ep.State != "" && ep.State != catalog.Unknown {
			fmt.Fprintf(&b, " (%s", ep.State)
			if ep.By != "" {
				fmt.Fprintf(&b, ", says %s", ep.By)
			}
			if ep.Reason != "" {
				fmt.Fprintf(&b, ": %s", ep.Reason)
			}
			b.WriteString(")")
		}
		b.WriteString("\n")
	}
	return b.String()
}
