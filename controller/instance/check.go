package instance

import (
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/health"
	"github.com/fingerpost/fingerpost/health/probe"
)

// check starts, changes or ends the checking of an Instance.
func (c *Controller) check(n name, in *v1alpha1.Instance) {
	spec, why := c.probeOf(in)
	if spec == nil || why != "" || in.DeletionTimestamp != nil {
		c.runner.Remove(n.String())
		return
	}
	if err := c.runner.Set(n.String(), *spec); err != nil {
		c.cfg.Log.Warn("cannot check instance", "instance", n, "error", err)
	}
}

// probeOf says what to probe; nil if that is not our business. why tells a
// person that it should be but cannot be done.
func (c *Controller) probeOf(in *v1alpha1.Instance) (spec *probe.Spec, why string) {
	k := in.Spec.Check
	if k == nil {
		return nil, ""
	}
	switch k.Type {
	case v1alpha1.CheckHTTP, v1alpha1.CheckTCP, v1alpha1.CheckGRPC:
	default:
		return nil, "" // exec is the supervisor's, ttl is Liveness'
	}
	spec = &probe.Spec{
		Type: string(k.Type), Rise: int(k.Rise), Fall: int(k.Fall),
		Target: probe.Target{Addr: in.Spec.Address, TLS: strings.EqualFold(k.Scheme, "https"), Path: k.Path, Host: k.Host, Service: k.Service},
	}
	if k.Interval != nil {
		spec.Interval = k.Interval.Duration
	}
	if k.Timeout != nil {
		spec.Timeout = k.Timeout.Duration
	}
	port := checkPort(in, k.Port)
	if port == 0 {
		return spec, "there is no such port to check: correct spec.check.port"
	}
	spec.Target.Port = port
	if a, err := netip.ParseAddr(in.Spec.Address); err == nil && a.Unmap().IsLoopback() && in.Spec.NodeName != c.cfg.Node {
		return spec, "its address means something on node " + in.Spec.NodeName + " only, and cannot be checked from node " + c.cfg.Node
	}
	return spec, ""
}

func checkPort(in *v1alpha1.Instance, p *intstr.IntOrString) uint16 {
	switch {
	case p == nil:
		if len(in.Spec.Ports) > 0 {
			return uint16(in.Spec.Ports[0].Port)
		}
	case p.Type == intstr.Int:
		return uint16(p.IntVal)
	default:
		for i := range in.Spec.Ports {
			if in.Spec.Ports[i].Name == p.StrVal {
				return uint16(in.Spec.Ports[i].Port)
			}
		}
	}
	return 0
}

// checked is told of each change of a check's state.
func (c *Controller) checked(key string, state health.State, reason string, _ time.Time) {
	n := nameOf(key)
	c.status.Add(n)
	if c.cfg.Events == nil {
		return
	}
	in, err := c.lister.Get(n.Namespace, n.Name)
	if err != nil {
		return
	}
	switch {
	case state == health.Failing:
		c.cfg.Events.Eventf(in, corev1.EventTypeWarning, "Unhealthy", "Check failed: %s", reason)
	case in.Status.Check != nil && in.Status.Check.State == v1alpha1.HealthFailing:
		c.cfg.Events.Eventf(in, corev1.EventTypeNormal, "Healthy", "Check passes: %s", reason)
	}
}
