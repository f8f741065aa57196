package server

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/controller/endpoints"
	"github.com/fingerpost/fingerpost/controller/endpointslice"
	"github.com/fingerpost/fingerpost/controller/instance"
	"github.com/fingerpost/fingerpost/controller/mirror"
)

// addControllers adds our own controllers. They share the API server's
// informers, and the informer of Instances.
func (s *System) addControllers(ctx context.Context, c *Config, api *apiserver.Server, in *client.Client, live *instance.Liveness) error {
	core, slices := api.Informers.Core().V1(), api.Informers.Discovery().V1().EndpointSlices().Informer()
	services, eps := core.Services().Informer(), core.Endpoints().Informer()
	instances, err := client.NewInformer(in, "", 0, nil)
	if err != nil {
		return err
	}
	events, err := recorder(ctx, api)
	if err != nil {
		return err
	}
	is, err := instance.New(instance.Config{
		Client: api.Client, Instances: in, Services: services, InstanceInformer: instances,
		Liveness: live, Node: c.NodeName, Events: events, Log: c.Log, Registerer: c.Registry,
	})
	if err != nil {
		return err
	}
	es, err := endpointslice.New(endpointslice.Config{
		Client: api.Client, Services: services, Pods: core.Pods().Informer(), Nodes: core.Nodes().Informer(), Slices: slices, Instances: instances,
		Events: events, Log: c.Log, Registerer: c.Registry,
	})
	if err != nil {
		return err
	}
	ep, err := endpoints.New(endpoints.Config{Client: api.Client, Services: services, Slices: slices, Endpoints: eps, Events: events, Log: c.Log, Registerer: c.Registry})
	if err != nil {
		return err
	}
	mi, err := mirror.New(mirror.Config{Client: api.Client, Services: services, Slices: slices, Endpoints: eps, Events: events, Log: c.Log, Registerer: c.Registry})
	if err != nil {
		return err
	}
	s.add("informers", func(ctx context.Context) error {
		api.Informers.Start(ctx.Done())
		instances.Run(ctx.Done())
		return nil
	}, nil)
	s.add("instances", is.Run, nil)
	s.add("endpoint slices", es.Run, nil)
	s.add("endpoints", ep.Run, nil)
	s.add("mirroring of endpoints", mi.Run, nil)
	return nil
}

// recorder writes Events about our own kinds too.
func recorder(ctx context.Context, api *apiserver.Server) (record.EventRecorder, error) {
	if err := v1alpha1.AddToScheme(scheme.Scheme); err != nil {
		return nil, err
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: api.Client.CoreV1().Events("")})
	context.AfterFunc(ctx, b.Shutdown)
	return b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "fingerpost"}), nil
}
