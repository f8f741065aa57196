package ingress

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/catalog"
)

func keyOf(o metav1.Object) catalog.Key {
	return catalog.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func compareKeys(a, b catalog.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
