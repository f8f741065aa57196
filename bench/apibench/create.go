package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/bench/rig"
)

func createNamespace(ctx context.Context, s *rig.Server) error {
	_, err := post(ctx, s, 1, "/api/v1/namespaces", asProtobuf, 0, 1, func(int) []byte {
		return encoded(&corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	})
	return err
}

func serviceBody(i int) []byte { return encoded(service(i)) }

func sliceBody(i int) []byte { return encoded(slice(i)) }

// creation measures Services on an empty store and among many, then slices,
// and leaves b.services Services of perService endpoints each.
func (b *bench) creation(ctx context.Context, who side, s *rig.Server) error {
	part := fmt.Sprintf("create, %d clients, protobuf over TLS", b.clients)
	if err := createNamespace(ctx, s); err != nil {
		return err
	}
	tell := func(what string, d done, opts ...opt) {
		b.add(who, part, what, "1/s", d.perSecond(), append(opts, upwards)...)
		b.add(who, part, what+": server CPU each", "µs", us(d.cpu, d.n))
		b.add(who, part, what+": p99", "ms", ms(d.took.at(0.99)))
	}
	n := min(b.creates, b.services)
	name := []string{"fingerpost", "peer"}[who]
	var empty, full, slices done
	err := b.profiled(ctx, s, name+"-service-empty", func() (err error) {
		empty, err = post(ctx, s, b.clients, servicesPath, asProtobuf, 0, n, serviceBody)
		return err
	})
	if err != nil {
		return err
	}
	tell("Service, empty store", empty, target(1500))
	if err := b.fill(ctx, s, n); err != nil {
		return fmt.Errorf("fill up to %d Services: %w", b.services, err)
	}
	if err := s.Settle(ctx, 10*time.Second); err != nil {
		return err
	}
	more := b.creates
	if s.Etcd != "" {
		more = min(more, 300) // each takes a hundred times as long
	}
	err = b.profiled(ctx, s, name+"-service-full", func() (err error) {
		full, err = post(ctx, s, b.clients, servicesPath, asProtobuf, b.services, more, serviceBody)
		return err
	})
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("Service, at %d Services", b.services), full, target(1500))
	// Two rates of a few seconds each differ by some percent anyway.
	b.add(who, part, "Service: rate at many / rate on empty", "", full.perSecond()/empty.perSecond(), upwards, target(0.9))
	b.add(who, part, "Service: CPU at many / CPU on empty", "", us(full.cpu, full.n)/us(empty.cpu, empty.n))
	err = b.profiled(ctx, s, name+"-slice", func() (err error) {
		slices, err = post(ctx, s, b.clients, slicesPath, asProtobuf, 0, b.services, sliceBody)
		return err
	})
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("EndpointSlice of %d", perService), slices)
	b.add(who, part, "client CPU each, Service (not counted above)", "µs", us(full.client, full.n))
	// What was created on top is taken away again: the sizes below are round.
	_, err = each(ctx, s, b.clients, b.services, more, func(ctx context.Context, c *http.Client, i int) error {
		return send(ctx, c, http.MethodDelete, s.Rest.Host+servicesPath+"/"+serviceName(i), asJSON, nil, nil)
	})
	return err
}
