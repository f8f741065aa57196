package route

import (
	"hash/maphash"
	"slices"
	"strings"
)

// Table answers where requests go. The zero value, and nil, have no host.
type Table struct {
	seed      maphash.Seed
	slots     []*entry // by hash, the next free one if taken; at most half full
	count     int
	wildcards int
	any       *entry // of the host ""
	global    *Global
	fallback  *entry // one rule that takes what none of the hosts' does; nil: none
}

// Build makes a table of an update alone.
func Build(u *Update, compile func(*Host, *Rule) any) *Table {
	return (*Table)(nil).With(u, compile)
}

// With gives the table after an update. compile makes what [Match] gives as
// Data; it is called for rules that are new or changed, or whose host changed
// in more than its rules, and nil is allowed. Data lives as long as the rule and may
// be shared by many tables, so that it should not keep the Host; of the Rule it
// may.
//
// A host that is given as the same pointer as before is not looked at.
func (t *Table) With(u *Update, compile func(*Host, *Rule) any) *Table {
	if t == nil {
		t = &Table{seed: maphash.MakeSeed()}
	}
	n := *t
	if !t.seeded() {
		n.seed = maphash.MakeSeed()
	}
	if u.Replace {
		n.replace(t, u, compile)
	} else {
		n.change(u, compile)
	}
	if u.Global != nil {
		n.setGlobal(u.Global, compile)
	}
	return &n
}

func (t *Table) seeded() bool { return t.seed != maphash.Seed{} }

func (t *Table) setGlobal(g *Global, compile func(*Host, *Rule) any) {
	if t.global != nil && t.global.Default == g.Default && t.fallback != nil {
		t.global = g
		return
	}
	t.global, t.fallback = g, nil
	if g.Default == nil {
		return
	}
	t.fallback = index(&Host{Rules: []Rule{{
		Origin: Origin{Kind: "default backend", Rule: -1}, Path: Path{Value: "/"}, Backends: []Backend{*g.Default}, Policy: defaultPolicy(),
	}}}, nil, compile)
}

// defaultPolicy is that of rules that have none.
func defaultPolicy() *Policy { return &Policy{Retry: Retry{Reset: true}} }

// complete gives the host with a policy for each rule.
func complete(name string, h *Host) *Host {
	key := keyOf(name)
	if h.Name == key && !slices.ContainsFunc(h.Rules, func(r Rule) bool { return r.Policy == nil }) {
		return h
	}
	c := *h
	c.Name, c.Rules = key, slices.Clone(h.Rules)
	for i := range c.Rules {
		if c.Rules[i].Policy == nil {
			c.Rules[i].Policy = defaultPolicy()
		}
	}
	return &c
}

// replace fills a table with the hosts of an update and nothing else.
func (t *Table) replace(old *Table, u *Update, compile func(*Host, *Rule) any) {
	t.slots, t.count, t.wildcards, t.any = nil, 0, 0, nil
	if u.Global == nil {
		t.global, t.fallback = nil, nil
	}
	t.grow(len(u.Hosts))
	for name, h := range u.Hosts {
		if h != nil {
			t.insert(t.entry(old.named(keyOf(name)), name, h, compile))
		}
	}
}

// change copies the slots and changes these.
func (t *Table) change(u *Update, compile func(*Host, *Rule) any) {
	if len(u.Hosts) == 0 {
		return
	}
	t.slots = slices.Clone(t.slots)
	t.grow(t.count + len(u.Hosts))
	for name, h := range u.Hosts {
		old := t.named(keyOf(name))
		switch {
		case h != nil:
			t.insert(t.entry(old, name, h, compile))
		case old != nil:
			t.remove(old)
		}
	}
}

// entry gives what stands for a host.
func (t *Table) entry(old *entry, name string, h *Host, compile func(*Host, *Rule) any) *entry {
	if old != nil && old.host == h {
		return old
	}
	h = complete(name, h)
	e := index(h, old, compile)
	e.hash = maphash.String(t.seed, h.Name)
	return e
}

// grow makes room for n hosts.
func (t *Table) grow(n int) {
	size := max(8, len(t.slots))
	for size < 2*n {
		size *= 2
	}
	if size == len(t.slots) {
		return
	}
	old := t.slots
	t.slots = make([]*entry, size)
	for _, e := range old {
		if e != nil {
			*t.slot(e.hash, e.name) = e
		}
	}
}

// slot finds the place of a name: where it is, or where it would be.
func (t *Table) slot(hash uint64, name string) **entry {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if e := t.slots[i]; e == nil || e.hash == hash && e.name == name {
			return &t.slots[i]
		}
	}
}

func (t *Table) insert(e *entry) {
	if e.name == "" {
		t.any = e
		return
	}
	s := t.slot(e.hash, e.name)
	if *s == nil {
		t.count++
		if strings.HasPrefix(e.name, "*.") {
			t.wildcards++
		}
	}
	*s = e
}

// remove takes an entry out, and moves those behind it that it pushed away.
func (t *Table) remove(e *entry) {
	if e.name == "" {
		t.any = nil
		return
	}
	t.count--
	if strings.HasPrefix(e.name, "*.") {
		t.wildcards--
	}
	mask := uint64(len(t.slots) - 1)
	i := e.hash & mask
	for t.slots[i] != e {
		i = (i + 1) & mask
	}
	t.slots[i] = nil
	for i = (i + 1) & mask; t.slots[i] != nil; i = (i + 1) & mask {
		m := t.slots[i]
		t.slots[i] = nil
		*t.slot(m.hash, m.name) = m
	}
}

// named gives the entry of exactly this name.
func (t *Table) named(name string) *entry {
	if t == nil {
		return nil
	}
	if name == "" {
		return t.any
	}
	if len(t.slots) == 0 {
		return nil
	}
	return *t.slot(maphash.String(t.seed, name), name)
}

// find gives the entry that decides for an authority: the host as written, the
// wildcard with the same parent, the host "". nil: none does.
func (t *Table) find(authority []byte) *entry {
	if t == nil || len(t.slots) == 0 {
		if t == nil {
			return nil
		}
		return t.any
	}
	// Most come as they are kept, so that one look is enough.
	if e := t.lookup(authority); e != nil {
		return e
	}
	var buf [longest + 1]byte
	name := hostname(authority, &buf)
	if len(name) == 0 {
		return t.any
	}
	if e := t.lookup(name); e != nil {
		return e
	}
	if t.wildcards > 0 {
		for i, c := range name {
			if c == '.' {
				if i > 0 {
					name[i-1] = '*'
					if e := t.lookup(name[i-1:]); e != nil {
						return e
					}
				}
				break
			}
		}
	}
	return t.any
}

func (t *Table) lookup(name []byte) *entry {
	hash := maphash.Bytes(t.seed, name)
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := t.slots[i]
		if e == nil || e.hash == hash && e.name == string(name) {
			return e
		}
	}
}
