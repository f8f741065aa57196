package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	corev1listers "k8s.io/client-go/listers/core/v1"
	networkingv1listers "k8s.io/client-go/listers/networking/v1"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/registry/core/service/ipallocator"
)

// repair makes the IPAddress objects and the Services agree again after a
// crash between the two writes of an allocation. Unlike upstream's, it does
// not look at each change as it comes, because the two arrive in any order: it
// compares everything now and then, and leaves alone what is young.
type repair struct {
	allocs    map[api.IPFamily]*allocator
	services  corev1listers.ServiceLister
	addresses networkingv1listers.IPAddressLister
	now       func() time.Time
	log       func(msg string, args ...any)
}

// repairAge is how old a disagreement must be before it is one.
const repairAge = time.Minute

func (r *repair) run(ctx context.Context) {
	t := time.NewTicker(repairInterval)
	defer t.Stop()
	for {
		if err := r.once(ctx); err != nil && ctx.Err() == nil {
			r.log("ClusterIPs could not be compared with the Services; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// once compares, and mends what disagrees for longer than repairAge.
func (r *repair) once(ctx context.Context) error {
	services, err := r.services.List(everything)
	if err != nil {
		return err
	}
	addresses, err := r.addresses.List(everything)
	if err != nil {
		return err
	}
	recorded := make(map[string]*networkingv1.IPAddress, len(addresses))
	for _, a := range addresses {
		recorded[a.Name] = a
	}
	owned := map[string]*corev1.Service{}
	var errs []error
	for _, s := range services {
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		for _, ip := range s.Spec.ClusterIPs {
			if ip == "" || ip == corev1.ClusterIPNone {
				continue
			}
			if other := owned[ip]; other != nil {
				r.log("two Services have one ClusterIP; delete one of them", "clusterIP", ip, "service", key(s), "other", key(other))
			}
			owned[ip] = s
			if recorded[ip] == nil && r.old(s.CreationTimestamp.Time) {
				r.log("the ClusterIP of a Service was not recorded; it is recorded now", "clusterIP", ip, "service", key(s))
				errs = append(errs, r.record(ctx, s, ip))
			}
		}
	}
	for name, a := range recorded {
		if owned[name] == nil && a.Labels[networkingv1.LabelManagedBy] == ipallocator.ControllerName && r.old(a.CreationTimestamp.Time) {
			r.log("an address belongs to no Service; it is given back", "address", name)
			errs = append(errs, r.release(name))
		}
	}
	return errors.Join(errs...)
}

func (r *repair) old(t time.Time) bool { return r.now().Sub(t) > repairAge }

func (r *repair) record(ctx context.Context, s *corev1.Service, ip string) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return fmt.Errorf("the ClusterIP of Service %s: %w", key(s), err)
	}
	a := r.allocs[familyOf(addr)]
	if a == nil {
		return nil
	}
	svc := &api.Service{}
	svc.Namespace, svc.Name = s.Namespace, s.Name
	if err := a.record(ctx, svc, addr); err != nil && !errors.Is(err, ipallocator.ErrAllocated) {
		return err
	}
	return nil
}

func (r *repair) release(name string) error {
	addr, err := netip.ParseAddr(name)
	if err != nil || r.allocs[familyOf(addr)] == nil {
		return nil
	}
	return r.allocs[familyOf(addr)].Release(addr.AsSlice())
}

func key(s *corev1.Service) string { return s.Namespace + "/" + s.Name }
