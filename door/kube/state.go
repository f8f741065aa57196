package kube

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// state is what the door knows beyond the catalog: which slices make up a
// service and which of them name which subject. One goroutine owns it; it
// does no I/O.
type state struct {
	now       func() time.Time
	trackPods bool
	awaits    map[kind]bool // sources whose first list has not come
	fresh     catalog.Freshness

	services map[catalog.Key]*service
	slices   map[catalog.Key]*slice
	subjects map[subjectKey]*entry
	spaces   map[string]struct{}

	dirty map[catalog.Key]struct{}

	kept *kept // nil: the catalog was empty, or is the server's by now
}

// service ties a service's slices together, whether the Service is known or not.
type service struct {
	known   bool
	publish bool // publishNotReadyAddresses
	slices  []*slice
}

type subjectKey struct {
	ref string
	catalog.Key
}

// entry is a subject, or a place for one that slices name already.
type entry struct {
	subject *subject
	slices  []*slice // one mention for each endpoint that names it
}

// namespace is the lean form of a Namespace.
type namespace string

func newState(trackPods bool, now func() time.Time) *state {
	return &state{
		now: now, trackPods: trackPods,
		awaits:   map[kind]bool{},
		services: map[catalog.Key]*service{},
		slices:   map[catalog.Key]*slice{},
		subjects: map[subjectKey]*entry{},
		spaces:   map[string]struct{}{},
		dirty:    map[catalog.Key]struct{}{},
	}
}

// apply takes one event. Endpoints become visible with flush.
func (st *state) apply(t *catalog.Txn, e *event) {
	switch e.verb {
	case put:
		st.put(t, e.obj, e.at)
	case del:
		st.del(t, e.kind, e.key, e.at)
	case replace:
		st.replace(t, e)
		st.arrived(t, e.kind)
	case forget:
		st.forget(t, e.kind)
		st.arrived(t, e.kind)
	}
	if e.kind == freshness {
		st.fresh.StaleSince = e.at
		t.SetFreshness(st.fresh)
	}
}

// arrived notes a first list. Its last one makes the catalog complete; flush
// must follow in the same transaction.
func (st *state) arrived(t *catalog.Txn, k kind) {
	if !st.awaits[k] {
		return
	}
	delete(st.awaits, k)
	if len(st.awaits) == 0 {
		st.fresh.Synced = true
		t.SetFreshness(st.fresh)
	}
}

func (st *state) put(t *catalog.Txn, obj any, at time.Time) {
	switch o := obj.(type) {
	case *catalog.Service:
		st.putService(t, o, at)
	case *slice:
		st.putSlice(t, o, at)
	case *subject:
		st.putSubject(t, o, at)
	case namespace:
		st.spaces[string(o)] = struct{}{}
		t.PutNamespace(string(o))
	}
}

func (st *state) del(t *catalog.Txn, k kind, key catalog.Key, at time.Time) {
	switch k {
	case services:
		st.deleteService(t, key)
	case slicesKind:
		st.deleteSlice(key)
	case instances:
		st.deleteSubject(t, subjectKey{instanceRef, key}, at)
	case pods:
		st.deleteSubject(t, subjectKey{podRef, key}, at)
	case namespaces:
		delete(st.spaces, key.Name)
		t.DeleteNamespace(key.Name)
	}
}

// replace makes a complete list the truth by its differences.
func (st *state) replace(t *catalog.Txn, e *event) {
	seen := make(map[catalog.Key]struct{}, len(e.list))
	for _, o := range e.list {
		seen[keyOf(o)] = struct{}{}
		st.put(t, o, e.at)
	}
	for _, k := range st.keys(e.kind) {
		if _, ok := seen[k]; !ok {
			st.del(t, e.kind, k, e.at)
		}
	}
}

// keys gives the keys of all known objects of a kind.
func (st *state) keys(k kind) (out []catalog.Key) {
	switch k {
	case services:
		for key, s := range st.services {
			if s.known {
				out = append(out, key)
			}
		}
	case slicesKind:
		return slices.Collect(maps.Keys(st.slices))
	case namespaces:
		for n := range st.spaces {
			out = append(out, catalog.Key{Name: n})
		}
	case instances, pods:
		for key, e := range st.subjects {
			if e.subject != nil && !e.subject.gone && (key.ref == podRef) == (k == pods) {
				out = append(out, key.Key)
			}
		}
	}
	return out
}

func keyOf(obj any) catalog.Key {
	switch o := obj.(type) {
	case *catalog.Service:
		return o.Key
	case *slice:
		return o.key
	case *subject:
		return o.key
	case namespace:
		return catalog.Key{Name: string(o)}
	}
	return catalog.Key{}
}

func (st *state) putService(t *catalog.Txn, s *catalog.Service, at time.Time) {
	svc := st.service(s.Key)
	svc.known = true
	t.PutService(s)
	if svc.publish != s.PublishNotReady {
		svc.publish = s.PublishNotReady
		for _, sl := range svc.slices {
			st.rejudge(t, sl, nil, at)
		}
	}
}

func (st *state) deleteService(t *catalog.Txn, k catalog.Key) {
	t.DeleteService(k)
	svc := st.services[k]
	if svc == nil {
		return
	}
	svc.known = false
	if svc.publish {
		svc.publish = false
		for _, sl := range svc.slices {
			st.rejudge(t, sl, nil, st.now())
		}
	}
	st.drop(k, svc)
}

func (st *state) service(k catalog.Key) *service {
	svc := st.services[k]
	if svc == nil {
		svc = &service{}
		st.services[k] = svc
	}
	return svc
}

func (st *state) drop(k catalog.Key, svc *service) {
	if !svc.known && len(svc.slices) == 0 {
		delete(st.services, k)
	}
}

func (st *state) putSlice(t *catalog.Txn, n *slice, at time.Time) {
	old := st.slices[n.key]
	if old != nil && old.service != n.service {
		st.deleteSlice(n.key)
		old = nil
	}
	if n.service == "" {
		return
	}
	svc := st.service(n.owner())
	before := st.past(t, n.owner(), old)
	for i := range n.eps {
		ep := &n.eps[i]
		judge(ep, n.raw[i], st.subject(n, ep.Target), svc.publish)
		before.since(ep, i, st.moment(n.trigger, at))
	}
	if old == nil {
		st.slices[n.key] = n
		at, _ := slices.BinarySearchFunc(svc.slices, n.key.Name, func(s *slice, name string) int { return cmp.Compare(s.key.Name, name) })
		svc.slices = slices.Insert(svc.slices, at, n)
		st.link(n)
		st.dirty[n.owner()] = struct{}{}
		return
	}
	old.trigger = n.trigger
	if slices.Equal(old.raw, n.raw) && slices.EqualFunc(old.eps, n.eps, func(a, b catalog.Endpoint) bool { return a.Equal(&b) }) {
		return
	}
	same := slices.EqualFunc(old.eps, n.eps, func(a, b catalog.Endpoint) bool { return a.Target == b.Target })
	if !same {
		st.unlink(old)
	}
	*old = *n
	if !same {
		st.link(old)
	}
	st.dirty[n.owner()] = struct{}{}
}

// moment is when a change seen now was made: zero while the first lists are
// being read (it was before, but when is not known), the trigger that the
// slice names if it can be believed, otherwise the time the event came.
func (st *state) moment(trigger, at time.Time) time.Time {
	switch {
	case !st.fresh.Synced:
		return time.Time{}
	case !trigger.IsZero() && !trigger.After(at) && at.Sub(trigger) < time.Minute:
		return trigger
	}
	return at
}

func (st *state) deleteSlice(k catalog.Key) {
	s := st.slices[k]
	if s == nil {
		return
	}
	delete(st.slices, k)
	st.unlink(s)
	svc := st.services[s.owner()]
	svc.slices = slices.DeleteFunc(svc.slices, func(o *slice) bool { return o == s })
	st.dirty[s.owner()] = struct{}{}
	st.drop(s.owner(), svc)
}

// rejudge looks at a slice's endpoints again because something they depend on
// changed: all of them, or those that name one subject.
func (st *state) rejudge(t *catalog.Txn, s *slice, only *subjectKey, at time.Time) {
	svc := st.services[s.owner()]
	var eps []catalog.Endpoint
	for i := range s.eps {
		ep := s.eps[i] // a copy: the original is shared with the catalog
		if only != nil && (ep.Target.Name != only.Name || ep.Target.Kind != only.ref) {
			continue
		}
		judge(&ep, s.raw[i], st.subject(s, ep.Target), svc.publish)
		since(&ep, &s.eps[i], st.moment(time.Time{}, at))
		st.remember(s.owner(), &ep)
		if ep.Equal(&s.eps[i]) {
			continue
		}
		if eps == nil {
			eps = slices.Clone(s.eps)
		}
		eps[i] = ep
	}
	if eps != nil {
		s.eps = eps
		st.dirty[s.owner()] = struct{}{}
	}
}

// flush hands the endpoints of every touched service to the catalog.
func (st *state) flush(t *catalog.Txn) {
	for k := range st.dirty {
		var eps []catalog.Endpoint
		if svc := st.services[k]; svc != nil {
			eps = merge(svc.slices)
		}
		t.PutEndpoints(k, eps)
	}
	clear(st.dirty)
}
