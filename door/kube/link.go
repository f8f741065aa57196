package kube

import (
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// tracked says whether an object behind an endpoint is one that the door
// knows about, and under which key.
func (st *state) tracked(s *slice, r catalog.Ref) (subjectKey, bool) {
	ok := r.Kind == instanceRef || r.Kind == podRef && st.trackPods
	return subjectKey{r.Kind, catalog.Key{Namespace: s.key.Namespace, Name: r.Name}}, ok
}

func (st *state) subject(s *slice, r catalog.Ref) *subject {
	if k, ok := st.tracked(s, r); ok {
		if e := st.subjects[k]; e != nil {
			return e.subject
		}
	}
	return nil
}

func (st *state) link(s *slice) {
	for i := range s.eps {
		if k, ok := st.tracked(s, s.eps[i].Target); ok {
			e := st.subjects[k]
			if e == nil {
				e = &entry{}
				st.subjects[k] = e
			}
			e.slices = append(e.slices, s)
		}
	}
}

func (st *state) unlink(s *slice) {
	for i := range s.eps {
		k, ok := st.tracked(s, s.eps[i].Target)
		if !ok {
			continue
		}
		e := st.subjects[k]
		if at := slices.Index(e.slices, s); at >= 0 {
			e.slices = slices.Delete(e.slices, at, at+1)
		}
		if len(e.slices) == 0 && (e.subject == nil || e.subject.gone) {
			delete(st.subjects, k)
		}
	}
}

func (st *state) putSubject(t *catalog.Txn, s *subject, at time.Time) {
	k := subjectKey{s.ref, s.key}
	e := st.subjects[k]
	if e == nil {
		st.subjects[k] = &entry{subject: s}
		return
	}
	if e.subject != nil && e.subject.equal(s) {
		return
	}
	e.subject = s
	st.affected(t, k, e, at)
}

// deleteSubject forgets a subject that no slice names. Of one that slices
// still name the memory stays that it is gone, so that its endpoint is out
// before they follow.
func (st *state) deleteSubject(t *catalog.Txn, k subjectKey, at time.Time) {
	e := st.subjects[k]
	switch {
	case e == nil:
	case len(e.slices) == 0:
		delete(st.subjects, k)
	case k.ref == podRef: // the slice decides about pods
		e.subject = nil
		st.affected(t, k, e, at)
	default:
		gone := subject{key: k.Key, ref: k.ref, gone: true, weight: defaultWeight, origin: originKube}
		if e.subject != nil {
			gone.weight, gone.origin, gone.metadata = e.subject.weight, e.subject.origin, e.subject.metadata
		}
		gone.health = catalog.Health{State: catalog.Terminating, Reason: "it was deregistered", By: byManifest, Since: at}
		e.subject = &gone
		st.affected(t, k, e, at)
	}
}

// affected rejudges the endpoints of one subject.
func (st *state) affected(t *catalog.Txn, k subjectKey, e *entry, at time.Time) {
	for i, s := range e.slices {
		if !slices.Contains(e.slices[:i], s) {
			st.rejudge(t, s, &k, at)
		}
	}
}

// forget does as if a kind had never been read: the slices' word alone counts.
func (st *state) forget(t *catalog.Txn, k kind) {
	if k == namespaces {
		return // what was known of them stays
	}
	for ref, e := range st.subjects {
		if e.subject == nil || (ref.ref == podRef) != (k == pods) {
			continue
		}
		e.subject = nil
		st.affected(t, ref, e, st.now())
		if len(e.slices) == 0 {
			delete(st.subjects, ref)
		}
	}
}

// past is how a service's endpoints were before a slice changed; it dates the
// states that nobody else dates.
type past struct {
	slice   []catalog.Endpoint // the slice's own, most likely in the same places
	service []catalog.Endpoint // all of the service, for what moved between slices
	index   map[pastKey]*catalog.Endpoint
}

type pastKey struct {
	addr   [16]byte
	target catalog.Ref
}

func (st *state) past(t *catalog.Txn, k catalog.Key, old *slice) past {
	var p past
	if old != nil {
		p.slice = old.eps
	}
	if e := st.entry(t, k); e != nil {
		p.service = e.Endpoints
	}
	return p
}

// since fills in since when an endpoint is in its state: as long as it was
// before, or from the moment given.
func (p *past) since(ep *catalog.Endpoint, i int, moment time.Time) {
	if !ep.Health.Since.IsZero() {
		return
	}
	if i < len(p.slice) && sameEndpoint(&p.slice[i], ep) {
		since(ep, &p.slice[i], moment)
		return
	}
	if p.index == nil {
		p.index = make(map[pastKey]*catalog.Endpoint, len(p.service)+len(p.slice))
		for _, eps := range [][]catalog.Endpoint{p.service, p.slice} {
			for j := range eps {
				p.index[pastKey{eps[j].Addr.As16(), eps[j].Target}] = &eps[j]
			}
		}
	}
	since(ep, p.index[pastKey{ep.Addr.As16(), ep.Target}], moment)
}

func sameEndpoint(a, b *catalog.Endpoint) bool { return a.Addr == b.Addr && a.Target == b.Target }

// since dates ep's state by what it was before (nil: it was not there).
func since(ep, before *catalog.Endpoint, moment time.Time) {
	switch {
	case !ep.Health.Since.IsZero():
	case before != nil && before.Health.State == ep.Health.State && before.Health.By == ep.Health.By:
		ep.Health.Since = before.Health.Since
	default:
		ep.Health.Since = moment
	}
}
