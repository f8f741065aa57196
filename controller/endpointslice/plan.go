package endpointslice

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type verb uint8

const (
	create verb = iota
	update
	remove
)

var verbs = [...]string{"create", "update", "delete"}

// op is one write. obj is what to send; slice is nil for a removal.
type op struct {
	verb  verb
	slice *slice
	obj   *discoveryv1.EndpointSlice
}

// plan places what waits and says what to write, removals last. It may be
// called again when writes failed: it then plans what is left.
func (l *layout) plan(trigger time.Time) []op {
	for _, g := range l.groups {
		l.place(g)
	}
	for fam := range families {
		l.settle(fam)
	}
	var ops []op
	for gk, g := range l.groups {
		for _, s := range g.slices {
			switch {
			case s.obj == nil && !l.v.leaving:
				ops = append(ops, op{create, s, l.object(s, trigger)})
			case s.obj != nil && s.dirty:
				ops = append(ops, op{update, s, l.object(s, trigger)})
			}
		}
		if len(g.slices) == 0 {
			delete(l.groups, gk)
		}
	}
	for _, obj := range l.condemned {
		ops = append(ops, op{verb: remove, obj: obj})
	}
	slices.SortStableFunc(ops, func(a, b op) int {
		c := cmp.Or(cmp.Compare(a.verb, b.verb), cmp.Compare(a.obj.Name, b.obj.Name))
		if c == 0 && a.slice != nil {
			x, y := a.slice.group, b.slice.group
			c = cmp.Or(cmp.Compare(x.family, y.family), cmp.Compare(x.canon, y.canon))
		}
		return c
	})
	return ops
}

// place gives each waiting endpoint a slice: first those that must be written
// anyway, fullest first; then one slice that has room for all the rest; then
// new ones.
func (l *layout) place(g *group) {
	if len(g.waiting) == 0 {
		return
	}
	slices.SortStableFunc(g.slices, func(a, b *slice) int {
		return cmp.Or(cmp.Compare(len(b.eps), len(a.eps)), cmp.Compare(a.name(), b.name()))
	})
	for _, s := range g.slices {
		if s.dirty {
			l.fill(s)
		}
	}
	if n := len(g.waiting); n > 0 {
		for _, s := range g.slices {
			if len(s.eps)+n <= l.max {
				l.fill(s)
				break
			}
		}
	}
	for len(g.waiting) > 0 {
		s := &slice{group: g, own: true}
		g.slices = append(g.slices, s)
		l.fill(s)
	}
	g.waiting = nil
}

func (l *layout) fill(s *slice) {
	g := s.group
	n := min(l.max-len(s.eps), len(g.waiting))
	if n <= 0 {
		return
	}
	s.write()
	for i := range g.waiting[:n] {
		if k, ok := keyOf(&g.waiting[i], g.family); ok {
			l.where[k] = spot{s, int32(len(s.eps))}
		}
		s.eps = append(s.eps, g.waiting[i])
	}
	g.waiting = g.waiting[n:]
}

func (s *slice) name() string {
	if s.obj == nil {
		return ""
	}
	return s.obj.Name
}

// settle decides about the empty slices of a family: one that is to go is
// used in place of one that is to be made, one stays when nothing else does.
func (l *layout) settle(fam family) {
	if !l.v.families[fam] {
		return
	}
	var fresh, empty []*slice
	kept := 0
	for _, g := range l.groups {
		if g.family != fam {
			continue
		}
		for _, s := range g.slices {
			switch {
			case len(s.eps) == 0:
				empty = append(empty, s)
			case s.obj == nil:
				fresh = append(fresh, s)
			default:
				kept++
			}
		}
	}
	if len(empty) == 0 && (kept > 0 || len(fresh) > 0) {
		return
	}
	byName := func(a, b *slice) int { return cmp.Compare(a.name(), b.name()) }
	slices.SortFunc(empty, byName)
	for len(empty) > 0 && empty[0].obj == nil { // never written, nothing to undo
		l.detach(empty[0])
		empty = empty[1:]
	}
	for len(fresh) > 0 && len(empty) > 0 {
		f, e := fresh[0], empty[0]
		l.detach(e)
		f.obj, f.dirty = e.obj, true
		l.byName[f.obj.Name] = f
		fresh, empty = fresh[1:], empty[1:]
		kept++
	}
	if kept+len(fresh) == 0 {
		none := l.group(fam, "", []discoveryv1.EndpointPort{})
		switch {
		case len(empty) > 0: // becomes the placeholder
			e := empty[0]
			if e.group != none {
				l.detach(e)
				e.group, e.dirty = none, true
				none.slices = append(none.slices, e)
				l.byName[e.obj.Name] = e
			}
			empty = empty[1:]
		case l.v.selects:
			none.slices = append(none.slices, &slice{group: none, own: true, dirty: true})
		}
	}
	for _, e := range empty {
		l.detach(e)
		l.condemned[e.obj.Name] = e.obj
	}
}

func (l *layout) detach(s *slice) {
	g := s.group
	g.slices = slices.DeleteFunc(g.slices, func(o *slice) bool { return o == s })
	if s.obj != nil {
		delete(l.byName, s.obj.Name)
	}
}

// object builds what is sent. The endpoints are shared with the slice: nothing
// changes them while the write is under way.
func (l *layout) object(s *slice, trigger time.Time) *discoveryv1.EndpointSlice {
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: l.v.namespace, GenerateName: l.v.prefix, Labels: l.v.labels,
			OwnerReferences: []metav1.OwnerReference{l.v.owner},
		},
		AddressType: addressTypes[s.group.family],
		Ports:       s.group.ports,
		Endpoints:   s.eps,
	}
	if s.obj != nil {
		o.ObjectMeta = *s.obj.ObjectMeta.DeepCopy()
		o.ManagedFields = nil
		o.Labels = l.v.labels
	}
	if o.Endpoints == nil {
		o.Endpoints = []discoveryv1.Endpoint{}
	}
	if o.Ports == nil {
		o.Ports = []discoveryv1.EndpointPort{}
	}
	if !trigger.IsZero() {
		if o.Annotations = maps.Clone(o.Annotations); o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
	} else {
		delete(o.Annotations, corev1.EndpointsLastChangeTriggerTime)
	}
	return o
}

// written takes the server's answer to a create or update.
func (l *layout) written(s *slice, answer *discoveryv1.EndpointSlice) {
	answer.ManagedFields = nil
	answer.Endpoints = s.eps // one copy, until the watch brings the shared one
	s.obj, s.own, s.dirty = answer, false, false
	l.byName[answer.Name] = s
}

// gone takes note that a slice is no longer there.
func (l *layout) gone(name string) {
	delete(l.condemned, name)
	if _, ok := l.byName[name]; ok {
		delete(l.byName, name)
		l.stale = true
	}
}

// seen takes what a watch says about a slice: an echo of our own write is
// adopted, so that only one copy stays in memory; anything else that is newer
// was written by somebody else.
func (l *layout) seen(obj *discoveryv1.EndpointSlice) {
	if old, ok := l.condemned[obj.Name]; ok {
		if newer(obj, old) {
			l.condemned[obj.Name] = obj
		}
		return
	}
	s := l.byName[obj.Name]
	switch {
	case s == nil:
		l.condemned[obj.Name] = obj // until load has looked at it
		l.stale = true
	case obj.ResourceVersion == s.obj.ResourceVersion:
		if s.dirty {
			return // its endpoints are about to be written
		}
		if len(obj.Endpoints) != len(s.eps) {
			s.obj, l.stale = obj, true
			return
		}
		for i := range s.eps {
			a, b := s.eps[i].TargetRef, obj.Endpoints[i].TargetRef
			if a == nil || b == nil || a.Name != b.Name || a.Kind != b.Kind {
				s.obj, l.stale = obj, true
				return
			}
		}
		s.obj, s.eps, s.own = obj, obj.Endpoints, false
	case newer(obj, s.obj):
		s.obj = obj
		l.stale = true
	}
}

// newer compares two states of one object. Versions that cannot be compared
// count as news.
func newer(a, b *discoveryv1.EndpointSlice) bool {
	c, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || c > 0
}
