//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	node        = "bench"
	nodeIP      = "198.51.100.1"
	podCIDR     = "10.128.0.0/9"
	serviceCIDR = "10.96.0.0/12"
	namespace   = "default"
	// probes are services spread over all whose endpoints answer.
	probes = 10
	// quiet is a service that answers, too, and which nobody asks before it
	// does: who did is remembered by conntrack, and gets no answer when it
	// comes from the same port again.
	quiet = 0
)

// probe gives the number of the i-th service that answers.
func probe(i, services int) int { return (i*services + services - 1) / probes % services }

func name(i int) string { return fmt.Sprintf("svc%05d", i) }

func address(i int) netip.Addr {
	n := i + 1024
	return netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)})
}

func virtual(i int) string { return netip.AddrPortFrom(address(i), 80).String() }

// slice gives the endpoints of a service: of nobody, or the backend which (1 or
// 2) ten times over.
func (b *bench) slice(i, which int) *discoveryv1.EndpointSlice {
	port, yes, nodeName := int32(8080), true, node
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i), Labels: map[string]string{
			discoveryv1.LabelServiceName: name(i), discoveryv1.LabelManagedBy: "vipbench",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for e := range b.endpoints {
		n := i*b.endpoints + e + 256
		a := netip.AddrFrom4([4]byte{10, 128 | byte(n>>16), byte(n >> 8), byte(n)})
		if which > 0 {
			a = backendAddr(which, e)
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, NodeName: &nodeName, Conditions: discoveryv1.EndpointConditions{Ready: &yes}})
	}
	s.Ports = []discoveryv1.EndpointPort{{Port: &port}}
	return s
}

// fill makes services up to a number, and the probes of that number answer.
func (b *bench) fill(ctx context.Context, have, want int) error {
	jobs := make(chan int)
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 16 {
		wg.Go(func() {
			for i := range jobs {
				if err := b.make(ctx, i); err != nil {
					once.Do(func() { failed = err; cancel() })
				}
			}
		})
	}
	for i := have; i < want && ctx.Err() == nil; i++ {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
	if failed != nil {
		return failed
	}
	answering := []int{quiet}
	for i := range probes {
		answering = append(answering, probe(i, want))
	}
	for _, i := range answering {
		if _, err := b.client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, b.slice(i, 1), metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) make(ctx context.Context, i int) error {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name(i)},
		Spec:       corev1.ServiceSpec{ClusterIP: address(i).String(), Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	if _, err := b.client.CoreV1().Services(namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := b.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, b.slice(i, 0), metav1.CreateOptions{})
	return err
}

// makeNode makes what kube-proxy wants to know of its machine.
func (b *bench) makeNode(ctx context.Context) error {
	n, err := b.client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: corev1.NodeSpec{PodCIDR: "10.128.0.0/24"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeIP}}
	_, err = b.client.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{})
	return err
}

// change sends a probe to the other backends, and times how long it takes from
// the server's answer until a new connection gets there.
func (b *bench) change(ctx context.Context, i int) (time.Duration, error) {
	if _, err := await(ctx, virtual(i), "", time.Minute); err != nil {
		return 0, err
	}
	now, err := ask(ctx, virtual(i), 200*time.Millisecond)
	for try := 0; err != nil; try++ { // a busy machine may be late for once
		if now, err = ask(ctx, virtual(i), 200*time.Millisecond); err != nil && try == 10 {
			return 0, err
		}
	}
	which := 1
	if now == "1" {
		which = 2
	}
	if _, err := b.client.DiscoveryV1().EndpointSlices(namespace).Update(ctx, b.slice(i, which), metav1.UpdateOptions{}); err != nil {
		return 0, err
	}
	return await(ctx, virtual(i), fmt.Sprint(which), time.Minute)
}
