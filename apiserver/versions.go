package apiserver

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apimachineryversion "k8s.io/apimachinery/pkg/version"
)

var everything = labels.Everything()

// sortVersions puts the most stable, newest version first, as discovery wants.
func sortVersions(v []metav1.GroupVersionForDiscovery) {
	slices.SortFunc(v, func(a, b metav1.GroupVersionForDiscovery) int {
		return -apimachineryversion.CompareKubeAwareVersionStrings(a.Version, b.Version)
	})
}
