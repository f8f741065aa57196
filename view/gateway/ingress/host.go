package ingress

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// composed is a host as all its Ingresses make it.
type composed struct {
	host     *route.Host // nil: nobody has rules for it
	secret   catalog.Key // whose certificate it shows; zero: the default one
	problems []Problem
}

// older orders Ingresses: the first has what several claim.
func older(a, b *networkingv1.Ingress) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// compose makes a host of the drafts that name it, which are ordered by age.
// with gives those of another host.
func (t *translator) compose(name string, drafts []*draft, with func(string) []*draft) composed {
	var out composed
	claimed := false
	for _, d := range drafts {
		claimed = claimed || !d.r.IsCanary && slices.ContainsFunc(d.claims, func(c claim) bool { return c.host == name })
	}
	if !claimed {
		t.composeOther(name, drafts, with, &out)
		for _, d := range drafts {
			for i := range d.claims {
				if c := &d.claims[i]; c.host == name && d.r.IsCanary && !c.fallback {
					out.warn(d, ReasonCanary, "no other Ingress has host %q, path %q with the same path type: the canary has no effect", name, c.path)
				}
			}
		}
	} else {
		out.host = t.composeRules(name, drafts, &out.problems)
		for _, d := range drafts {
			if slices.Contains(d.r.Aliases, name) && !slices.ContainsFunc(d.claims, func(c claim) bool { return c.host == name }) {
				out.warn(d, ReasonConflict, "%s/server-alias: the host %s has an Ingress of its own and is not an alias", t.o.Prefix, name)
			}
		}
	}
	covered := t.certificate(name, drafts, &out)
	if out.host != nil {
		out.host.TLS = covered
	}
	return out
}

func (c *composed) warn(d *draft, reason, format string, args ...any) {
	n := len(d.problems)
	d.warn(reason, format, args...)
	c.problems = append(c.problems, d.problems[n])
	d.problems = d.problems[:n:n]
}

// composeOther makes a host that is there for the sake of another one: an
// alias, or the www of it.
func (t *translator) composeOther(name string, drafts []*draft, with func(string) []*draft, out *composed) {
	main := func(d *draft) string {
		for i := range d.claims {
			if h := d.claims[i].host; h != "" && h != name {
				return h
			}
		}
		return ""
	}
	for _, d := range drafts {
		if h := main(d); h != "" && !d.r.IsCanary && slices.Contains(d.r.Aliases, name) {
			var none []Problem
			out.host = t.composeRules(h, with(h), &none)
			out.host.Name = name
			return
		}
	}
	for _, d := range drafts {
		if d.r.IsCanary || !d.r.WWW {
			continue
		}
		other := otherWWW(name)
		i := slices.IndexFunc(d.claims, func(c claim) bool { return c.host == other })
		if i < 0 {
			continue
		}
		p := *t.policy
		p.SSLRedirect = false
		out.host = &route.Host{Name: name, Rules: []route.Rule{{
			Origin: origin(d, d.claims[i].n), Path: route.Path{Kind: route.Prefix, Value: "/"}, Policy: &p,
			Redirect: &route.Redirect{Status: 308, URL: "$scheme://" + other + "$request_uri"},
		}}}
		return
	}
}

func origin(d *draft, n int) route.Origin {
	return route.Origin{Kind: "Ingress", Namespace: d.key.Namespace, Name: d.key.Name, Rule: n}
}

// place is what two rules cannot both have.
type place struct {
	kind route.PathKind
	path string
}

func (t *translator) composeRules(name string, drafts []*draft, problems *[]Problem) *route.Host {
	h := &route.Host{Name: name}
	regex := false
	for _, d := range drafts {
		regex = regex || d.regex && !d.r.IsCanary && slices.ContainsFunc(d.claims, func(c claim) bool { return c.host == name })
	}
	warn := func(d *draft, reason, format string, args ...any) {
		var c composed
		c.warn(d, reason, format, args...)
		*problems = append(*problems, c.problems...)
	}
	taken := map[place]int{} // the index of the rule
	var clientOf *draft
	pass := func(canaries, fallbacks bool) {
		for _, d := range drafts {
			if d.r.IsCanary != canaries {
				continue
			}
			for i := range d.claims {
				c := &d.claims[i]
				if c.host != name || c.fallback != fallbacks {
					continue
				}
				p, ok := t.path(d, c, regex, warn)
				if !ok {
					continue
				}
				key := placeOf(p)
				at, there := taken[key]
				switch {
				case canaries:
					t.addCanary(h, d, c, at, there, name, warn)
				case !there:
					taken[key] = len(h.Rules)
					h.Rules = append(h.Rules, t.rule(d, c, p))
				case fallbacks:
				case h.Rules[at].Origin.Namespace == d.key.Namespace && h.Rules[at].Origin.Name == d.key.Name:
					warn(d, ReasonConflict, "the Ingress has host %q, path %q twice; the first one holds", name, c.path)
				default:
					warn(d, ReasonConflict, "host %q, path %q belongs to the older Ingress %s/%s; this one's rule has no effect", name, c.path, h.Rules[at].Origin.Namespace, h.Rules[at].Origin.Name)
				}
			}
			if canaries || fallbacks || !slices.ContainsFunc(d.claims, func(c claim) bool { return c.host == name }) {
				continue
			}
			t.hostWide(h, d, name, &clientOf, warn)
		}
	}
	pass(false, false)
	pass(false, true)
	pass(true, false)
	return h
}

func placeOf(p route.Path) place {
	k := place{p.Kind, p.Value}
	if p.Kind == route.StringPrefix {
		k.kind = route.Prefix
	}
	if k.kind == route.Prefix && len(k.path) > 1 {
		k.path = strings.TrimSuffix(k.path, "/")
	}
	return k
}

// hostWide is what an Ingress says for the host and not for a path.
func (t *translator) hostWide(h *route.Host, d *draft, name string, clientOf **draft, warn func(*draft, string, string, ...any)) {
	if d.client != nil {
		switch {
		case h.ClientCert == nil:
			h.ClientCert, *clientOf = d.client, d
		case (*clientOf).r.TLSSecret != d.r.TLSSecret || (*clientOf).key.Namespace != d.key.Namespace:
			warn(d, ReasonConflict, "%s/auth-tls-secret of host %q is that of the older Ingress %s; client certificates are asked for by host", t.o.Prefix, name, (*clientOf).key)
		}
	}
	if d.r.Passthrough && h.Passthrough == nil {
		for i := range d.claims {
			if c := &d.claims[i]; c.host == name && c.path == "/" && c.backend != nil {
				h.Passthrough = c.backend
			}
		}
		if h.Passthrough == nil {
			warn(d, ReasonAnnotation, "%s/ssl-passthrough: host %q has no path / with a Service that TLS could be carried to; it has no effect", t.o.Prefix, name)
		}
	}
}

// path gives the path of a rule; host-wide, regular expressions or not.
func (t *translator) path(d *draft, c *claim, regex bool, warn func(*draft, string, string, ...any)) (route.Path, bool) {
	if !regex {
		if !strings.HasPrefix(c.path, "/") {
			warn(d, ReasonPath, "path %q of host %q does not begin with /; the rule has no effect", c.path, c.host)
			return route.Path{}, false
		}
		return route.Path{Kind: c.kind, Value: c.path}, true
	}
	re, err := route.CompileRegex(c.path)
	if err != nil && !d.regex {
		// Another Ingress of the host made this one an expression.
		value := regexp.QuoteMeta(c.path)
		if re, err = route.CompileRegex(value); err == nil {
			return route.Path{Kind: route.Regex, Value: value, Regex: re}, true
		}
	}
	if err != nil {
		warn(d, ReasonPath, "path %q of host %q is no regular expression (RE2): %s; the rule has no effect", c.path, c.host, strings.TrimPrefix(err.Error(), "route: "))
		return route.Path{}, false
	}
	return route.Path{Kind: route.Regex, Value: c.path, Regex: re}, true
}

func (t *translator) rule(d *draft, c *claim, p route.Path) route.Rule {
	r := route.Rule{Origin: origin(d, c.n), Path: p, Policy: d.policy, Redirect: d.redirect, Problem: c.problem}
	if c.backend != nil {
		r.Backends = []route.Backend{*c.backend}
	}
	if d.redirect != nil {
		r.Problem = "" // nothing goes to the backend
	}
	if d.closed != "" {
		r.Problem, r.Redirect = d.closed, nil
	}
	return r
}

func (t *translator) addCanary(h *route.Host, d *draft, c *claim, at int, there bool, name string, warn func(*draft, string, string, ...any)) {
	switch {
	case !there:
		warn(d, ReasonCanary, "no other Ingress has host %q, path %q with the same path type: the canary has no effect", name, c.path)
		return
	case c.backend == nil:
		return // told already
	case d.closed != "":
		return
	}
	rule := &h.Rules[at]
	if len(rule.Canaries) > 0 {
		o := rule.Canaries[0].Origin
		warn(d, ReasonCanary, "host %q, path %q has the canary %s/%s already; this one has no effect", name, c.path, o.Namespace, o.Name)
		return
	}
	can := d.r.Canary
	can.Origin, can.Backends = origin(d, c.n), []route.Backend{*c.backend}
	if b := d.r.Policy.Balance; b != (route.Balance{}) {
		p := *rule.Policy
		p.Balance = b
		can.Policy = &p
	}
	if how := d.r.Affinity.Canary; how != "" && rule.Policy.Affinity != nil {
		// It is said on the canary and holds for the rule.
		p, a := *rule.Policy, *rule.Policy.Affinity
		a.Canary = how
		p.Affinity = &a
		rule.Policy = &p
		if can.Policy != nil {
			can.Policy.Affinity = &a
		}
	}
	rule.Canaries = append(rule.Canaries, can)
}

// matchesHost says whether a name of a certificate or of spec.tls is for a host.
func matchesHost(pattern, host string) bool {
	pattern = strings.ToLower(pattern)
	if pattern == host {
		return true
	}
	rest, ok := strings.CutPrefix(pattern, "*.")
	_, parent, dotted := strings.Cut(host, ".")
	return ok && dotted && rest == parent && !strings.HasPrefix(host, "*.")
}

// certificate finds the Secret for a host and says whether spec.tls covers it.
func (t *translator) certificate(name string, drafts []*draft, out *composed) (covered bool) {
	// Who has rules for the host goes before who only names it in spec.tls.
	claims := func(d *draft) bool {
		return slices.ContainsFunc(d.claims, func(c claim) bool { return c.host == name })
	}
	order := slices.Clone(drafts)
	slices.SortStableFunc(order, func(a, b *draft) int {
		switch x, y := claims(a), claims(b); {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	})
	for _, d := range order {
		if d.r.IsCanary {
			continue
		}
		for i := range d.in.Spec.TLS {
			e := &d.in.Spec.TLS[i]
			k := catalog.Key{Namespace: d.key.Namespace, Name: e.SecretName}
			if len(e.Hosts) > 0 && !slices.ContainsFunc(e.Hosts, func(p string) bool { return matchesHost(p, name) }) {
				continue
			}
			if e.SecretName == "" { // the default certificate, by wish
				covered = true
				continue
			}
			c, why := t.keyPair(k)
			if len(e.Hosts) == 0 && (why != "" || !c.covers(name)) {
				continue // without hosts it is for those that it names
			}
			covered = true
			if why != "" {
				out.warn(d, ReasonCertificate, "host %q is shown the default certificate: %s", name, why)
				continue
			}
			if !c.covers(name) {
				out.warn(d, ReasonCertificate, "host %q is shown the default certificate: that of the Secret %s is for %s", name, k, c.names())
				continue
			}
			if w := c.dates(t.o.Now()); w != "" {
				out.warn(d, ReasonExpires, "the certificate of the Secret %s for host %q %s", k, name, w)
			}
			if out.secret == (catalog.Key{}) {
				out.secret = k
			}
		}
	}
	if covered || name == "" {
		return covered
	}
	for _, d := range drafts {
		if !d.r.IsCanary && len(d.in.Spec.TLS) > 0 && claims(d) {
			out.warn(d, ReasonTLS, "host %q is in spec.rules and not in spec.tls[].hosts: it is shown the default certificate, and http is not redirected to https; add it to spec.tls[].hosts with a certificate", name)
		}
	}
	return false
}

func (p Problem) String() string {
	return fmt.Sprintf("%s %s/%s: %s: %s", p.Type, p.Namespace, p.Name, p.Reason, p.Message)
}
