package ingress

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/ingress/annotation"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// ref is an object that an Ingress refers to.
type ref struct {
	kind string // Service, Secret, ConfigMap
	key  catalog.Key
}

const (
	kindService   = "Service"
	kindSecret    = "Secret"
	kindConfigMap = "ConfigMap"
)

// claim is what one Ingress wants of one host and path.
type claim struct {
	host     string
	n        int // the number of the path in the Ingress
	kind     route.PathKind
	path     string
	backend  *route.Backend
	problem  string
	fallback bool // the Ingress' default backend: it gives way to anybody's rule
}

// draft is all that one Ingress wants, before it meets the others of its hosts.
type draft struct {
	in       *networkingv1.Ingress
	key      catalog.Key
	r        *annotation.Reading
	policy   *route.Policy
	closed   string // why all its rules answer 503; "": they work
	redirect *route.Redirect
	client   *route.ClientCert
	claims   []claim
	problems []Problem
	refs     []ref // with every object that was looked for, there or not
	lookups  []ref // those of refs that an annotation names
	hosts    []string
	regex    bool
}

// translator drafts Ingresses.
type translator struct {
	o           Options
	objects     Objects
	table       map[string]*annotation.Annotation
	plain       *annotation.Reading // of an Ingress without annotations
	policy      *route.Policy       // the same
	pairs       map[catalog.Key]*pair
	pools       map[catalog.Key]authorities  // by Secret
	endpointTLS map[catalog.Key]*endpointTLS // by Ingress
}

func newTranslator(o Options) *translator {
	o.complete()
	t := &translator{o: o, table: map[string]*annotation.Annotation{}, pairs: map[catalog.Key]*pair{}, pools: map[catalog.Key]authorities{}, endpointTLS: map[catalog.Key]*endpointTLS{}, plain: annotation.New()}
	t.policy = &t.plain.Policy
	all := annotation.All()
	for i := range all {
		t.table[all[i].Key] = &all[i]
	}
	t.objects = Objects{
		Ingresses: map[catalog.Key]*networkingv1.Ingress{}, Classes: map[string]*networkingv1.IngressClass{},
		Services: map[catalog.Key]*corev1.Service{}, Secrets: map[catalog.Key]*corev1.Secret{}, ConfigMaps: map[catalog.Key]*corev1.ConfigMap{},
	}
	return t
}

func (d *draft) warn(reason, format string, args ...any) {
	d.problems = append(d.problems, Problem{Namespace: d.key.Namespace, Name: d.key.Name, Type: corev1.EventTypeWarning, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (d *draft) refer(kind string, k catalog.Key) {
	if r := (ref{kind, k}); !slices.Contains(d.refs, r) {
		d.refs = append(d.refs, r)
	}
}

// draft reads one Ingress; nil if it is not ours.
func (t *translator) draft(k catalog.Key, in *networkingv1.Ingress) *draft {
	if !t.ours(in) {
		return nil
	}
	d := &draft{in: in, key: k, r: t.plain, policy: t.policy}
	t.annotations(d)
	t.claims(d)
	d.hosts = hostsOf(d)
	return d
}

func hostsOf(d *draft) []string {
	var hosts []string
	add := func(h string) {
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	for i := range d.claims {
		add(d.claims[i].host)
	}
	if d.r.WWW {
		for _, h := range slices.Clone(hosts) {
			if o := otherWWW(h); o != "" {
				add(o)
			}
		}
	}
	for _, h := range d.r.Aliases {
		add(h)
	}
	for i := range d.in.Spec.TLS {
		for _, h := range d.in.Spec.TLS[i].Hosts {
			add(strings.ToLower(h))
		}
		if s := d.in.Spec.TLS[i].SecretName; s != "" {
			d.refer(kindSecret, catalog.Key{Namespace: d.key.Namespace, Name: s})
		}
	}
	return hosts
}

// otherWWW is the host with or without www; "": there is none.
func otherWWW(h string) string {
	if h == "" || strings.HasPrefix(h, "*.") || !strings.Contains(h, ".") {
		return ""
	}
	if rest, ok := strings.CutPrefix(h, "www."); ok {
		return rest
	}
	return "www." + h
}

func (t *translator) annotations(d *draft) {
	var keys []string
	for k := range d.in.Annotations {
		if strings.HasPrefix(k, t.o.Prefix) && len(k) > len(t.o.Prefix) && k[len(t.o.Prefix)] == '/' {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	d.r = annotation.New()
	d.policy = &d.r.Policy
	if b, err := annotation.ParseBool(d.in.Annotations[t.o.Prefix+"/canary"]); b && err == nil {
		d.r.IsCanary = true
	}
	for _, k := range keys {
		a, v := t.table[k[len(t.o.Prefix)+1:]], d.in.Annotations[k]
		switch {
		case a == nil:
			d.warn(ReasonUnsupported, "the annotation %s is not known here: it has no effect", k)
		case d.r.IsCanary && !a.Canary:
			// As documented for ingress-nginx: those of the main Ingress hold.
		case a.Support == annotation.Unsupported:
			if b, err := annotation.ParseBool(v); err == nil && !b {
				continue // switched off is what it is
			}
			reason := ReasonUnsupported
			if strings.HasSuffix(k, "-snippet") {
				reason = ReasonSnippet
			}
			d.warn(reason, "the annotation %s is not supported: %s", k, a.Note)
			if a.Closed {
				d.close("the annotation %s is not supported", k)
			}
		case a.Apply != nil:
			err := a.Apply(d.r, v)
			if err == nil {
				continue
			}
			d.warn(ReasonAnnotation, "%s", t.bad(a, k, v, err))
			if a.Closed {
				d.close("the annotation %s has the value %q, which is not understood", k, v)
			}
		}
	}
	t.settle(d)
}

func (t *translator) bad(a *annotation.Annotation, k, v string, err error) string {
	if len(v) > 200 {
		v = v[:200] + "..."
	}
	m := fmt.Sprintf("the annotation %s has the value %q, which is not understood", k, v)
	if err != nil && err != annotation.ErrValue { //nolint:errorlint // the bare one has nothing to add
		m += strings.TrimPrefix(err.Error(), annotation.ErrValue.Error())
	}
	if a.Want != "" {
		m += "; right is " + a.Want
	}
	if a.Closed {
		return m + ". Until then its rules answer 503"
	}
	return m + ". Until then it has no effect"
}

func (d *draft) close(format string, args ...any) {
	if d.closed == "" {
		d.closed = fmt.Sprintf(format, args...)
	}
}

// claims lists what the Ingress wants.
func (t *translator) claims(d *draft) {
	n := 0
	spec := &d.in.Spec
	var fallback *claim
	if spec.DefaultBackend != nil {
		fallback = &claim{n: -1, path: "/", fallback: len(spec.Rules) > 0}
		fallback.backend, fallback.problem = t.backend(d, spec.DefaultBackend)
	}
	if len(spec.Rules) == 0 {
		if fallback != nil {
			d.claims = append(d.claims, *fallback)
		}
		return
	}
	var seen []string
	for i := range spec.Rules {
		r := &spec.Rules[i]
		host := strings.ToLower(r.Host)
		if fallback != nil && !slices.Contains(seen, host) {
			f := *fallback
			f.host = host
			d.claims = append(d.claims, f)
		}
		seen = append(seen, host)
		if r.HTTP == nil || len(r.HTTP.Paths) == 0 {
			if fallback == nil {
				d.warn(ReasonBackend, "the rule of host %q has no paths and the Ingress no spec.defaultBackend: there is nowhere to send its requests", r.Host)
			}
			n++
			continue
		}
		for j := range r.HTTP.Paths {
			p := &r.HTTP.Paths[j]
			c := claim{host: host, n: n, path: p.Path, kind: route.StringPrefix}
			n++
			if p.PathType != nil {
				switch *p.PathType {
				case networkingv1.PathTypeExact:
					c.kind = route.Exact
				case networkingv1.PathTypePrefix:
					c.kind = route.Prefix
				}
			}
			if c.path == "" {
				c.path, c.kind = "/", route.Prefix
			}
			c.backend, c.problem = t.backend(d, &p.Backend)
			d.claims = append(d.claims, c)
		}
	}
}

var errExternalName = errors.New("type ExternalName")

// backend finds the Service and port of a backend, or why there is none.
func (t *translator) backend(d *draft, b *networkingv1.IngressBackend) (*route.Backend, string) {
	if b.Service == nil {
		kind := "nothing"
		if b.Resource != nil {
			kind = b.Resource.Kind + " " + b.Resource.Name
		}
		m := "a backend is " + kind + ": only Services can be backends"
		d.warn(ReasonBackend, "%s; the rule answers 503", m)
		return nil, m
	}
	k := catalog.Key{Namespace: d.key.Namespace, Name: b.Service.Name}
	out, err := t.port(d, k, b.Service.Port)
	if err != nil {
		d.warn(ReasonBackend, "%s; the rule answers 503", err)
		return nil, err.Error()
	}
	return out, ""
}

// port finds a port of a Service. The number 0 without a name is the first one.
func (t *translator) port(d *draft, k catalog.Key, want networkingv1.ServiceBackendPort) (*route.Backend, error) {
	d.refer(kindService, k)
	s := t.objects.Services[k]
	if s == nil {
		return nil, fmt.Errorf("the Service %s does not exist", k)
	}
	external := s.Spec.Type == corev1.ServiceTypeExternalName
	if external && !t.o.AllowExternalName {
		return nil, fmt.Errorf("the Service %s is of %w, which this gateway is not allowed to follow (--allow-external-name)", k, errExternalName)
	}
	var found *corev1.ServicePort
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		switch {
		case want.Name != "" && p.Name == want.Name, want.Number != 0 && p.Port == want.Number, want.Name == "" && want.Number == 0:
			found = p
		case found == nil && (want.Name != "" && p.TargetPort.StrVal == want.Name || want.Number != 0 && p.TargetPort.IntVal == want.Number):
			found = p // ingress-nginx knows ports by their target too
			continue
		default:
			continue
		}
		break
	}
	b := &route.Backend{Service: k, Weight: 1}
	switch {
	case external:
		n := want.Number
		if found != nil {
			n = found.Port
		}
		if n == 0 {
			return nil, fmt.Errorf("the Service %s is of %w and has no port %q: give a number", k, errExternalName, want.Name)
		}
		b.Port = fmt.Sprint(n)
		b.External = joinHostPort(s.Spec.ExternalName, n)
		return b, nil
	case found == nil:
		asked := fmt.Sprintf("port %d", want.Number)
		if want.Name != "" {
			asked = fmt.Sprintf("port named %q", want.Name)
		}
		if want.Name == "" && want.Number == 0 {
			asked = "port"
		}
		return nil, fmt.Errorf("the Service %s has no %s; it has %s", k, strings.Replace(asked, "port", "TCP port", 1), portsOf(s))
	case found.Name != "":
		b.Port = found.Name
	default:
		b.Port = fmt.Sprint(found.Port)
	}
	if d.r.ServiceUpstream {
		if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
			b.External = joinHostPort(ip, found.Port)
		} else {
			d.warn(ReasonAnnotation, "%s/service-upstream has no effect on the Service %s: it has no cluster address", t.o.Prefix, k)
		}
	}
	return b, nil
}

func portsOf(s *corev1.Service) string {
	var all []string
	for _, p := range s.Spec.Ports {
		text := fmt.Sprint(p.Port)
		if p.Name != "" {
			text = p.Name + " (" + text + ")"
		}
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			text += "/" + string(p.Protocol)
		}
		all = append(all, text)
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
