package controller

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/controller/endpoints"
	"github.com/fingerpost/fingerpost/controller/endpointslice"
	"github.com/fingerpost/fingerpost/controller/instance"
	"github.com/fingerpost/fingerpost/controller/mirror"
)

// Inputs is what the controllers of a process share.
type Inputs struct {
	// Client for everything but Instances; protobuf is the faster content type.
	Client kubernetes.Interface
	// Instances is the client for Instances.
	Instances *client.Client
	// Informers of all namespaces, from NewInformers. Not started yet.
	Informers informers.SharedInformerFactory
	// InstanceInformer of all namespaces, from NewInstanceInformer. Not started yet.
	InstanceInformer cache.SharedIndexInformer
	// Liveness holds the leases of Instances; the API server renews the same.
	Liveness *instance.Liveness
	// Events, from NewEvents; nil: none are recorded.
	Events     record.EventRecorder
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	// Node is the name of the node that this process runs on.
	Node string
}

// Runnable is one controller.
type Runnable struct {
	Name string
	Run  func(context.Context) error
}

// All makes the controllers, in the order in which data flows through them.
func All(in Inputs) ([]Runnable, error) {
	if in.Client == nil || in.Instances == nil || in.Informers == nil || in.InstanceInformer == nil || in.Liveness == nil {
		return nil, errors.New("controller: configure: clients, informers and a Liveness are needed")
	}
	if in.Log == nil {
		in.Log = slog.New(slog.DiscardHandler)
	}
	core, discovery := in.Informers.Core().V1(), in.Informers.Discovery().V1()
	services, slices, eps := core.Services().Informer(), discovery.EndpointSlices().Informer(), core.Endpoints().Informer()
	log := func(name string) *slog.Logger { return in.Log.With("controller", name) }

	instances, err := instance.New(instance.Config{
		Client: in.Client, Instances: in.Instances, Services: services, InstanceInformer: in.InstanceInformer,
		Liveness: in.Liveness, Node: in.Node, Events: in.Events, Log: log("instance"), Registerer: in.Registerer,
	})
	if err != nil {
		return nil, err
	}
	endpointSlices, err := endpointslice.New(endpointslice.Config{
		Client: in.Client, Services: services, Pods: core.Pods().Informer(), Nodes: core.Nodes().Informer(),
		Slices: slices, Instances: in.InstanceInformer, Events: in.Events, Log: log("endpointslice"), Registerer: in.Registerer,
	})
	if err != nil {
		return nil, err
	}
	legacy, err := endpoints.New(endpoints.Config{
		Client: in.Client, Services: services, Slices: slices, Endpoints: eps,
		Events: in.Events, Log: log("endpoints"), Registerer: in.Registerer,
	})
	if err != nil {
		return nil, err
	}
	mirrored, err := mirror.New(mirror.Config{
		Client: in.Client, Services: services, Slices: slices, Endpoints: eps,
		Events: in.Events, Log: log("mirror"), Registerer: in.Registerer,
	})
	if err != nil {
		return nil, err
	}
	return []Runnable{
		{"instance", instances.Run},
		{"endpointslice", endpointSlices.Run},
		{"endpoints", legacy.Run},
		{"mirror", mirrored.Run},
	}, nil
}

// NewInformers makes the informers that controllers share, with trimmed
// objects. Nothing is read before they are started.
func NewInformers(c kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(c, 0, informers.WithTransform(Trim()))
}

// NewInstanceInformer makes the informer of Instances that controllers share.
func NewInstanceInformer(c *client.Client) (cache.SharedIndexInformer, error) {
	return client.NewInformer(c, "", 0, Trim())
}

// NewEvents makes a recorder that writes Events through the API, until ctx is
// done. It knows the kinds of Kubernetes and ours.
func NewEvents(ctx context.Context, c kubernetes.Interface, node string) (record.EventRecorder, error) {
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), v1alpha1.AddToScheme(known)); err != nil {
		return nil, err
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.CoreV1().Events("")})
	return b.NewRecorder(known, corev1.EventSource{Component: "fingerpost", Host: node}), nil
}
