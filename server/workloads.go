package server

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/controller/loadbalancer"
	"github.com/fingerpost/fingerpost/controller/nodecert"
	"github.com/fingerpost/fingerpost/controller/nodelife"
	"github.com/fingerpost/fingerpost/controller/workload"
)

// addWorkloads adds what nodes and their pods need of the server: certificates,
// somebody who notices that a node is gone, the controllers of workloads and the
// scheduler.
func (s *System) addWorkloads(ctx context.Context, c *Config, api *apiserver.Server, in *client.Client, l *lead) error {
	// These have the names that people know from Kubernetes' Events.
	sink := record.NewBroadcaster(record.WithContext(ctx))
	sink.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: api.Client.CoreV1().Events("")})
	events := func(component string) record.EventRecorder {
		return sink.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	}
	certs, err := nodecert.New(nodecert.Config{Client: api.Client, Signer: api.PKI, JoinGroup: apiserver.GroupJoining, Log: c.Log})
	if err != nil {
		return err
	}
	life, err := nodelife.New(nodelife.Config{Client: api.Client, Informers: api.Informers, Events: events("node-controller"), Log: c.Log})
	if err != nil {
		return err
	}
	work, err := workload.New(workload.Config{
		Rest: api.Rest, Client: api.Client, Services: api.Informers.Core().V1().Services().Lister(),
		Events: events, Log: c.Log,
	})
	if err != nil {
		return err
	}
	balancers, err := loadbalancer.New(loadbalancer.Config{
		Client: api.Client, Own: in, Informers: api.Informers, Events: events("load-balancer-controller"), Log: c.Log,
	})
	if err != nil {
		return err
	}
	s.add("certificates of nodes", l.whenLeading(certs.Run), nil)
	s.add("life of nodes", l.whenLeading(life.Run), nil)
	s.add("load balancers", l.whenLeading(balancers.Run), nil)
	s.add("workloads", l.whenLeading(work.Run), nil)
	return nil
}
