package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
	etcd "go.etcd.io/etcd/client/v3/kubernetes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
)

// pairedServices is the storage of Services on the embedded etcd. A Service
// that is created and the IPAddress objects that lock its ClusterIPs go to etcd
// in one transaction: either all are there or none, for the price of one write.
// An update that gives a Service new addresses records them first, as with an
// external etcd (recordAllocations).
type pairedServices struct {
	*servicestore.REST
	allocs map[api.IPFamily]*allocator
}

// pair travels with the context of a create, from the hook that knows the
// addresses to the transaction.
type pair struct {
	addresses []pairedAddress
}

type pairedAddress struct {
	alloc *allocator
	addr  netip.Addr
	key   string
	value []byte
}

type pairKey struct{}

func pairOf(ctx context.Context) *pair {
	p, _ := ctx.Value(pairKey{}).(*pair)
	return p
}

// takenError says that an IPAddress is there already.
type takenError struct{ addr netip.Addr }

func (e *takenError) Error() string {
	return fmt.Sprintf("apiserver: the address %s is taken by another server", e.addr)
}

// Create is that of the storage, tried again with another address if the one
// chosen is taken.
func (s pairedServices) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, o *metav1.CreateOptions) (runtime.Object, error) {
	svc, ok := obj.(*api.Service)
	if !ok || dryrun.IsDryRun(o.DryRun) {
		return s.REST.Create(ctx, obj, validate, o)
	}
	asked := svc.DeepCopy()
	for range maxCollisions {
		out, err := s.REST.Create(context.WithValue(ctx, pairKey{}, &pair{}), obj, validate, o)
		var taken *takenError
		if !errors.As(err, &taken) {
			return out, err
		}
		s.allocs[familyOf(taken.addr)].foreign(taken.addr)
		if addr := taken.addr.String(); asked.Spec.ClusterIP == addr || slices.Contains(asked.Spec.ClusterIPs, addr) {
			return nil, addressTaken(asked.Name, asked.Spec.ClusterIPs, taken.addr)
		}
		obj = asked.DeepCopy()
	}
	return nil, everyAddressTaken()
}

func addressTaken(name string, asked []string, addr netip.Addr) error {
	return apierrors.NewInvalid(api.Kind("Service"), name, field.ErrorList{field.Invalid(
		field.NewPath("spec", "clusterIPs"), asked, fmt.Sprintf("failed to allocate IP %v: %v", addr, ipallocator.ErrAllocated))})
}

func everyAddressTaken() error {
	return apierrors.NewServerTimeout(api.Resource("services"), "allocate a ClusterIP: other servers took every address that was tried", 1)
}

// add notes the addresses of a Service that is about to be created.
func (p *pair) add(s *api.Service, allocs map[api.IPFamily]*allocator) error {
	p.addresses = p.addresses[:0]
	if s.Spec.Type == api.ServiceTypeExternalName {
		return nil
	}
	for _, ip := range s.Spec.ClusterIPs {
		if ip == "" || ip == api.ClusterIPNone {
			continue
		}
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return err
		}
		a := allocs[familyOf(addr)]
		if a == nil {
			continue // upstream has refused it
		}
		obj := a.object(s, addr)
		rest.FillObjectMetaSystemFields(obj)
		key, value, err := a.encode(obj)
		if err != nil {
			return err
		}
		p.addresses = append(p.addresses, pairedAddress{a, addr, key, value})
	}
	return nil
}

// addressEncoder gives the key and the value with which the storage of
// IPAddresses stores one.
func addressEncoder(s *genericregistry.Store) func(obj runtime.Object) (string, []byte, error) {
	return func(obj runtime.Object) (string, []byte, error) {
		name, err := s.ObjectNameFunc(obj)
		if err != nil {
			return "", nil, err
		}
		key, err := s.KeyFunc(context.Background(), name)
		if err != nil {
			return "", nil, err
		}
		value, err := runtime.Encode(s.Storage.Codec, obj)
		return etcdPrefix + key, value, err
	}
}

// pairing is a client of etcd whose creates take along what their context
// brings.
type pairing struct {
	etcd.Interface
	kv clientv3.KV
}

func newPairing(c *etcd.Client) *etcd.Client {
	return &etcd.Client{Client: c.Client, Kubernetes: pairing{c.Kubernetes, c.KV}}
}

// OptimisticPut writes a value if its key has the revision, and the pair's
// addresses if they are free: all of it or nothing.
func (p pairing) OptimisticPut(ctx context.Context, key string, value []byte, revision int64, o etcd.PutOptions) (etcd.PutResponse, error) {
	var resp etcd.PutResponse
	with := pairOf(ctx)
	if with == nil || len(with.addresses) == 0 {
		return p.Interface.OptimisticPut(ctx, key, value, revision, o)
	}
	when := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}
	then := []clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(o.LeaseID))}
	otherwise := []clientv3.Op{clientv3.OpGet(key)}
	for _, a := range with.addresses {
		when = append(when, clientv3.Compare(clientv3.ModRevision(a.key), "=", 0))
		then = append(then, clientv3.OpPut(a.key, string(a.value)))
		otherwise = append(otherwise, clientv3.OpGet(a.key, clientv3.WithKeysOnly()))
		// Whoever sees the Service may delete it at once: from then on the
		// record is there to be taken back.
		a.alloc.recorded(a.addr, true)
	}
	txn, err := p.kv.Txn(ctx).If(when...).Then(then...).Else(otherwise...).Commit()
	if err == nil && txn.Succeeded {
		resp.Succeeded, resp.Revision = true, txn.Header.Revision
		return resp, nil
	}
	for _, a := range with.addresses {
		a.alloc.recorded(a.addr, false)
	}
	if err != nil {
		return resp, err // if it was written all the same, the watch tells the allocator
	}
	resp.Revision = txn.Header.Revision
	have := txn.Responses[0].GetResponseRange().Kvs
	if o.GetOnFailure && len(have) == 1 {
		resp.KV = have[0]
	}
	if (len(have) == 1 && have[0].ModRevision == revision) || (len(have) == 0 && revision == 0) {
		for i, a := range with.addresses {
			if len(txn.Responses[i+1].GetResponseRange().Kvs) > 0 {
				return resp, &takenError{a.addr}
			}
		}
	}
	return resp, nil
}
