package endpointslice

import (
	"cmp"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// layout knows where each endpoint of one service sits. It does no I/O and is
// for one goroutine. The way of working with it: load once, put and remove
// what changed, plan, and tell it what became of each write.
type layout struct {
	v      *view
	pool   *pool
	max    int
	ports  ports
	groups map[groupKey]*group
	where  map[key]spot
	byName map[string]*slice
	// condemned are slices to delete: of another Service of the same name, of
	// a family that the Service no longer has, or left empty.
	condemned map[string]*discoveryv1.EndpointSlice
	// stale: the layout cannot follow a change step by step, it must be loaded again.
	stale bool
}

type groupKey struct {
	family family
	canon  string
}

// group is the slices of one address family and set of ports.
type group struct {
	groupKey
	ports   []discoveryv1.EndpointPort
	slices  []*slice
	waiting []discoveryv1.Endpoint
	// byAddr says which instance holds an address: two registrations of the
	// same address and ports are one endpoint.
	byAddr map[string]string
	// twice are the addresses that more than one instance wants.
	twice map[string]struct{}
}

// slice is an EndpointSlice: as the server has it, and as it should be.
type slice struct {
	group *group
	obj   *discoveryv1.EndpointSlice // as the server has it; nil: it does not yet
	eps   []discoveryv1.Endpoint     // as it should be
	own   bool                       // eps is ours to change, not shared with obj
	dirty bool
}

// spot is an index into the endpoints of a slice.
type spot struct {
	slice *slice
	index int32
}

// want is a member's place in a service, as computed from its object.
type want struct {
	flat
	set *portSet
}

func newLayout(v *view, p *pool, max int) *layout {
	return &layout{v: v, pool: p, max: max, ports: newPorts(v), groups: map[groupKey]*group{},
		where: map[key]spot{}, byName: map[string]*slice{}, condemned: map[string]*discoveryv1.EndpointSlice{}}
}

func (l *layout) group(fam family, canon string, ports []discoveryv1.EndpointPort) *group {
	gk := groupKey{fam, canon}
	g := l.groups[gk]
	if g == nil {
		g = &group{groupKey: gk, ports: ports}
		l.groups[gk] = g
	}
	return g
}

// load builds the layout from the slices that exist and everything wanted.
func (l *layout) load(existing []*discoveryv1.EndpointSlice, wants []want) {
	type choice struct {
		w     *want
		g     *group
		taken bool
	}
	chosen := make(map[key]*choice, len(wants))
	l.where = make(map[key]spot, len(wants))
	store := make([]choice, 0, len(wants)*2) // at most one per family
	for i := range wants {
		w := &wants[i]
		for fam := range families {
			if w.addr[fam] == "" || !l.v.families[fam] {
				continue
			}
			g := l.group(fam, w.set.canon, w.set.ports)
			k := key{w.name, w.kind, fam}
			if w.kind == instance {
				if !g.claim(w.addr[fam], w, func(holder string) *want { return chosen[key{holder, instance, fam}].w }) {
					continue
				}
				if h := g.byAddr[w.addr[fam]]; h != w.name {
					delete(chosen, key{h, instance, fam})
				}
				g.byAddr[w.addr[fam]] = w.name
			}
			store = append(store, choice{w: w, g: g})
			chosen[k] = &store[len(store)-1]
		}
	}
	slices.SortFunc(existing, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	for _, obj := range existing {
		fam, ok := familyOf(obj.AddressType)
		if !ok || !l.v.families[fam] || !l.owns(obj) {
			l.condemned[obj.Name] = obj
			continue
		}
		g := l.group(fam, canonical(obj.Ports), obj.Ports)
		s := &slice{group: g, obj: obj, eps: make([]discoveryv1.Endpoint, 0, len(obj.Endpoints)), own: true}
		for i := range obj.Endpoints {
			e := &obj.Endpoints[i]
			k, ok := keyOf(e, fam)
			c := chosen[k]
			if !ok || c == nil || c.taken || c.g != g || len(s.eps) == l.max {
				s.dirty = true
				continue
			}
			c.taken = true
			l.where[k] = spot{s, int32(len(s.eps))}
			if c.w.is(e, fam) {
				s.eps = append(s.eps, *e)
			} else {
				s.eps = append(s.eps, c.w.endpoint(fam, l.pool))
				s.dirty = true
			}
		}
		if !s.dirty {
			s.eps, s.own = obj.Endpoints, false
		}
		if !l.labelled(obj) {
			s.dirty = true
		}
		g.slices = append(g.slices, s)
		l.byName[obj.Name] = s
	}
	for i := range store {
		if c := &store[i]; !c.taken && chosen[key{c.w.name, c.w.kind, c.g.family}] == c {
			c.g.waiting = append(c.g.waiting, c.w.endpoint(c.g.family, l.pool))
		}
	}
}

// claim says whether w gets the address; the holder so far is looked up by name.
func (g *group) claim(addr string, w *want, get func(string) *want) bool {
	if g.byAddr == nil {
		g.byAddr = map[string]string{}
	}
	holder, held := g.byAddr[addr]
	if !held {
		g.byAddr[addr] = w.name
		return true
	}
	if g.twice == nil {
		g.twice = map[string]struct{}{}
	}
	g.twice[addr] = struct{}{}
	h := get(holder)
	return better(&w.flat, &h.flat)
}

// better says which of two registrations of one address speaks for it.
func better(a, b *flat) bool {
	if a.ready != b.ready {
		return a.ready
	}
	if a.serving != b.serving {
		return a.serving
	}
	if a.terminating != b.terminating {
		return b.terminating
	}
	return a.name < b.name
}

func familyOf(t discoveryv1.AddressType) (family, bool) {
	for f := range families {
		if addressTypes[f] == t {
			return f, true
		}
	}
	return 0, false
}

// owns says whether a slice belongs to this very Service, not to an earlier
// one of the same name.
func (l *layout) owns(obj *discoveryv1.EndpointSlice) bool {
	for i := range obj.OwnerReferences {
		if o := &obj.OwnerReferences[i]; o.UID == l.v.uid && o.Kind == "Service" {
			return obj.DeletionTimestamp == nil
		}
	}
	return false
}

func (l *layout) labelled(obj *discoveryv1.EndpointSlice) bool {
	if len(obj.Labels) != len(l.v.labels) {
		return false
	}
	for k, v := range l.v.labels {
		if w, ok := obj.Labels[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// put adds or changes one member; at most once per member between two plans,
// for what waits to be placed is not looked at again.
func (l *layout) put(w *want) {
	for fam := range families {
		k := key{w.name, w.kind, fam}
		if w.addr[fam] == "" || !l.v.families[fam] {
			l.removeKey(k)
			continue
		}
		addr := w.addr[fam]
		g := l.group(fam, w.set.canon, w.set.ports)
		at, placed := l.where[k]
		if placed && at.slice.group != g {
			l.removeKey(k)
			placed = false
		}
		if w.kind == instance {
			if _, ok := g.twice[addr]; ok {
				l.stale = true
				return
			}
			if h, held := g.byAddr[addr]; held && h != w.name {
				l.stale = true
				return
			}
			if placed {
				if before := at.slice.eps[at.index].Addresses; len(before) == 1 && before[0] != addr {
					l.removeKey(k) // so that its former address is free
					placed = false
				}
			}
			if g.byAddr == nil {
				g.byAddr = map[string]string{}
			}
			g.byAddr[addr] = w.name
		}
		switch {
		case !placed:
			g.waiting = append(g.waiting, w.endpoint(fam, l.pool))
		case !w.is(&at.slice.eps[at.index], fam):
			at.slice.write()
			at.slice.eps[at.index] = w.endpoint(fam, l.pool)
		}
		if l.stale {
			return
		}
	}
}

// remove takes a member out.
func (l *layout) remove(m member) {
	for fam := range families {
		l.removeKey(key{m.name, m.kind, fam})
	}
}

func (l *layout) removeKey(k key) {
	at, ok := l.where[k]
	if !ok {
		return
	}
	s, g := at.slice, at.slice.group
	if k.kind == instance && len(s.eps[at.index].Addresses) == 1 {
		addr := s.eps[at.index].Addresses[0]
		if _, ok := g.twice[addr]; ok {
			l.stale = true // another registration of the address takes over
			return
		}
		if g.byAddr[addr] == k.name {
			delete(g.byAddr, addr)
		}
	}
	s.write()
	last := len(s.eps) - 1
	if int(at.index) != last {
		s.eps[at.index] = s.eps[last]
		if moved, ok := keyOf(&s.eps[at.index], k.family); ok {
			l.where[moved] = at
		}
	}
	s.eps[last] = discoveryv1.Endpoint{}
	s.eps = s.eps[:last]
	delete(l.where, k)
}

// write makes the endpoints ours to change.
func (s *slice) write() {
	s.dirty = true
	if !s.own {
		s.eps = append(make([]discoveryv1.Endpoint, 0, len(s.eps)+1), s.eps...)
		s.own = true
	}
}

// objects gives the slices as the server has them, to load again from.
func (l *layout) objects() []*discoveryv1.EndpointSlice {
	all := make([]*discoveryv1.EndpointSlice, 0, len(l.byName)+len(l.condemned))
	for _, s := range l.byName {
		all = append(all, s.obj)
	}
	for _, obj := range l.condemned {
		all = append(all, obj)
	}
	return all
}
