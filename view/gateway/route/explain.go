package route

import (
	"fmt"
	"slices"
	"strings"
)

// Step is one of the decisions on the way to a rule.
type Step struct {
	About  string `json:"about"` // host, path, rule or answer
	Text   string `json:"text"`
	Chosen bool   `json:"chosen,omitempty"`
	Rule   *Rule  `json:"-"`
}

// shown is up to how many rules Explain names that did not match by their path.
const shown = 20

// Explain says why a request goes where it does: which host decides, how its path
// is read, which rules were considered, in which order, and why they lost.
func (t *Table) Explain(q *Query) []Step {
	var out []Step
	say := func(about, format string, args ...any) {
		out = append(out, Step{About: about, Text: fmt.Sprintf(format, args...)})
	}
	e := t.find(q.Host)
	var buf [longest + 1]byte
	name := string(hostname(q.Host, &buf))
	switch {
	case e == nil:
		say("host", "no rules for host %q, for a wildcard above it, or for any host", name)
	case e.name == name && name != "":
		say("host", "%q has rules of its own; those of wildcards and of no host are not looked at", name)
	case e.name == "":
		say("host", "no rules for host %q or a wildcard above it; the rules without host decide", name)
	default:
		say("host", "%q falls under %q", name, e.name)
	}
	m := t.Match(q)
	if m.Refused != "" {
		say("answer", "400: %s", m.Refused)
		return out
	}
	came, _, _ := strings.Cut(string(q.Path), "?")
	switch {
	case m.Forward != nil && string(m.Forward) == string(m.Path):
		say("path", "%s is read as %s, and sent so", came, m.Path)
	case string(m.Path) != came:
		say("path", "%s is read as %s, and sent as it came", came, m.Path)
	}
	path := m.Path
	if len(path) == 0 || path[0] != '/' {
		path = []byte("/")
	}
	chosen := false
	others := 0
	for _, c := range e.ordered() {
		why := c.lost(q, path)
		step := Step{About: "rule", Rule: c.rule}
		switch {
		case why == "" && !chosen:
			chosen, step.Chosen = true, true
			step.Text = c.describe() + ": chosen"
		case why == "":
			step.Text = c.describe() + ": matches, but comes later"
		case !c.fits(path) && len(e.ordered()) > shown:
			others++
			continue
		default:
			step.Text = c.describe() + ": " + why
		}
		out = append(out, step)
	}
	if others > 0 {
		say("rule", "%d more rules of the host have other paths", others)
	}
	switch {
	case m.Rule == nil:
		say("answer", "404: no rule matches, and there is no default backend")
	case !chosen:
		say("answer", "no rule matches: the default backend %s", target(m.Rule))
	case m.Rule.Problem != "":
		say("answer", "503: %s", m.Rule.Problem)
	default:
		say("answer", "%s", target(m.Rule))
	}
	for i := 1; i <= m.Captures(); i++ {
		say("answer", "$%d is %q", i, m.Capture(i))
	}
	return out
}

// ordered gives the rules of a host, best first.
func (e *entry) ordered() []*compiled {
	if e == nil {
		return nil
	}
	x := e.peek()
	out := slices.Clone(x.all)
	for i := range x.list {
		out = append(out, &x.list[i])
	}
	slices.SortStableFunc(out, better)
	return out
}

func (c *compiled) fits(path []byte) bool {
	var s spans
	if c.kind == Regex {
		return c.pattern != nil && c.pattern.match(path, &s)
	}
	return c.matches(string(path))
}

// lost says why the rule does not take the request; "": it would.
func (c *compiled) lost(q *Query, path []byte) string {
	switch {
	case c.kind == Regex && c.pattern == nil:
		return "its regular expression is broken"
	case !c.fits(path):
		return "another path"
	case c.conditions == nil:
		return ""
	}
	if m, ok := c.conditions.hold(q); ok {
		return ""
	} else if m != nil {
		return "not met: " + m.String()
	}
	return fmt.Sprintf("the method is %s", q.Method)
}

func (c *compiled) describe() string {
	return c.rule.Origin.String() + " " + c.rule.Path.String()
}

// String gives the origin as "ingress default/web rule 0".
func (o Origin) String() string {
	s := o.Kind
	if o.Name != "" {
		s += " " + o.Namespace + "/" + o.Name
	}
	if o.Rule >= 0 {
		s += fmt.Sprintf(" rule %d", o.Rule)
	}
	return s
}

// String names the kind.
func (k PathKind) String() string {
	return [...]string{Prefix: "Prefix", Exact: "Exact", Regex: "Regex", StringPrefix: "StringPrefix"}[k]
}

// String gives kind and value.
func (p Path) String() string { return p.Kind.String() + " " + p.Value }

// String says what must hold.
func (m ValueMatch) String() string {
	not := ""
	if m.Not {
		not = "not "
	}
	switch {
	case m.Regex != nil:
		return fmt.Sprintf("%s%s matches %s", not, m.Name, m.Regex)
	case m.Present:
		return not + m.Name + " is there"
	}
	return fmt.Sprintf("%s%s is %q", not, m.Name, m.Value)
}

// String gives the backend as "namespace/service:port".
func (b Backend) String() string {
	if b.External != "" {
		return b.External
	}
	s := b.Service.String()
	if b.Port != "" {
		s += ":" + b.Port
	}
	return s
}

// target says where a rule leads.
func target(r *Rule) string {
	if r.Redirect != nil {
		return fmt.Sprintf("%d to %s", r.Redirect.Status, r.Redirect.URL)
	}
	if len(r.Backends) == 0 {
		return "503: no backend"
	}
	var parts []string
	for _, b := range r.Backends {
		s := b.String()
		if len(r.Backends) > 1 {
			s += fmt.Sprintf(" (weight %d)", b.Weight)
		}
		parts = append(parts, s)
	}
	for _, c := range r.Canaries {
		for _, b := range c.Backends {
			parts = append(parts, b.String()+" (canary)")
		}
	}
	return strings.Join(parts, ", ")
}
