package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/util/dryrun"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
	servicestore "k8s.io/kubernetes/pkg/registry/core/service/storage"
)

// maxCollisions bounds how often a dynamic allocation tries again because
// another server took the address; each retry picks another random one.
const maxCollisions = 20

// recordAllocations puts the second step of ClusterIP allocation (see
// allocator) behind upstream's hooks of the Service storage.
func recordAllocations(svc *servicestore.REST, allocs map[api.IPFamily]*allocator) {
	begin := svc.BeginCreate
	svc.BeginCreate = func(ctx context.Context, obj runtime.Object, o *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		s := obj.(*api.Service)
		if p := pairOf(ctx); p != nil {
			finish, err := begin(ctx, obj, o)
			if err != nil {
				return nil, err
			}
			if err := p.add(s, allocs); err != nil {
				finish(ctx, false)
				return nil, apierrors.NewInternalError(fmt.Errorf("record the ClusterIP of Service %s/%s: %w", s.Namespace, s.Name, err))
			}
			return finish, nil
		}
		return allocate(ctx, s, nil, allocs, dryrun.IsDryRun(o.DryRun), func() (genericregistry.FinishFunc, error) { return begin(ctx, obj, o) })
	}
	beginUpdate := svc.BeginUpdate
	svc.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, o *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		s := obj.(*api.Service)
		return allocate(ctx, s, old.(*api.Service), allocs, dryrun.IsDryRun(o.DryRun), func() (genericregistry.FinishFunc, error) { return beginUpdate(ctx, obj, old, o) })
	}
}

func allocate(ctx context.Context, s, old *api.Service, allocs map[api.IPFamily]*allocator, dry bool, begin func() (genericregistry.FinishFunc, error)) (genericregistry.FinishFunc, error) {
	asked := s.Spec.DeepCopy()
	for range maxCollisions {
		finish, err := begin()
		if err != nil || dry {
			return finish, err
		}
		taken, err := recordNew(ctx, s, old, allocs)
		if err == nil {
			return finish, nil
		}
		finish(ctx, false) // gives back what was reserved and recorded
		if !errors.Is(err, ipallocator.ErrAllocated) {
			return nil, apierrors.NewInternalError(fmt.Errorf("record the ClusterIP of Service %s/%s: %w", s.Namespace, s.Name, err))
		}
		// Another server has it. Asked for by name: refuse as upstream does.
		allocs[familyOf(taken)].foreign(taken)
		if slices.Contains(asked.ClusterIPs, taken.String()) {
			return nil, addressTaken(s.Name, asked.ClusterIPs, taken)
		}
		s.Spec = *asked.DeepCopy()
	}
	return nil, everyAddressTaken()
}

// recordNew records the ClusterIPs that s has and old has not. On ErrAllocated
// it says which address.
func recordNew(ctx context.Context, s, old *api.Service, allocs map[api.IPFamily]*allocator) (netip.Addr, error) {
	if s.Spec.Type == api.ServiceTypeExternalName {
		return netip.Addr{}, nil
	}
	for _, ip := range s.Spec.ClusterIPs {
		if ip == "" || ip == api.ClusterIPNone {
			continue
		}
		if old != nil && old.Spec.Type != api.ServiceTypeExternalName && slices.Contains(old.Spec.ClusterIPs, ip) {
			continue
		}
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return netip.Addr{}, err
		}
		a := allocs[familyOf(addr)]
		if a == nil {
			continue // upstream has refused it
		}
		if err := a.record(ctx, s, addr); err != nil {
			return addr, err
		}
	}
	return netip.Addr{}, nil
}

func familyOf(a netip.Addr) api.IPFamily {
	if a.Is4() {
		return api.IPv4Protocol
	}
	return api.IPv6Protocol
}
