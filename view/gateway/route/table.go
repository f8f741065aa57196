package route

import (
	"hash/maphash"
	"slices"
	"strings"
)

// Table answers where requests go. The zero value, and nil, have no host.
type Table struct {
	seed      maphash.Seed
	shards    *[shards]shard // nil: no host but perhaps any
	count     int
	wildcards int
	any       *entry // of the host ""
	global    *Global
	fallback  *entry // one rule that takes what none of the hosts' does; nil: none
	compile   func(*Host, *Rule) any
}

// shards is in how many parts the hosts are kept: a change copies the parts
// that it touches.
const shards = 256

// shard is a hash table of hosts.
type shard struct {
	slots []*entry // by hash, the next free one if taken; at most half full
	count int
}

// Build makes a table of an update alone.
func Build(u *Update, compile func(*Host, *Rule) any) *Table {
	return (*Table)(nil).With(u, compile)
}

// With gives the table after an update. compile makes what [Match] gives as Data
// when a rule is looked at first; by whom is not said, and several may do it at once:
// one result is kept. It sees rules again that changed, and those of hosts that
// changed in more than their rules. nil means no Data. Data lives as long as the
// rule and may be shared by many tables. It may keep what compile is given; of
// the Host only what is not its rules is there.
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
	if compile != nil {
		n.compile = compile
	}
	if u.Replace {
		n.replace(t, u)
	} else {
		n.change(u)
	}
	if u.Global != nil {
		n.setGlobal(u.Global)
	}
	return &n
}

func (t *Table) seeded() bool { return t.seed != maphash.Seed{} }

func (t *Table) setGlobal(g *Global) {
	if t.global != nil && t.global.Default == g.Default && t.fallback != nil {
		t.global = g
		return
	}
	t.global, t.fallback = g, nil
	if g.Default == nil {
		return
	}
	t.fallback = &entry{host: &Host{Rules: []Rule{{
		Origin: Origin{Kind: "default backend", Rule: -1}, Path: Path{Value: "/"}, Backends: []Backend{*g.Default}, Policy: defaultPolicy(),
	}}}}
}

// defaultPolicy is that of rules that have none.
func defaultPolicy() *Policy { return &Policy{Retry: Retry{Reset: true}} }

// complete gives the host with a policy for each rule.
func complete(h *Host) *Host {
	whole := true
	for i := range h.Rules {
		whole = whole && h.Rules[i].Policy != nil
	}
	if whole {
		return h
	}
	c := *h
	c.Rules = slices.Clone(h.Rules)
	for i := range c.Rules {
		if c.Rules[i].Policy == nil {
			c.Rules[i].Policy = defaultPolicy()
		}
	}
	return &c
}

// replace fills a table with the hosts of an update and nothing else.
func (t *Table) replace(old *Table, u *Update) {
	t.shards, t.count, t.wildcards, t.any = new([shards]shard), 0, 0, nil
	if u.Global == nil {
		t.global, t.fallback = nil, nil
	}
	t.reserve(len(u.Hosts))
	for name, h := range u.Hosts {
		if h != nil {
			key := keyOf(name)
			hash := t.hash(key)
			t.insert(t.entry(old.named(key, hash), key, hash, h))
		}
	}
}

// change copies the parts that the update touches, and changes these.
func (t *Table) change(u *Update) {
	if len(u.Hosts) == 0 {
		return
	}
	before := t.shards
	t.shards = new([shards]shard)
	if before != nil {
		*t.shards = *before
	}
	if t.count == 0 {
		t.reserve(len(u.Hosts))
	}
	var copied [shards]bool
	for name, h := range u.Hosts {
		key := keyOf(name)
		hash := t.hash(key)
		if i := hash >> shift; !copied[i] {
			copied[i] = true
			t.shards[i].slots = slices.Clone(t.shards[i].slots)
		}
		old := t.named(key, hash)
		switch {
		case h != nil:
			t.insert(t.entry(old, key, hash, h))
		case old != nil:
			t.remove(old)
		}
	}
}

// entry gives what stands for a host.
func (t *Table) entry(old *entry, key string, hash uint64, h *Host) *entry {
	if old != nil && old.from == h {
		return old
	}
	e := &entry{name: key, hash: hash, from: h, host: h}
	if h.Name != key {
		c := *h
		c.Name = key
		e.host = &c
	}
	// Many are too much for the first request, and what is there already is kept.
	if len(h.Rules) > many || len(h.Rules) > few && old != nil && old.made.Load() != nil {
		e.prepare(old, t.compile)
	}
	return e
}

// many is from how many rules on a host is prepared before there are requests.
const many = 32

const shift = 64 - 8 // to the bits that choose the shard

func (t *Table) hash(name string) uint64 { return maphash.String(t.seed, name) }

// slot finds the place of a name: where it is, or where it would be.
func (s *shard) slot(hash uint64, name string) **entry {
	mask := uint64(len(s.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if e := s.slots[i]; e == nil || e.hash == hash && e.name == name {
			return &s.slots[i]
		}
	}
}

// reserve makes room for n hosts in an empty table.
func (t *Table) reserve(n int) {
	if n /= shards; n > 2 {
		size := 8
		for size < 2*n+n/2 {
			size *= 2
		}
		for i := range t.shards {
			t.shards[i].resize(size)
		}
	}
}

// grow makes room for one more.
func (s *shard) grow() {
	if 2*s.count >= len(s.slots) {
		s.resize(max(8, 2*len(s.slots)))
	}
}

func (s *shard) resize(n int) {
	old := s.slots
	s.slots = make([]*entry, n)
	for _, e := range old {
		if e != nil {
			*s.slot(e.hash, e.name) = e
		}
	}
}

func (t *Table) insert(e *entry) {
	if e.name == "" {
		t.any = e
		return
	}
	s := &t.shards[e.hash>>shift]
	s.grow()
	p := s.slot(e.hash, e.name)
	if *p == nil {
		s.count++
		t.count++
		if strings.HasPrefix(e.name, "*.") {
			t.wildcards++
		}
	}
	*p = e
}

// remove takes an entry out, and moves those behind it that it pushed away.
func (t *Table) remove(e *entry) {
	if e.name == "" {
		t.any = nil
		return
	}
	s := &t.shards[e.hash>>shift]
	s.count--
	t.count--
	if strings.HasPrefix(e.name, "*.") {
		t.wildcards--
	}
	mask := uint64(len(s.slots) - 1)
	i := e.hash & mask
	for s.slots[i] != e {
		i = (i + 1) & mask
	}
	s.slots[i] = nil
	for i = (i + 1) & mask; s.slots[i] != nil; i = (i + 1) & mask {
		m := s.slots[i]
		s.slots[i] = nil
		*s.slot(m.hash, m.name) = m
	}
}

// named gives the entry of exactly this name.
func (t *Table) named(name string, hash uint64) *entry {
	if t == nil {
		return nil
	}
	if name == "" {
		return t.any
	}
	if t.shards == nil {
		return nil
	}
	s := &t.shards[hash>>shift]
	if len(s.slots) == 0 {
		return nil
	}
	return *s.slot(hash, name)
}

// find gives the entry that decides for an authority: the host as written, the
// wildcard with the same parent, the host "". nil: none does.
func (t *Table) find(authority []byte) *entry {
	if t == nil {
		return nil
	}
	if t.count == 0 {
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
	s := &t.shards[hash>>shift]
	if s.count == 0 {
		return nil
	}
	mask := uint64(len(s.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := s.slots[i]
		if e == nil || e.hash == hash && e.name == string(name) {
			return e
		}
	}
}
