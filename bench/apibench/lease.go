package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// etcdLeases keeps as many leases of an etcd alive, at the same rate: the
// cheapest heartbeat that programs around etcd have. gRPC without TLS.
func (b *bench) etcdLeases(ctx context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "etcd")
	if err != nil {
		return err
	}
	s, addr, err := rig.Etcd(ctx, dir, b.etcd)
	if err != nil {
		return err
	}
	defer func() { _ = s.Stop() }()
	conns := make([]*leaseStream, b.clients)
	for k := range conns {
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			return err
		}
		defer cc.Close()
		conns[k] = &leaseStream{client: etcdserverpb.NewLeaseClient(cc)}
	}
	ids := make([]int64, b.instances)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for k := range 64 { // side by side, so that they share etcd's syncs
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				r, err := conns[k%len(conns)].client.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{TTL: 600})
				if err != nil {
					cancel(err)
					return
				}
				ids[i] = r.ID
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, c := range conns {
		if c.stream, err = c.client.LeaseKeepAlive(ctx); err != nil {
			return err
		}
	}
	r, err := b.pace(ctx, s, "etcd-lease", len(conns), b.instances, func(_ context.Context, k, i int) error { return conns[k].keep(ids[i]) })
	if err != nil {
		return err
	}
	what := b.beatName(beatKinds[0])
	by := note("peer: etcd's lease keepalive, gRPC without TLS or token")
	b.add(peer, b.beatPart(), what+": server", "% of a core", r.percent(), by)
	b.add(peer, b.beatPart(), what+": server CPU each", "µs", us(r.cpu, r.n))
	b.add(peer, b.beatPart(), what+": p99", "ms", ms(r.took.at(0.99)))
	return nil
}

type leaseStream struct {
	client etcdserverpb.LeaseClient
	stream grpc.BidiStreamingClient[etcdserverpb.LeaseKeepAliveRequest, etcdserverpb.LeaseKeepAliveResponse]
}

func (l *leaseStream) keep(id int64) error {
	if err := l.stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return err
	}
	r, err := l.stream.Recv()
	if err == nil && (r.ID != id || r.TTL <= 0) {
		err = fmt.Errorf("lease %x is not alive", id)
	}
	return err
}

// leases renews Leases of kube-apiserver, as kubelets do. It cannot take the
// rate that is asked of Fingerpost, so the cost of one is measured.
func (b *bench) leases(ctx context.Context, s *rig.Server) error {
	if err := createNamespace(ctx, s); err != nil {
		return err
	}
	lease := func(i int) *coordinationv1.Lease {
		holder, secs, now := fmt.Sprintf("i-%06d", i), int32(15), metav1.NewMicroTime(time.Now())
		return &coordinationv1.Lease{
			TypeMeta:   metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
			ObjectMeta: metav1.ObjectMeta{Name: holder, Namespace: namespace},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &secs, RenewTime: &now},
		}
	}
	n := min(b.creates, b.instances)
	if _, err := post(ctx, s, b.clients, leasesPath, asProtobuf, 0, n, func(i int) []byte { return encoded(lease(i)) }); err != nil {
		return err
	}
	c, err := kubernetes.NewForConfig(s.Rest)
	if err != nil {
		return err
	}
	// An update names the version that it follows.
	have, err := c.CoordinationV1().Leases(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	version := map[string]string{}
	for i := range have.Items {
		version[have.Items[i].Name] = have.Items[i].ResourceVersion
	}
	d, err := each(ctx, s, b.clients, 0, n, func(ctx context.Context, c *http.Client, i int) error {
		l := lease(i)
		l.ResourceVersion = version[l.Name]
		return send(ctx, c, http.MethodPut, s.Rest.Host+leasesPath+"/"+l.Name, asProtobuf, nil, encoded(l))
	})
	if err != nil {
		return err
	}
	what := b.beatName(beatKinds[1])
	b.add(peer, b.beatPart(), what+": server CPU each", "µs", us(d.cpu, d.n), note("peer: an update of a Lease of kube-apiserver"))
	return nil
}
