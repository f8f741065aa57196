package instance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/controller/endpointslice"
)

// syncService makes the Service that Instances name, or completes one made
// that way.
func (c *Controller) syncService(ctx context.Context, n name) error {
	instances, err := c.lister.OfService(n.Namespace, n.Name)
	if err != nil || len(instances) == 0 {
		return err
	}
	slices.SortFunc(instances, func(a, b *v1alpha1.Instance) int {
		if x := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); x != 0 {
			return x
		}
		return strings.Compare(a.Name, b.Name)
	})
	var svc *corev1.Service
	if obj, ok, _ := c.cfg.Services.GetIndexer().GetByKey(n.String()); ok {
		svc = obj.(*corev1.Service)
	}
	api := c.cfg.Client.CoreV1().Services(n.Namespace)
	switch {
	case svc == nil:
		err = ignore(create(ctx, api.Create, newService(n, instances)), apierrors.IsAlreadyExists)
	case svc.Annotations[v1alpha1.AnnotationCreatedBy] != "" && len(svc.Spec.Selector) == 0:
		next := svc.DeepCopy()
		for _, in := range instances {
			addPorts(next, in)
		}
		if len(next.Spec.Ports) == len(svc.Spec.Ports) {
			c.complain(svc, instances)
			return nil
		}
		_, err = api.Update(ctx, next, metav1.UpdateOptions{})
	default:
		c.complain(svc, instances)
		return nil
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("controller/instance: make service %s, which instance %s names: %w", n, instances[0].Name, err)
	}
	c.metrics.writes.WithLabelValues("service").Inc()
	return nil
}

func create(ctx context.Context, f func(context.Context, *corev1.Service, metav1.CreateOptions) (*corev1.Service, error), s *corev1.Service) error {
	_, err := f(ctx, s, metav1.CreateOptions{})
	return err
}

func ignore(err error, harmless func(error) bool) error {
	if harmless(err) {
		return nil
	}
	return err
}

// newService is the Service that the first registration names.
func newService(n name, instances []*v1alpha1.Instance) *corev1.Service {
	first := instances[0]
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: n.Namespace, Name: n.Name,
		Annotations: map[string]string{v1alpha1.AnnotationCreatedBy: first.Name},
	}}
	for _, in := range instances {
		addPorts(s, in)
	}
	if len(s.Spec.Ports) == 0 {
		s.Spec.ClusterIP = corev1.ClusterIPNone // a virtual address without a port leads nowhere
	}
	if a, err := netip.ParseAddr(first.Spec.Address); err == nil && a.Unmap().Is6() {
		policy := corev1.IPFamilyPolicyPreferDualStack
		s.Spec.IPFamilyPolicy = &policy
	}
	return s
}

// addPorts adds those ports of an Instance that the Service has no name for.
func addPorts(s *corev1.Service, in *v1alpha1.Instance) {
	for i := range in.Spec.Ports {
		p := &in.Spec.Ports[i]
		proto := p.Protocol
		if proto == "" {
			proto = corev1.ProtocolTCP
		}
		number := p.Port
		if a, err := strconv.ParseUint(in.Annotations[v1alpha1.AnnotationServicePort], 10, 16); err == nil && a > 0 && i == 0 {
			number = int32(a)
		}
		fits := true
		for j := range s.Spec.Ports {
			q := &s.Spec.Ports[j]
			// The API wants names as soon as there are two ports, and numbers
			// that differ.
			if q.Name == p.Name || q.Name == "" || p.Name == "" || q.Port == number && q.Protocol == proto {
				fits = false
			}
		}
		if !fits {
			continue
		}
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: p.Name, Protocol: proto, Port: number, TargetPort: intstr.FromInt32(p.Port), AppProtocol: p.AppProtocol,
		})
	}
}

// complain tells the Instances that serve none of the Service's ports, once
// for each version of the two.
func (c *Controller) complain(svc *corev1.Service, instances []*v1alpha1.Instance) {
	if c.cfg.Events == nil || len(svc.Spec.Ports) == 0 {
		return
	}
next:
	for _, in := range instances {
		for i := range svc.Spec.Ports {
			if endpointslice.InstancePort(in.Spec.Ports, svc.Spec.Ports, i) != nil {
				continue next
			}
		}
		n, version := name{Namespace: in.Namespace, Name: in.Name}, fmt.Sprint(in.UID, in.Generation, svc.UID, portNames(svc))
		c.mu.Lock()
		told := c.complained[n] == version
		c.complained[n] = version
		c.mu.Unlock()
		if !told {
			c.cfg.Events.Eventf(in, corev1.EventTypeWarning, "NoMatchingPort",
				"Service %s has no port that this instance serves: name a port of the instance as one of the Service's (%s), or give it the number of a targetPort",
				svc.Name, portNames(svc))
		}
	}
}

func portNames(svc *corev1.Service) string {
	var names []string
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		switch {
		case p.Name != "":
			names = append(names, p.Name)
		default:
			names = append(names, p.TargetPort.String())
		}
	}
	return strings.Join(names, ", ")
}
