package ingress

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// TestIncremental: after any change of any object, what was handed over so far
// is what Translate makes of all objects.
func TestIncremental(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		o := Options{Now: func() time.Time { return today }, AllowExternalName: seed%2 == 0}
		st := newState(o)
		sum := &Translation{Update: route.Update{Hosts: map[string]*route.Host{}, Certificates: map[string]*route.Certificate{}}}
		problems := map[catalog.Key][]Problem{}
		objects := map[string]runtime.Object{}
		secrets := []*corev1.Secret{}
		for i := range 3 {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("s%d", i), Annotations: map[string]string{"test/names": "h0.x,h1.x"}}, Type: corev1.SecretTypeTLS}
			fill(t, s)
			s.Data["auth"] = []byte("a:b")
			secrets = append(secrets, s)
		}
		for step := range 150 {
			var old runtime.Object
			id, obj := randomObject(rnd, secrets)
			if old = objects[id]; old != nil && rnd.IntN(3) == 0 {
				obj = nil
			}
			if obj != nil {
				objects[id] = obj
				if err := st.put(obj); err != nil {
					t.Fatal(err)
				}
			} else {
				delete(objects, id)
				st.gone(old)
			}
			if rnd.IntN(3) == 0 {
				continue // changes come together
			}
			if u := st.flush(); u != nil {
				add(&sum.Update, u)
			}
			maps.Copy(problems, st.tell())
			all := make([]runtime.Object, 0, len(objects))
			for _, obj := range objects {
				all = append(all, obj)
			}
			want, err := Translate(all, o)
			if err != nil {
				t.Fatal(err)
			}
			sum.Problems, sum.Ours = nil, want.Ours
			for _, p := range problems {
				sum.Problems = append(sum.Problems, p...)
			}
			sum.Problems = sortProblems(sum.Problems)
			if got, want := dump(sum), dump(want); got != want {
				t.Fatalf("seed %d, step %d (%s): got\n%s\nwant\n%s", seed, step, id, got, want)
			}
		}
	}
}

func add(to, u *route.Update) {
	for k, h := range u.Hosts {
		if to.Hosts[k] = h; h == nil {
			delete(to.Hosts, k)
		}
	}
	for k, c := range u.Certificates {
		if to.Certificates[k] = c; c == nil {
			delete(to.Certificates, k)
		}
	}
	if u.Global != nil {
		to.Global = u.Global
	}
}

func (s *state) gone(obj runtime.Object) {
	switch o := obj.(type) {
	case *networkingv1.Ingress:
		s.putIngress(keyOf(o), nil)
	case *networkingv1.IngressClass:
		s.putClass(o.Name, nil)
	case *corev1.Service:
		s.putService(keyOf(o), nil)
	case *corev1.Secret:
		s.putSecret(keyOf(o), nil)
	case *corev1.ConfigMap:
		s.putConfigMap(keyOf(o), nil)
	}
}

func randomObject(rnd *rand.Rand, secrets []*corev1.Secret) (string, runtime.Object) {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	switch n := rnd.IntN(20); {
	case n == 0:
		name := []string{"nginx", "fingerpost"}[rnd.IntN(2)]
		c := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}}}
		c.Spec.Controller = []string{ControllerName, "example.com/other"}[rnd.IntN(2)]
		if rnd.IntN(3) == 0 {
			c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] = "true"
		}
		return "class/" + name, c
	case n < 4:
		s := &corev1.Service{ObjectMeta: meta(fmt.Sprintf("w%d", rnd.IntN(4)))}
		for i := range rnd.IntN(3) {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Port: int32(80 + i)})
		}
		if rnd.IntN(5) == 0 {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "x.example.net"
		}
		return "service/" + s.Name, s
	case n == 4:
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "default-http-backend"}}
		s.Spec.Ports = []corev1.ServicePort{{Port: int32(80 + rnd.IntN(2))}}
		return "service/default", s
	case n < 7:
		s := *secrets[rnd.IntN(len(secrets))]
		if rnd.IntN(3) == 0 {
			s.Data = map[string][]byte{"auth": []byte("x")}
		}
		return "secret/" + s.Name, &s
	case n == 7:
		return "map/m", &corev1.ConfigMap{ObjectMeta: meta("m"), Data: map[string]string{"X-A": fmt.Sprint(rnd.IntN(3))}}
	}
	return randomIngress(rnd)
}

func randomIngress(rnd *rand.Rand) (string, runtime.Object) {
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	in := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("i%d", rnd.IntN(8)), Annotations: map[string]string{}}}
	in.CreationTimestamp = metav1.Unix(int64(in.Name[1]), 0)
	for _, a := range [][2]string{{"canary", "true"}, {"canary-weight", "20"}, {"use-regex", "true"}, {"server-alias", pick("h0.x", "h3.x", "h4.x,h5.x")}, {"from-to-www-redirect", "true"},
		{"auth-type", "basic"}, {"auth-secret", pick("s0", "s1", "none")}, {"custom-headers", "m"}, {"whitelist-source-range", pick("10.0.0.0/8", "x")}, {"custom-http-errors", "404"},
		{"auth-tls-secret", pick("s0", "s2")}, {"ssl-passthrough", "true"}, {"default-backend", pick("w0", "w1")}} {
		if rnd.IntN(7) == 0 {
			in.Annotations[Prefix+"/"+a[0]] = a[1]
		}
	}
	if rnd.IntN(3) == 0 {
		c := pick("nginx", "fingerpost", "other")
		in.Spec.IngressClassName = &c
	}
	backend := func() networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: fmt.Sprintf("w%d", rnd.IntN(4)), Port: networkingv1.ServiceBackendPort{Number: int32(80 + rnd.IntN(2))}}}
	}
	if rnd.IntN(4) == 0 {
		b := backend()
		in.Spec.DefaultBackend = &b
	}
	for range rnd.IntN(3) {
		r := networkingv1.IngressRule{Host: pick("h0.x", "h1.x", "www.h1.x", "*.x", ""), IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{}}}
		for range rnd.IntN(3) {
			kind := networkingv1.PathType(pick("Exact", "Prefix", "ImplementationSpecific"))
			r.HTTP.Paths = append(r.HTTP.Paths, networkingv1.HTTPIngressPath{Path: pick("/", "/a", "/a/", "/b("), PathType: &kind, Backend: backend()})
		}
		in.Spec.Rules = append(in.Spec.Rules, r)
	}
	if rnd.IntN(3) == 0 {
		in.Spec.TLS = []networkingv1.IngressTLS{{Hosts: []string{pick("h0.x", "h1.x", "*.x")}, SecretName: pick("s0", "s1", "s2", "")}}
	}
	return "ingress/" + in.Name, in
}

// tenThousand are Ingresses with a Service each.
func tenThousand() *state {
	st := newState(Options{})
	kind := networkingv1.PathTypePrefix
	for i := range 10_000 {
		name := fmt.Sprintf("web-%d", i)
		in := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{Prefix + "/proxy-read-timeout": "30"}}}
		in.Spec.Rules = []networkingv1.IngressRule{{Host: name + ".example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
			{Path: "/", PathType: &kind, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}
		_ = st.put(in)
		_ = st.put(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})
	}
	return st
}

func BenchmarkFirst10000(b *testing.B) {
	for b.Loop() {
		st := tenThousand()
		if u := st.flush(); len(u.Hosts) != 10_000 {
			b.Fatal(len(u.Hosts))
		}
		st.tell()
	}
}

func BenchmarkOneOf10000(b *testing.B) {
	st := tenThousand()
	st.flush()
	k := catalog.Key{Namespace: "default", Name: "web-77"}
	in := st.objects.Ingresses[k]
	for i := 0; b.Loop(); i++ {
		in = in.DeepCopy()
		in.Annotations[Prefix+"/proxy-read-timeout"] = fmt.Sprint(i%50 + 1)
		st.putIngress(k, in)
		if u := st.flush(); len(u.Hosts) != 1 {
			b.Fatal(len(u.Hosts))
		}
		st.tell()
	}
}
