package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// fill brings a server from n Services to b.services. kube-apiserver counts all
// its IPAddress objects for a metric whenever it allocates one, and would take
// minutes; so copies of a Service that it made, and of the IPAddress of that,
// are written into its etcd, from where it learns of them by its watches.
func (b *bench) fill(ctx context.Context, s *rig.Server, n int) error {
	if s.Etcd == "" {
		_, err := post(ctx, s, b.clients, servicesPath, asProtobuf, n, b.services-n, serviceBody)
		return err
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + s.Etcd}})
	if err != nil {
		return err
	}
	defer c.Close()
	const services, addresses = "/registry/services/specs/" + namespace + "/", "/registry/ipaddresses/"
	codec := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	read := func(key string) (runtime.Object, error) {
		r, err := c.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		if len(r.Kvs) != 1 {
			return nil, fmt.Errorf("etcd has no %s", key)
		}
		o, _, err := codec.Decode(r.Kvs[0].Value, nil, nil)
		return o, err
	}
	o, err := read(services + serviceName(0))
	if err != nil {
		return err
	}
	svc, ok := o.(*corev1.Service)
	if !ok {
		return fmt.Errorf("%T where a Service should be", o)
	}
	if o, err = read(addresses + svc.Spec.ClusterIP); err != nil {
		return err
	}
	ip, ok := o.(*networkingv1.IPAddress)
	if !ok {
		return fmt.Errorf("%T where an IPAddress should be", o)
	}
	free, err := freeAddresses(ctx, c, addresses, b.services-n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 { // side by side, so that they share etcd's syncs
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(free) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				x, y := svc.DeepCopy(), ip.DeepCopy()
				x.Name, x.UID, x.Labels = serviceName(n+i), uuid.NewUUID(), service(n+i).Labels
				x.Spec.ClusterIP, x.Spec.ClusterIPs = free[i], []string{free[i]}
				y.Name, y.UID = free[i], uuid.NewUUID()
				y.Spec.ParentRef.Name = x.Name
				_, err := c.Txn(ctx).Then(clientv3.OpPut(addresses+y.Name, string(encoded(y))), clientv3.OpPut(services+x.Name, string(encoded(x)))).Commit()
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// freeAddresses finds addresses beside that of an existing IPAddress.
func freeAddresses(ctx context.Context, c *clientv3.Client, prefix string, n int) ([]string, error) {
	r, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, kv := range r.Kvs {
		used[string(kv.Key[len(prefix):])] = true
	}
	var free []string
	// The first addresses of a range are for those who choose one.
	for a := netip.MustParsePrefix(rig.KubernetesServices).Addr().As4(); len(free) < n; {
		if a[3]++; a[3] == 0 {
			a[2]++
		}
		if s := netip.AddrFrom4(a).String(); a[2] > 3 && !used[s] {
			free = append(free, s)
		}
	}
	return free, nil
}
