package ingress

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// state is a translation that is kept up to date object by object. It belongs
// to one goroutine.
type state struct {
	*translator
	drafts map[catalog.Key]*draft
	byHost map[string][]*draft // by age
	byRef  map[ref]map[catalog.Key]struct{}

	hosts    map[string]composed
	byCert   map[catalog.Key]map[string]struct{} // Secret -> hosts that show it
	certs    map[catalog.Key]*route.Certificate
	global   route.Global
	problems map[catalog.Key][]Problem // of an Ingress, as told last

	lookups map[ref]int      // how many drafts have an annotation that names it
	wanted  map[ref]struct{} // those whose number changed

	redraft   map[catalog.Key]struct{}
	again     map[string]struct{} // hosts
	renew     map[catalog.Key]struct{}
	told      map[catalog.Key]struct{} // Ingresses whose problems may differ
	redrafted map[catalog.Key]struct{} // since somebody cleared it
	all       bool
	first     bool
}

func newState(o Options) *state {
	return &state{
		translator: newTranslator(o), drafts: map[catalog.Key]*draft{}, byHost: map[string][]*draft{}, byRef: map[ref]map[catalog.Key]struct{}{},
		hosts: map[string]composed{}, byCert: map[catalog.Key]map[string]struct{}{}, certs: map[catalog.Key]*route.Certificate{}, problems: map[catalog.Key][]Problem{},
		redrafted: map[catalog.Key]struct{}{}, lookups: map[ref]int{}, wanted: map[ref]struct{}{},
		redraft: map[catalog.Key]struct{}{}, again: map[string]struct{}{}, renew: map[catalog.Key]struct{}{}, told: map[catalog.Key]struct{}{}, first: true,
	}
}

// put notes that an object is there, changed or (nil) gone.
func put[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
}

func (s *state) putIngress(k catalog.Key, in *networkingv1.Ingress) {
	put(s.objects.Ingresses, k, in)
	if in == nil {
		delete(s.endpointTLS, k)
	}
	s.redraft[k] = struct{}{}
}

func (s *state) putClass(name string, c *networkingv1.IngressClass) {
	put(s.objects.Classes, name, c)
	s.all = true // it is rare, and says whose every Ingress is
}

func (s *state) putService(k catalog.Key, o *corev1.Service) {
	put(s.objects.Services, k, o)
	s.touch(ref{kindService, k})
}

func (s *state) putSecret(k catalog.Key, o *corev1.Secret) {
	put(s.objects.Secrets, k, o)
	if o == nil {
		delete(s.pools, k)
	}
	s.touch(ref{kindSecret, k})
	s.renew[k] = struct{}{}
}

func (s *state) putConfigMap(k catalog.Key, o *corev1.ConfigMap) {
	put(s.objects.ConfigMaps, k, o)
	s.touch(ref{kindConfigMap, k})
}

func (s *state) touch(r ref) {
	for k := range s.byRef[r] {
		s.redraft[k] = struct{}{}
	}
}

// flush gives what the changes since the last one come to; nil: nothing.
func (s *state) flush() *route.Update {
	s.redraftAll()
	u := &route.Update{Hosts: map[string]*route.Host{}, Certificates: map[string]*route.Certificate{}, Replace: s.first}
	with := func(h string) []*draft { return s.byHost[h] }
	for name := range s.again {
		old, was := s.hosts[name]
		drafts := s.byHost[name]
		if len(drafts) == 0 {
			delete(s.hosts, name)
			s.blame(old.problems)
			s.move(name, old.secret, catalog.Key{})
			if was && old.host != nil {
				u.Hosts[name] = nil
			}
			continue
		}
		now := s.compose(name, drafts, with)
		if was && same(old.host, now.host) {
			now.host = old.host
		} else if now.host != nil || was && old.host != nil {
			u.Hosts[name] = now.host
		}
		s.move(name, old.secret, now.secret)
		s.blame(old.problems)
		s.blame(now.problems)
		s.hosts[name] = now
	}
	clear(s.again)
	s.renewCertificates(u)
	if g := s.newGlobal(); s.first || !same(&g, &s.global) {
		s.global = g
		u.Global = &g
	}
	if !s.first && len(u.Hosts) == 0 && len(u.Certificates) == 0 && u.Global == nil {
		return nil
	}
	s.first = false
	return u
}

// redraftAll reads again every Ingress that is touched.
func (s *state) redraftAll() {
	if s.all {
		for k := range s.objects.Ingresses {
			s.redraft[k] = struct{}{}
		}
		s.all = false
	}
	for k := range s.redraft {
		s.replace(k)
	}
	clear(s.redraft)
}

// count notes how many drafts look for an object.
func (s *state) count(r ref, by int) {
	if s.lookups[r] += by; s.lookups[r] == 0 {
		delete(s.lookups, r)
	}
	s.wanted[r] = struct{}{}
}

// same compares what is told; pools of authorities compare by pointer, so that
// a draft made anew may count as a change when it is none.
func same[T any](a, b *T) bool {
	return (a == nil) == (b == nil) && (a == nil || reflect.DeepEqual(a, b))
}

func (s *state) replace(k catalog.Key) {
	old := s.drafts[k]
	if old != nil {
		for _, r := range old.refs {
			delete(s.byRef[r], k)
			if len(s.byRef[r]) == 0 {
				delete(s.byRef, r)
			}
		}
		for _, r := range old.lookups {
			s.count(r, -1)
		}
		for _, h := range old.hosts {
			s.again[h] = struct{}{}
			s.spread(h)
			l := slices.DeleteFunc(slices.Clone(s.byHost[h]), func(d *draft) bool { return d == old })
			if len(l) == 0 {
				delete(s.byHost, h)
			} else {
				s.byHost[h] = l
			}
		}
		delete(s.drafts, k)
	}
	s.told[k] = struct{}{}
	s.redrafted[k] = struct{}{}
	in := s.objects.Ingresses[k]
	if in == nil {
		return
	}
	d := s.draft(k, in)
	if d == nil {
		return
	}
	s.drafts[k] = d
	for _, r := range d.refs {
		if s.byRef[r] == nil {
			s.byRef[r] = map[catalog.Key]struct{}{}
		}
		s.byRef[r][k] = struct{}{}
	}
	for _, r := range d.lookups {
		s.count(r, +1)
	}
	for _, h := range d.hosts {
		s.again[h] = struct{}{}
		l := slices.Clone(s.byHost[h])
		at, _ := slices.BinarySearchFunc(l, d, func(a, b *draft) int { return older(a.in, b.in) })
		s.byHost[h] = slices.Insert(l, at, d)
		s.spread(h)
	}
}

// spread notes the hosts that are made from one.
func (s *state) spread(h string) {
	for _, d := range s.byHost[h] {
		for _, a := range d.r.Aliases {
			s.again[a] = struct{}{}
		}
		if d.r.WWW {
			if o := otherWWW(h); o != "" {
				s.again[o] = struct{}{}
			}
		}
	}
}

func (s *state) blame(p []Problem) {
	for i := range p {
		s.told[catalog.Key{Namespace: p[i].Namespace, Name: p[i].Name}] = struct{}{}
	}
}

// move notes that a host shows the certificate of another Secret.
func (s *state) move(host string, from, to catalog.Key) {
	none := catalog.Key{}
	if from == to {
		return
	}
	if from != none {
		delete(s.byCert[from], host)
		if len(s.byCert[from]) == 0 {
			delete(s.byCert, from)
		}
		s.renew[from] = struct{}{}
	}
	if to != none {
		if s.byCert[to] == nil {
			s.byCert[to] = map[string]struct{}{}
		}
		s.byCert[to][host] = struct{}{}
		s.renew[to] = struct{}{}
	}
}

func (s *state) renewCertificates(u *route.Update) {
	for k := range s.renew {
		old := s.certs[k]
		p, why := s.keyPair(k)
		if len(s.byCert[k]) == 0 || why != "" {
			if old != nil {
				delete(s.certs, k)
				u.Certificates[k.String()] = nil
			}
			continue
		}
		c := &route.Certificate{Origin: route.Origin{Kind: kindSecret, Namespace: k.Namespace, Name: k.Name, Rule: -1}, Chain: p.chain}
		for h := range s.byCert[k] {
			c.Hosts = append(c.Hosts, h)
		}
		slices.Sort(c.Hosts)
		if old == nil || old.Chain != c.Chain || !slices.Equal(old.Hosts, c.Hosts) {
			s.certs[k] = c
			u.Certificates[k.String()] = c
		}
	}
	clear(s.renew)
}

// newGlobal is what is not of a host.
func (s *state) newGlobal() (g route.Global) {
	d := &draft{r: s.plain}
	g.Default = s.defaultService(d)
	if ns, name, ok := strings.Cut(s.o.DefaultCertificate, "/"); ok {
		if p, why := s.keyPair(catalog.Key{Namespace: ns, Name: name}); why == "" {
			g.Certificate = p.chain
		}
	}
	if s.global.Default != nil && same(g.Default, s.global.Default) {
		g.Default = s.global.Default // the table looks at the pointer
	}
	return g
}

// tell gives the Ingresses whose problems have changed, with all they have.
func (s *state) tell() map[catalog.Key][]Problem {
	var out map[catalog.Key][]Problem
	for k := range s.told {
		var p []Problem
		if d := s.drafts[k]; d != nil {
			p = slices.Clone(d.problems)
			for _, h := range d.hosts {
				for _, q := range s.hosts[h].problems {
					if q.Namespace == k.Namespace && q.Name == k.Name {
						p = append(p, q)
					}
				}
			}
			p = sortProblems(p)
		}
		if slices.Equal(p, s.problems[k]) {
			continue
		}
		if out == nil {
			out = map[catalog.Key][]Problem{}
		}
		out[k] = p
		if len(p) == 0 {
			delete(s.problems, k)
		} else {
			s.problems[k] = p
		}
	}
	clear(s.told)
	return out
}
