package ingress

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fingerpost/fingerpost/catalog"
)

// The names that this gateway goes by unless told otherwise.
const (
	// ControllerName is the controller of IngressClasses that are ours.
	ControllerName = "fingerpost.dev/gateway"
	// Prefix is that of ingress-nginx' annotations.
	Prefix = "nginx.ingress.kubernetes.io"
	// DefaultService takes what no rule does, if it exists.
	DefaultService = "kube-system/default-http-backend"

	nginxController = "k8s.io/ingress-nginx"
	classAnnotation = "kubernetes.io/ingress.class"
)

// Options is what a translation depends on beside the objects. The zero value
// is usable.
type Options struct {
	Classes             []string // of classes that are ours by name; nginx and fingerpost if nil
	Controller          string   // ControllerName if empty
	OnlyWithClass       bool     // an Ingress without class is not ours, unless the default class is
	Prefix              string   // of the annotations; Prefix if empty
	AllowExternalName   bool     // backends may be Services of type ExternalName
	AllowCrossNamespace bool     // annotations may name Secrets and ConfigMaps of other namespaces
	DefaultService      string   // namespace/name; DefaultService if empty, "-" for none
	DefaultCertificate  string   // namespace/name of a Secret; empty: the gateway makes one
	Now                 func() time.Time
}

func (o *Options) complete() {
	if o.Classes == nil {
		o.Classes = []string{"nginx", "fingerpost"}
	}
	o.Controller = cmp.Or(o.Controller, ControllerName)
	o.Prefix = cmp.Or(o.Prefix, Prefix)
	o.DefaultService = cmp.Or(o.DefaultService, DefaultService)
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Objects are those that a translation reads, by name.
type Objects struct {
	Ingresses  map[catalog.Key]*networkingv1.Ingress
	Classes    map[string]*networkingv1.IngressClass
	Services   map[catalog.Key]*corev1.Service
	Secrets    map[catalog.Key]*corev1.Secret
	ConfigMaps map[catalog.Key]*corev1.ConfigMap
}

// Problem is something about an Ingress that its owner should know: an Event.
type Problem struct {
	Namespace, Name string // of the Ingress
	Type            string // Warning or Normal
	Reason          string
	Message         string
}

// The reasons of problems.
const (
	ReasonAnnotation  = "BadAnnotation"         // a value that cannot be understood
	ReasonUnsupported = "UnsupportedAnnotation" // it has no effect
	ReasonSnippet     = "SnippetRefused"
	ReasonBackend     = "BackendUnusable" // Service or port: the rule answers 503
	ReasonConflict    = "HostPathTaken"   // another Ingress has it
	ReasonTLS         = "HostWithoutCertificate"
	ReasonCertificate = "CertificateUnusable"
	ReasonExpires     = "CertificateExpires"
	ReasonSecret      = "SecretUnusable"
	ReasonConfigMap   = "ConfigMapUnusable"
	ReasonCanary      = "CanaryUnused"
	ReasonPath        = "BadPath"
)

func (p Problem) compare(o Problem) int {
	return cmp.Or(cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name), cmp.Compare(p.Reason, o.Reason), cmp.Compare(p.Message, o.Message))
}

func sortProblems(p []Problem) []Problem {
	slices.SortFunc(p, Problem.compare)
	return slices.Compact(p)
}

// ours says whether an Ingress is for this gateway.
func (t *translator) ours(in *networkingv1.Ingress) bool {
	if in.DeletionTimestamp != nil {
		return false
	}
	if name, ok := in.Annotations[classAnnotation]; ok && name != "" {
		return t.class(name)
	}
	if c := in.Spec.IngressClassName; c != nil {
		return t.class(*c)
	}
	byDefault := false
	for _, c := range t.objects.Classes {
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			if t.class(c.Name) {
				return true
			}
			byDefault = true
		}
	}
	return !byDefault && !t.o.OnlyWithClass
}

func (t *translator) class(name string) bool {
	c := t.objects.Classes[name]
	if c == nil {
		return slices.Contains(t.o.Classes, name)
	}
	return c.Spec.Controller == t.o.Controller || c.Spec.Controller == nginxController && slices.Contains(t.o.Classes, name)
}
