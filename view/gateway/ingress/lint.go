package ingress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	extensionsv1beta1 "k8s.io/api/extensions/v1beta1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/fingerpost/fingerpost/view/gateway/ingress/annotation"
	"github.com/fingerpost/fingerpost/view/gateway/ingress/manifest"
)

// LintOptions say how [Lint] reads and prints.
type LintOptions struct {
	Options
	Name string // of what is read, for messages
	JSON bool   // else for people
}

// Linted is what Lint says of one Ingress; the JSON form is a list of them.
type Linted struct {
	Namespace   string             `json:"namespace"`
	Name        string             `json:"name"`
	APIVersion  string             `json:"apiVersion"`
	Converted   string             `json:"converted,omitempty"` // to which version
	Ours        bool               `json:"ours"`
	Annotations []LintedAnnotation `json:"annotations"`
	Problems    []LintedProblem    `json:"problems"`
}

// LintedAnnotation is one annotation of ingress-nginx.
type LintedAnnotation struct {
	Key     string             `json:"key"`
	Value   string             `json:"value"`
	Support annotation.Support `json:"support"`
	Note    string             `json:"note"`
}

// LintedProblem is an Event that the Ingress would get.
type LintedProblem struct {
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Lint reads a manifest (documents of YAML or JSON, and Lists) and writes what
// the gateway does with each Ingress in it. problems counts the annotations that
// are not supported and the Warnings. Services, Secrets and ConfigMaps that the
// manifest names and does not hold are taken to exist; those that it holds are looked
// at.
func Lint(r io.Reader, w io.Writer, o LintOptions) (problems int, err error) {
	name := cmp.Or(o.Name, "manifest")
	objects, err := readManifest(r)
	if err != nil {
		return 0, fmt.Errorf("ingress: lint %s: %w", name, err)
	}
	t := newState(o.Options)
	var all []*Linted
	byName := map[string]*Linted{}
	for i, obj := range objects {
		in, from, err := toV1(obj)
		if err != nil {
			return 0, fmt.Errorf("ingress: lint %s: %w", name, err)
		}
		if in == nil {
			if m, ok := obj.(metav1.Object); ok && m.GetNamespace() == "" {
				m.SetNamespace(metav1.NamespaceDefault)
			}
			_ = t.put(obj) // other kinds are skipped
			continue
		}
		in.Namespace = cmp.Or(in.Namespace, metav1.NamespaceDefault)
		if in.CreationTimestamp.IsZero() { // the order of the manifest is that of creation
			in.CreationTimestamp = metav1.Unix(int64(i), 0)
		}
		l := &Linted{Namespace: in.Namespace, Name: in.Name, APIVersion: from, Annotations: []LintedAnnotation{}, Problems: []LintedProblem{}}
		if v := networkingv1.SchemeGroupVersion.String(); from != v {
			l.Converted = v
		}
		all = append(all, l)
		byName[keyOf(in).String()] = l
		t.putIngress(keyOf(in), in)
		l.Annotations = append(l.Annotations, t.lintAnnotations(in)...)
	}
	t.flush()
	for k := range t.drafts {
		byName[k.String()].Ours = true
	}
	for k, ps := range t.tell() {
		l := byName[k.String()]
		for _, p := range ps {
			if !offline(p) {
				continue
			}
			l.Problems = append(l.Problems, LintedProblem{p.Type, p.Reason, p.Message})
		}
	}
	for _, l := range all {
		for _, a := range l.Annotations {
			if a.Support == annotation.Unsupported {
				problems++
			}
		}
		for _, p := range l.Problems {
			if p.Type == corev1.EventTypeWarning && !p.said() {
				problems++
			}
		}
	}
	if o.JSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if all == nil {
			all = []*Linted{}
		}
		return problems, e.Encode(all)
	}
	return problems, printLint(w, all, problems)
}

// said means that the list of annotations says it too.
func (p *LintedProblem) said() bool {
	return slices.Contains([]string{ReasonAnnotation, ReasonUnsupported, ReasonSnippet}, p.Reason) && strings.HasPrefix(p.Message, "the annotation ")
}

// offline says whether a problem is one of the Ingress itself: what it refers to
// need not be in the same manifest.
func offline(p Problem) bool {
	return !strings.Contains(p.Message, "does not exist") && !strings.Contains(p.Message, "there is no Secret")
}

func (t *translator) lintAnnotations(in *networkingv1.Ingress) (out []LintedAnnotation) {
	for k, v := range in.Annotations {
		short, ok := strings.CutPrefix(k, t.o.Prefix+"/")
		if !ok {
			continue
		}
		a := t.table[short]
		l := LintedAnnotation{Key: k, Value: v, Support: annotation.Unsupported, Note: "It is not known here, nor to the releases of ingress-nginx that this was made from. Look for a misspelling."}
		if a != nil {
			l.Support, l.Note = a.Support, a.Note
			if b, err := annotation.ParseBool(v); a.Support == annotation.Unsupported && err == nil && !b {
				l.Support, l.Note = annotation.Translated, "Switched off is what it is."
			}
			if a.Apply != nil {
				if err := a.Apply(annotation.New(), v); err != nil {
					l.Support, l.Note = annotation.Unsupported, strings.ToUpper(t.bad(a, k, v, err)[:1])+t.bad(a, k, v, err)[1:]+"."
				}
			}
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b LintedAnnotation) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func printLint(w io.Writer, all []*Linted, problems int) error {
	var b strings.Builder
	for _, l := range all {
		fmt.Fprintf(&b, "Ingress %s/%s (%s)\n", l.Namespace, l.Name, l.APIVersion)
		if l.Converted != "" {
			fmt.Fprintf(&b, "  converted      to %s; it is accepted as it is written\n", l.Converted)
		}
		if !l.Ours {
			b.WriteString("  not ours       by its class: this gateway will not look at it\n")
		}
		for _, a := range l.Annotations {
			v := strings.ReplaceAll(strings.TrimSpace(a.Value), "\n", " ")
			if len(v) > 60 {
				v = v[:57] + "..."
			}
			fmt.Fprintf(&b, "  %-14s %s: %s\n  %-14s   %s\n", a.Support, a.Key, v, "", a.Note)
		}
		for _, p := range l.Problems {
			if !p.said() {
				fmt.Fprintf(&b, "  %-14s %s: %s\n", strings.ToLower(p.Type), p.Reason, p.Message)
			}
		}
	}
	fmt.Fprintf(&b, "%s, %s\n", count(len(all), "Ingress", "Ingresses"), count(problems, "problem", "problems"))
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// readManifest decodes all documents; kinds that are not known are skipped.
func readManifest(r io.Reader) (out []runtime.Object, err error) {
	all, err := manifest.Read(r)
	if err != nil {
		return nil, err
	}
	for i := range all {
		m := &all[i]
		obj, _, err := clientscheme.Codecs.UniversalDeserializer().Decode(m.JSON, nil, nil)
		switch {
		case runtime.IsNotRegisteredError(err), runtime.IsMissingKind(err), runtime.IsMissingVersion(err):
		case err != nil:
			return nil, fmt.Errorf("document %d: %s %s: %w", m.Document, m.APIVersion, m.Kind, err)
		default:
			out = append(out, obj)
		}
	}
	return out, nil
}

// toV1 converts an Ingress of any version; nil: it is none.
func toV1(obj runtime.Object) (in *networkingv1.Ingress, from string, err error) {
	old := &networkingv1beta1.Ingress{}
	switch o := obj.(type) {
	case *networkingv1.Ingress:
		return o, networkingv1.SchemeGroupVersion.String(), nil
	case *networkingv1beta1.Ingress:
		old, from = o, networkingv1beta1.SchemeGroupVersion.String()
	case *extensionsv1beta1.Ingress:
		// The two have the same form.
		from = extensionsv1beta1.SchemeGroupVersion.String()
		data, err := json.Marshal(o)
		if err == nil {
			err = json.Unmarshal(data, old)
		}
		if err != nil {
			return nil, "", err
		}
	default:
		return nil, "", nil
	}
	in = &networkingv1.Ingress{ObjectMeta: old.ObjectMeta}
	in.Spec.IngressClassName = old.Spec.IngressClassName
	in.Spec.DefaultBackend = backendV1(old.Spec.Backend)
	for _, t := range old.Spec.TLS {
		in.Spec.TLS = append(in.Spec.TLS, networkingv1.IngressTLS{Hosts: t.Hosts, SecretName: t.SecretName})
	}
	for _, r := range old.Spec.Rules {
		n := networkingv1.IngressRule{Host: r.Host}
		if r.HTTP != nil {
			n.HTTP = &networkingv1.HTTPIngressRuleValue{}
			for i := range r.HTTP.Paths {
				p := &r.HTTP.Paths[i]
				kind := networkingv1.PathTypeImplementationSpecific
				if p.PathType != nil {
					kind = networkingv1.PathType(*p.PathType)
				}
				path := networkingv1.HTTPIngressPath{Path: p.Path, PathType: &kind}
				if b := backendV1(&p.Backend); b != nil {
					path.Backend = *b
				}
				n.HTTP.Paths = append(n.HTTP.Paths, path)
			}
		}
		in.Spec.Rules = append(in.Spec.Rules, n)
	}
	return in, from, nil
}

func backendV1(b *networkingv1beta1.IngressBackend) *networkingv1.IngressBackend {
	switch {
	case b == nil:
		return nil
	case b.ServiceName == "":
		return &networkingv1.IngressBackend{Resource: b.Resource}
	}
	s := &networkingv1.IngressServiceBackend{Name: b.ServiceName}
	if b.ServicePort.Type == intstr.String {
		s.Port.Name = b.ServicePort.StrVal
	} else {
		s.Port.Number = b.ServicePort.IntVal
	}
	return &networkingv1.IngressBackend{Service: s}
}
