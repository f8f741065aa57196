package endpointslice

import (
	"maps"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// service is one Service's state in the controller. It exists while the
// Service or a slice that names it does.
type service struct {
	types.NamespacedName

	mu   sync.Mutex
	pend pending

	// What follows belongs to the worker that has the service.
	layout    *layout
	dead      map[string]struct{}
	lastWrite time.Time
	failures  int

	// Guarded by the index.
	selector map[string]string
	first    term // the term under which the index files it
}

// pending is what happened since the worker last looked.
type pending struct {
	load    bool
	members map[member]struct{}
	slices  map[string]*discoveryv1.EndpointSlice // nil: deleted
	trigger time.Time                             // when the change happened that is to be written
	seen    time.Time                             // when we learnt of it
}

func (p *pending) empty() bool { return !p.load && len(p.members) == 0 && len(p.slices) == 0 }

func (s *service) take() pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pend
	s.pend = pending{}
	return p
}

// putBack returns what could not be dealt with; news since then wins.
func (s *service) putBack(p pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &s.pend
	n.load = n.load || p.load
	for m := range p.members {
		n.touch(m)
	}
	for name, obj := range p.slices {
		if _, ok := n.slices[name]; !ok {
			n.slice(name, obj)
		}
	}
	n.stamp(p.trigger, p.seen)
}

func (p *pending) touch(m member) {
	if p.load {
		return // everything is looked at anyway
	}
	if p.members == nil {
		p.members = map[member]struct{}{}
	}
	p.members[m] = struct{}{}
}

func (p *pending) slice(name string, obj *discoveryv1.EndpointSlice) {
	if p.slices == nil {
		p.slices = map[string]*discoveryv1.EndpointSlice{}
	}
	p.slices[name] = obj
}

// stamp keeps the earliest times.
func (p *pending) stamp(trigger, seen time.Time) {
	if p.trigger.IsZero() || !trigger.IsZero() && trigger.Before(p.trigger) {
		p.trigger = trigger
	}
	if p.seen.IsZero() || !seen.IsZero() && seen.Before(p.seen) {
		p.seen = seen
	}
}

// term is one key=value of a label selector.
type term struct{ key, value string }

// index finds services by name and by the labels of a pod. Each service with a
// selector is filed under one of its terms, so that a pod costs its labels and
// the few services behind them, not the services of its namespace.
type index struct {
	mu     sync.RWMutex
	spaces map[string]*space
}

type space struct {
	services map[string]*service
	terms    map[term]map[*service]struct{}
}

func newIndex() *index { return &index{spaces: map[string]*space{}} }

// with calls f for the state of a service, making it if need be. Nobody
// forgets the service meanwhile, and if f leaves something pending, nobody
// does before a worker has looked at it.
func (x *index) with(namespace, name string, f func(*service)) {
	x.mu.RLock()
	if sp := x.spaces[namespace]; sp != nil && sp.services[name] != nil {
		f(sp.services[name])
		x.mu.RUnlock()
		return
	}
	x.mu.RUnlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	f(x.ensure(namespace, name))
}

// file puts a service under its selector, nil: under none, and calls f like with.
func (x *index) file(namespace, name string, selector map[string]string, f func(*service)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := x.ensure(namespace, name)
	x.refile(s, selector)
	f(s)
}

// ensure is called with the lock held.
func (x *index) ensure(namespace, name string) *service {
	sp := x.spaces[namespace]
	if sp == nil {
		sp = &space{services: map[string]*service{}, terms: map[term]map[*service]struct{}{}}
		x.spaces[namespace] = sp
	}
	s := sp.services[name]
	if s == nil {
		s = &service{NamespacedName: types.NamespacedName{Namespace: namespace, Name: name}}
		sp.services[name] = s
	}
	return s
}

// refile is called with the lock held.
func (x *index) refile(s *service, selector map[string]string) {
	if maps.Equal(s.selector, selector) {
		return
	}
	sp := x.spaces[s.Namespace]
	if len(s.selector) > 0 {
		delete(sp.terms[s.first], s)
		if len(sp.terms[s.first]) == 0 {
			delete(sp.terms, s.first)
		}
	}
	s.selector = nil
	if len(selector) == 0 {
		return
	}
	s.selector = maps.Clone(selector)
	// The least crowded term; among equals the smallest, for the sake of order.
	first, best := true, 0
	for k, v := range selector {
		t := term{k, v}
		n := len(sp.terms[t])
		if first || n < best || n == best && k < s.first.key {
			s.first, best, first = t, n, false
		}
	}
	if sp.terms[s.first] == nil {
		sp.terms[s.first] = map[*service]struct{}{}
	}
	sp.terms[s.first][s] = struct{}{}
}

// matching calls f for each service whose selector matches the labels.
func (x *index) matching(namespace string, labels map[string]string, f func(*service)) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	sp := x.spaces[namespace]
	if sp == nil || len(sp.terms) == 0 {
		return
	}
	for k, v := range labels {
		for s := range sp.terms[term{k, v}] {
			if selects(s.selector, labels) {
				f(s)
			}
		}
	}
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if w, ok := labels[k]; !ok || w != v {
			return false
		}
	}
	return len(selector) > 0
}

// forget drops a service for which nothing is left, unless something came in.
func (x *index) forget(s *service) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.pend.empty() {
		return false
	}
	sp := x.spaces[s.Namespace]
	if sp == nil || sp.services[s.Name] != s || len(s.selector) > 0 {
		return false
	}
	delete(sp.services, s.Name)
	if len(sp.services) == 0 {
		delete(x.spaces, s.Namespace)
	}
	return true
}

// each calls f for every service.
func (x *index) each(f func(*service)) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, sp := range x.spaces {
		for _, s := range sp.services {
			f(s)
		}
	}
}

// term gives one term of the selector to search pods by.
func (x *index) term(s *service, selector map[string]string) (t term, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if v, filed := selector[s.first.key]; filed && v == s.first.value {
		return s.first, true
	}
	for k, v := range selector { // refiled meanwhile: any term will do
		return term{k, v}, true
	}
	return t, false
}
