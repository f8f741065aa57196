package route

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// few is up to how many rules of a host are simply tried one after the other.
// Measured: the tree is as fast from about six on.
const few = 8

// compiled is a rule, ready to be matched.
type compiled struct {
	path       string // as rulePath makes it; the text of a Regex
	kind       PathKind
	conditions *conditions
	pattern    *pattern // of a Regex; nil: none that works
	rule       *Rule
	data       any
}

// entry is a host in the table.
type entry struct {
	name string
	hash uint64
	from *Host // as it was given
	host *Host // with the name that it is found by
	made atomic.Pointer[index]
}

// index is a host, ready to be matched.
type index struct {
	host *Host      // every rule has a policy
	list []compiled // a host with few rules: all, best first
	// A host with many:
	all     []*compiled // in the order of the host
	root    *node       // all but Regex
	regexes []*compiled // best first
}

// index gives what matching needs. That of hosts with few rules is made when
// the first request comes: most hosts of a large table do not see one for long.
func (e *entry) index(compile func(*Host, *Rule) any) *index {
	if x := e.made.Load(); x != nil {
		return x
	}
	return e.prepare(nil, compile)
}

// peek is index for those who only want to look.
func (e *entry) peek() *index {
	if x := e.made.Load(); x != nil {
		return x
	}
	return newIndex(e.host, nil, nil)
}

func (e *entry) prepare(old *entry, compile func(*Host, *Rule) any) *index {
	var before *index
	if old != nil {
		before = old.made.Load()
	}
	e.made.CompareAndSwap(nil, newIndex(e.host, before, compile))
	return e.made.Load()
}

// newIndex prepares a host. What old has of the same rules is taken over.
func newIndex(h *Host, old *index, compile func(*Host, *Rule) any) *index {
	e := &index{host: complete(h)}
	rules := e.host.Rules
	if len(rules) <= few {
		e.list = make([]compiled, len(rules))
		for i := range rules {
			e.list[i].prepare(e.host, &rules[i], compile)
		}
		if len(e.list) > 1 {
			slices.SortStableFunc(e.list, func(a, b compiled) int { return better(&a, &b) })
		}
		return e
	}
	e.many(old, compile)
	return e
}

// many indexes a host with many rules. What is taken over from before is told
// by comparing rules from both ends, as most changes are of one object's.
func (e *index) many(old *index, compile func(*Host, *Rule) any) {
	rules := e.host.Rules
	e.all = make([]*compiled, len(rules))
	if old == nil || old.all == nil || !sameHost(old.host, e.host) {
		e.afresh(compile)
		return
	}
	head, tail := 0, 0
	for head < min(len(rules), len(old.all)) && sameRule(old.all[head].rule, &rules[head]) {
		e.all[head] = old.all[head]
		head++
	}
	for tail < min(len(rules), len(old.all))-head && sameRule(old.all[len(old.all)-1-tail].rule, &rules[len(rules)-1-tail]) {
		e.all[len(rules)-1-tail] = old.all[len(old.all)-1-tail]
		tail++
	}
	gone, fresh := old.all[head:len(old.all)-tail], e.all[head:len(rules)-tail]
	if len(gone)+len(fresh) > len(rules)/4 {
		e.afresh(compile)
		return
	}
	bare := e.bare()
	for i := range fresh {
		// A copy, so that a rule that stays through many changes does not keep the
		// hosts of all of them.
		r := rules[head+i]
		fresh[i] = new(compiled)
		fresh[i].prepare(bare, &r, compile)
	}
	e.root, e.regexes = old.root, old.regexes
	e.place(gone, fresh)
}

// bare is the host without its rules, for rules that outlive it.
func (e *index) bare() *Host {
	h := *e.host
	h.Rules = nil
	return &h
}

// afresh indexes all rules.
func (e *index) afresh(compile func(*Host, *Rule) any) {
	rules, bare := e.host.Rules, e.bare()
	all := make([]compiled, len(rules))
	for i := range rules {
		all[i].prepare(bare, &rules[i], compile)
		e.all[i] = &all[i]
	}
	ed := new(edition)
	var again []*node
	for i, c := range e.all {
		if c.kind == Regex {
			e.regexes = append(e.regexes, c)
			continue
		}
		var n *node
		if e.root != nil {
			n = e.root.at(c.path)
		}
		if n == nil || len(n.rules) == 0 {
			e.root = e.root.set(ed, c.path, e.all[i:i+1:i+1])
			continue
		}
		n.rules = append(n.rules, c)
		if len(n.rules) == 2 {
			again = append(again, n)
		}
	}
	for _, n := range again {
		slices.SortStableFunc(n.rules, better)
	}
	slices.SortStableFunc(e.regexes, better)
}

// place brings the tree and the expressions up to date with what is gone and
// what is new.
func (e *index) place(gone, fresh []*compiled) {
	touched := make(map[string][]*compiled, len(fresh))
	expressions := false
	for _, c := range gone {
		if c.kind == Regex {
			expressions = true
		} else {
			touched[c.path] = nil
		}
	}
	for _, c := range fresh {
		if c.kind == Regex {
			expressions = true
		} else {
			touched[c.path] = nil
		}
	}
	if expressions {
		e.regexes = nil
		for _, c := range e.all {
			if c.kind == Regex {
				e.regexes = append(e.regexes, c)
			}
		}
		slices.SortStableFunc(e.regexes, better)
	}
	if len(touched) == 0 {
		return
	}
	var lengths [64]bool // to look few up in the map
	for path := range touched {
		lengths[len(path)%len(lengths)] = true
	}
	for _, c := range e.all {
		if !lengths[len(c.path)%len(lengths)] || c.kind == Regex {
			continue
		}
		if l, ok := touched[c.path]; ok {
			touched[c.path] = append(l, c)
		}
	}
	ed := new(edition)
	for path, rules := range touched {
		if len(rules) > 1 {
			slices.SortStableFunc(rules, better)
		}
		e.root = e.root.set(ed, path, rules)
	}
}

func (c *compiled) prepare(h *Host, r *Rule, compile func(*Host, *Rule) any) {
	c.rule, c.kind, c.conditions = r, r.Path.Kind, compileConditions(r)
	if c.kind == Regex {
		c.path, c.pattern = r.Path.Value, compilePattern(&r.Path)
	} else {
		c.path = rulePath(c.kind, r.Path.Value)
	}
	if compile != nil {
		c.data = compile(h, r)
	}
}

// better is the order in which rules are tried: Exact, expressions, prefixes;
// among each the longer path first, then the one with more conditions.
func better(a, b *compiled) int {
	return cmp.Or(
		cmp.Compare(a.rank(), b.rank()),
		cmp.Compare(len(b.path), len(a.path)),
		cmp.Compare(b.kind2(), a.kind2()),
		cmp.Compare(b.conditions.number(), a.conditions.number()),
	)
}

func (c *compiled) rank() int {
	switch c.kind {
	case Exact:
		return 0
	case Regex:
		return 1
	}
	return 2
}

// kind2 puts a prefix of elements, which says more, before one of text of the
// same length.
func (c *compiled) kind2() int {
	if c.kind == Prefix {
		return 1
	}
	return 0
}

func (c *conditions) number() int {
	if c == nil {
		return 0
	}
	return c.count
}

// matches says whether the path, and nothing else, fits.
func (c *compiled) matches(path string) bool {
	switch c.kind {
	case Exact:
		return path == c.path
	case Prefix:
		n := len(c.path)
		return len(path) >= n && path[:n] == c.path && (len(path) == n || path[n] == '/')
	case StringPrefix:
		return len(path) >= len(c.path) && path[:len(c.path)] == c.path
	}
	return false
}

// sameHost says that what is compiled for the rules of one is right for the
// other.
func sameHost(a, b *Host) bool {
	return a.Name == b.Name && a.TLS == b.TLS && a.ClientCert == b.ClientCert && a.Passthrough == b.Passthrough
}

// sameRule says that two rules are the same without looking behind pointers: a
// source that keeps the parts of a rule gets its compiled form kept.
func sameRule(a, b *Rule) bool {
	return a.Policy == b.Policy && a.Path == b.Path && a.Origin == b.Origin && a.Method == b.Method &&
		a.Redirect == b.Redirect && a.Problem == b.Problem && same(a.Backends, b.Backends) &&
		same(a.Headers, b.Headers) && same(a.Query, b.Query) &&
		(len(a.Canaries) == 0 && len(b.Canaries) == 0 || slices.EqualFunc(a.Canaries, b.Canaries, sameCanary))
}

// same compares slices, most of which share their memory.
func same[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func sameCanary(a, b Canary) bool {
	x, y := a, b
	x.Backends, y.Backends = nil, nil
	return slices.Equal(a.Backends, b.Backends) && x.Origin == y.Origin && x.Policy == y.Policy && x.Header == y.Header &&
		x.HeaderValue == y.HeaderValue && x.HeaderPattern == y.HeaderPattern && x.Cookie == y.Cookie && x.Weight == y.Weight && x.Total == y.Total
}
