package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of Fingerpost's own kinds.
const GroupName = "fingerpost.dev"

// GroupVersion is the group and version of this package.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// Well-known labels and annotations.
const (
	// LabelService on an Instance: the name of its Service, so that kubectl's
	// -l finds the instances of a service. Set by the server.
	LabelService = "fingerpost.dev/service"
	// AnnotationCreatedBy on a Service: the Instance that made it be.
	AnnotationCreatedBy = "fingerpost.dev/created-by"
	// AnnotationServicePort on an Instance: the number that the first port of
	// its Service gets, if this registration is the one that makes the Service.
	AnnotationServicePort = "fingerpost.dev/service-port"
	// AnnotationOriginalName: the name as a door's client spelled it.
	AnnotationOriginalName = "fingerpost.dev/original-name"
	// ManagedBy is the value of endpointslice.kubernetes.io/managed-by on the
	// slices of Fingerpost's endpoint slice controller.
	ManagedBy = "endpointslice.fingerpost.dev"
)

// AddToScheme registers the kinds with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Instance{}, &InstanceList{}, &Renewal{}, &AddressPool{}, &AddressPoolList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
