package ingress

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Translation is what objects come to.
type Translation struct {
	Update   route.Update // the whole: Replace is set
	Problems []Problem
	Ours     []catalog.Key // the Ingresses that are for this gateway
}

// Translate makes the routes of Ingresses (networking.k8s.io/v1) and of the
// IngressClasses, Services, Secrets and ConfigMaps beside them. It keeps no part
// of the slice; the objects must not change any more.
func Translate(objects []runtime.Object, o Options) (*Translation, error) {
	s := newState(o)
	for _, obj := range objects {
		if err := s.put(obj); err != nil {
			return nil, err
		}
	}
	u := s.flush()
	t := &Translation{Update: *u}
	for _, p := range s.tell() {
		t.Problems = append(t.Problems, p...)
	}
	sortProblems(t.Problems)
	for k := range s.drafts {
		t.Ours = append(t.Ours, k)
	}
	slices.SortFunc(t.Ours, compareKeys)
	return t, nil
}

func (s *state) put(obj runtime.Object) error {
	switch o := obj.(type) {
	case *networkingv1.Ingress:
		s.putIngress(keyOf(o), o)
	case *networkingv1.IngressClass:
		s.putClass(o.Name, o)
	case *corev1.Service:
		s.putService(keyOf(o), o)
	case *corev1.Secret:
		s.putSecret(keyOf(o), o)
	case *corev1.ConfigMap:
		s.putConfigMap(keyOf(o), o)
	default:
		return fmt.Errorf("ingress: translate: an object is a %T, which no Ingress refers to", obj)
	}
	return nil
}
