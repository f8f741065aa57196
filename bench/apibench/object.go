package main

import (
	"bytes"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

const (
	namespace = "bench"
	// perService is how many endpoints each service has.
	perService = 10
	// port is above 1024, so that no root is needed to listen on it.
	port = 8080

	servicesPath  = "/api/v1/namespaces/" + namespace + "/services"
	slicesPath    = "/apis/discovery.k8s.io/v1/namespaces/" + namespace + "/endpointslices"
	instancesPath = "/apis/fingerpost.dev/v1alpha1/namespaces/" + namespace + "/instances"
	renewalsPath  = "/apis/fingerpost.dev/v1alpha1/namespaces/" + namespace + "/renewals"
	leasesPath    = "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
)

// encoded is a body in Kubernetes' protobuf. Bodies are made by what every
// client of Kubernetes uses, outside of the time that is measured per request.
func encoded(o runtime.Object) []byte {
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &b); err != nil {
		panic(fmt.Sprintf("%T has no protobuf encoding: %v", o, err)) // a mistake in this file
	}
	return b.Bytes()
}

func serviceName(i int) string { return fmt.Sprintf("svc-%05d", i) }

func service(i int) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(i), Namespace: namespace, Labels: map[string]string{"app": serviceName(i)}},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: port}}},
	}
}

// address of endpoint j of service i: nobody is asked whether it is there.
func address(i, j int) string {
	return fmt.Sprintf("10.%d.%d.%d", 128+j, i>>8&255, i&255)
}

func slice(i int) *discoveryv1.EndpointSlice {
	yes, http, n, tcp := true, "http", int32(port), corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: serviceName(i) + "-bench", Namespace: namespace, Labels: map[string]string{
			discoveryv1.LabelServiceName: serviceName(i), discoveryv1.LabelManagedBy: "bench",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &n, Protocol: &tcp}},
	}
	for j := range perService {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address(i, j)}, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
		})
	}
	return s
}

// ttl is longer than what lies between the registration and the heartbeats:
// what expiries cost is another matter.
const ttl = time.Minute

// newInstance has a heartbeat to send. Instance i is one of service i/perService.
func newInstance(i int) *v1alpha1.Instance {
	return &v1alpha1.Instance{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "Instance"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("i-%06d", i), Namespace: namespace},
		Spec: v1alpha1.InstanceSpec{
			Service: fmt.Sprintf("app-%05d", i/perService), Address: fmt.Sprintf("10.%d.%d.%d", 64+i>>16, i>>8&255, i&255),
			Ports:  []v1alpha1.InstancePort{{Name: "http", Port: port}},
			Claims: []v1alpha1.Claim{{Door: "http", ID: "1", Origin: "bench", TTL: &metav1.Duration{Duration: ttl}}},
		},
	}
}
