package route

import (
	"cmp"
	"slices"
	"strings"
)

// Description is one row of the table, for people.
type Description struct {
	Host       string   `json:"host"` // "*": every host
	Kind       string   `json:"kind"`
	Path       string   `json:"path"`
	Conditions []string `json:"conditions,omitempty"`
	Target     string   `json:"target"`
	Origin     string   `json:"origin"`
	TLS        bool     `json:"tls,omitempty"`
	Problem    string   `json:"problem,omitempty"`
}

// Describe lists all rules: hosts by name, wildcards and the host "" last, and
// in each the rules in the order in which they are tried.
func (t *Table) Describe() []Description {
	var out []Description
	for _, e := range t.entries() {
		h := e.host
		if h.Passthrough != nil {
			out = append(out, Description{Host: star(h.Name), Kind: "TLS", Path: "passthrough", Target: h.Passthrough.String(), TLS: true})
		}
		for _, c := range e.ordered() {
			out = append(out, describeRule(h, c.rule))
		}
	}
	if t != nil && t.fallback != nil {
		r := &t.fallback.host.Rules[0]
		out = append(out, Description{Host: "*", Kind: "Default", Path: "/", Target: target(r), Origin: r.Origin.String()})
	}
	return out
}

func describeRule(h *Host, r *Rule) Description {
	d := Description{Host: star(h.Name), Kind: r.Path.Kind.String(), Path: r.Path.Value, Target: target(r), Origin: r.Origin.String(), TLS: h.TLS, Problem: r.Problem}
	if r.Method != "" {
		d.Conditions = append(d.Conditions, "method is "+r.Method)
	}
	for _, m := range r.Headers {
		d.Conditions = append(d.Conditions, "header "+m.String())
	}
	for _, m := range r.Query {
		d.Conditions = append(d.Conditions, "parameter "+m.String())
	}
	return d
}

func star(name string) string {
	if name == "" {
		return "*"
	}
	return name
}

// Hosts lists the hosts in the order of Describe.
func (t *Table) Hosts() []*Host {
	var out []*Host
	for _, e := range t.entries() {
		out = append(out, e.host)
	}
	return out
}

// All gives the hosts in no order.
func (t *Table) All(yield func(*Host) bool) {
	for e := range t.each {
		if !yield(e.host) {
			return
		}
	}
}

// Len is how many hosts there are.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	if t.any != nil {
		return t.count + 1
	}
	return t.count
}

// each gives all entries in no order.
func (t *Table) each(yield func(*entry) bool) {
	if t == nil || t.any != nil && !yield(t.any) || t.shards == nil {
		return
	}
	for i := range t.shards {
		for _, e := range t.shards[i].slots {
			if e != nil && !yield(e) {
				return
			}
		}
	}
}

// Global gives what is not of a host; nil: nothing was said.
func (t *Table) Global() *Global {
	if t == nil {
		return nil
	}
	return t.global
}

func (t *Table) entries() []*entry {
	if t == nil {
		return nil
	}
	var out []*entry
	for e := range t.each {
		if e != t.any {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int {
		wa, wb := strings.HasPrefix(a.name, "*."), strings.HasPrefix(b.name, "*.")
		if wa != wb {
			if wb {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	if t.any != nil {
		out = append(out, t.any)
	}
	return out
}

// Shadow is a rule that can never match, because another one takes all that it
// would take.
type Shadow struct {
	Rule int // its place in Host.Rules
	By   int // that of the other one
}

// Shadowed tells which rules can never match: another rule of the host has the
// same path and the same or no conditions, and comes first.
func (h *Host) Shadowed() []Shadow {
	type path struct {
		kind  PathKind
		value string
	}
	seen := make(map[path][]int, len(h.Rules))
	var out []Shadow
	for i := range h.Rules {
		r := &h.Rules[i]
		p := path{r.Path.Kind, r.Path.Value}
		if p.kind != Regex {
			p.value = rulePath(p.kind, p.value)
		}
		shadowed := false
		for _, j := range seen[p] {
			if sameConditions(&h.Rules[j], r) {
				out, shadowed = append(out, Shadow{Rule: i, By: j}), true
				break
			}
		}
		if !shadowed {
			seen[p] = append(seen[p], i)
		}
	}
	return out
}

func sameConditions(a, b *Rule) bool {
	return a.Method == b.Method && sameMatches(a.Headers, b.Headers, strings.EqualFold) &&
		sameMatches(a.Query, b.Query, func(x, y string) bool { return x == y })
}

// sameMatches compares conditions without regard to their order.
func sameMatches(a, b []ValueMatch, name func(x, y string) bool) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.ContainsFunc(b, func(y ValueMatch) bool {
			if (x.Regex == nil) != (y.Regex == nil) || x.Regex != nil && x.Regex.String() != y.Regex.String() {
				return false
			}
			return name(x.Name, y.Name) && x.Value == y.Value && x.Present == y.Present && x.Not == y.Not
		}) {
			return false
		}
	}
	return true
}
