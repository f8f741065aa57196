package server

import (
	"context"

	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/controller"
	"github.com/fingerpost/fingerpost/controller/instance"
)

// addControllers adds our own controllers. They share the API server's
// informers, and the informer of Instances.
func (s *System) addControllers(ctx context.Context, c *Config, api *apiserver.Server, in *client.Client, live *instance.Liveness, l *lead) error {
	instances, err := controller.NewInstanceInformer(in)
	if err != nil {
		return err
	}
	events, err := controller.NewEvents(ctx, api.Client, c.NodeName)
	if err != nil {
		return err
	}
	all, err := controller.All(controller.Inputs{
		Client: api.Client, Instances: in, Informers: api.Informers, InstanceInformer: instances,
		Liveness: live, Events: events, Log: c.Log, Registerer: c.Registry, Node: c.NodeName,
	})
	if err != nil {
		return err
	}
	s.add("informers", func(ctx context.Context) error {
		api.Informers.Start(ctx.Done())
		instances.Run(ctx.Done())
		return nil
	}, nil)
	for _, r := range all {
		s.add("controller "+r.Name, l.whenLeading(r.Run), nil)
	}
	return nil
}
