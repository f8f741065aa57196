package kube

import (
	"maps"
	"math"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

// The kinds behind endpoints that have something to say about them.
const (
	podRef      = "Pod"
	instanceRef = "Instance"
)

// Who said it, where nobody else did.
const (
	byKubelet  = "kubelet"
	byManifest = "manifest"
	bySlice    = "endpointslice"
)

const (
	defaultWeight = 100
	originKube    = "kube"
)

// subject is the lean form of an object behind an endpoint: what an Instance
// or a Pod says beyond its slice.
type subject struct {
	key    catalog.Key
	ref    string // podRef or instanceRef
	judged bool   // ready, serving and terminating mean something
	gone   bool   // it was deleted; the slices have not followed yet

	ready, serving, terminating bool

	health   catalog.Health
	weight   uint16
	origin   string
	metadata map[string]string
}

func (s *subject) equal(o *subject) bool {
	return s.judged == o.judged && s.gone == o.gone && s.ready == o.ready &&
		s.serving == o.serving && s.terminating == o.terminating &&
		s.health.State == o.health.State && s.health.Reason == o.health.Reason && s.health.By == o.health.By &&
		s.health.Since.Equal(o.health.Since) &&
		s.weight == o.weight && s.origin == o.origin && maps.Equal(s.metadata, o.metadata)
}

// convertInstance gives the lean form of an Instance. A status that nobody
// wrote yet (no health state) judges nothing.
func convertInstance(in *v1alpha1.Instance, names *interner) *subject {
	h := &in.Status.Health
	s := &subject{
		key:         catalog.Key{Namespace: names.get(in.Namespace), Name: in.Name},
		ref:         instanceRef,
		judged:      h.State != "",
		ready:       in.Status.Ready,
		serving:     in.Status.Serving,
		terminating: in.Status.Terminating,
		weight:      defaultWeight,
		origin:      names.get(in.Doors()),
	}
	s.health = catalog.Health{State: healthState(h.State), Reason: names.get(h.Reason), By: names.get(h.By), Since: h.Since.Time}
	if !s.judged {
		s.health = catalog.Health{State: catalog.Unknown, By: byManifest}
	}
	if w := in.Spec.Weight; w != nil {
		s.weight = uint16(min(max(*w, 0), math.MaxUint16))
	}
	if len(in.Spec.Metadata) > 0 {
		s.metadata = in.Spec.Metadata
	}
	return s
}

// healthState reads a health state; a word from a newer server is Unknown.
func healthState(h v1alpha1.HealthState) catalog.State {
	switch s := catalog.State(h); s {
	case catalog.Passing, catalog.Failing, catalog.Starting, catalog.Expired,
		catalog.OutOfService, catalog.Terminating, catalog.Stale:
		return s
	}
	return catalog.Unknown
}

// convertPod gives the lean form of a Pod: why it is not ready, and since
// when. Whether it is ready stays the slice's word.
func convertPod(in *corev1.Pod, names *interner) *subject {
	s := &subject{
		key:    catalog.Key{Namespace: names.get(in.Namespace), Name: in.Name},
		ref:    podRef,
		weight: defaultWeight,
		origin: originKube,
	}
	s.health = catalog.Health{State: catalog.Starting, By: byKubelet}
	for i := range in.Status.Conditions {
		c := &in.Status.Conditions[i]
		if c.Type != corev1.PodReady {
			continue
		}
		s.health.Since = c.LastTransitionTime.Time
		if c.Status == corev1.ConditionTrue {
			s.health.State = catalog.Passing
		} else {
			s.health.State, s.health.Reason = catalog.Failing, names.get(orElse(c.Message, c.Reason))
		}
	}
	for i := range in.Status.ContainerStatuses {
		c := &in.Status.ContainerStatuses[i]
		if w := c.State.Waiting; w != nil && w.Reason != "" && s.health.State != catalog.Passing {
			s.health.Reason = names.get("container " + c.Name + ": " + w.Reason)
			if c.RestartCount == 0 {
				s.health.State = catalog.Starting
			}
			break
		}
	}
	if in.DeletionTimestamp != nil {
		// The timestamp is the end of the grace period: it says that, not since when.
		s.health = catalog.Health{State: catalog.Terminating, Reason: "the pod is being stopped", By: byKubelet}
	}
	return s
}

// judge decides what traffic an endpoint may get and why: the slice's word
// first, then what the object behind it says. s is nil when nothing is known
// of that object. The endpoint's Since is left zero where nobody said it.
func judge(ep *catalog.Endpoint, raw condition, s *subject, publishNotReady bool) {
	ep.Ready, ep.Serving, ep.Terminating = raw.has(ready), raw.has(serving), raw.has(terminating)
	ep.Weight, ep.Origin, ep.Metadata = defaultWeight, originKube, nil
	if s == nil {
		ep.Health = bareHealth(ep)
		return
	}
	ep.Weight, ep.Origin, ep.Metadata = s.weight, s.origin, s.metadata
	switch {
	case s.gone:
		ep.Ready, ep.Serving = false, false
	case s.judged:
		// A service that publishes endpoints before they are ready wants
		// them in whatever their status says.
		ep.Ready = ep.Ready && (s.ready || publishNotReady)
		ep.Serving = ep.Serving && s.serving
		ep.Terminating = ep.Terminating || s.terminating
	}
	ep.Health = s.health
	inWord := s.health.State == catalog.Passing || s.health.State == catalog.Unknown || s.health.State == catalog.Stale
	switch {
	case s.gone:
	case s.ref == podRef:
		// The slice decides; the pod only explains what fits.
		if bare := bareHealth(ep); (bare.State == catalog.Passing) != (s.health.State == catalog.Passing) {
			if s.health.State == catalog.Passing || bare.State == catalog.Passing {
				ep.Health = bare
			}
		}
	case !ep.Ready && inWord && ep.Terminating:
		ep.Health = catalog.Health{State: catalog.Terminating, Reason: "it is being stopped", By: bySlice}
	case !ep.Ready && inWord:
		ep.Health = catalog.Health{State: catalog.Starting, Reason: "its EndpointSlice does not list it as ready", By: bySlice}
	}
}

// bareHealth is the health of an endpoint of which only the slice is known.
func bareHealth(ep *catalog.Endpoint) catalog.Health {
	pod := ep.Target.Kind == podRef
	by := byManifest
	switch {
	case pod:
		by = byKubelet
	case ep.Target.Kind != "":
		by = bySlice
	}
	switch {
	case ep.Terminating:
		return catalog.Health{State: catalog.Terminating, Reason: "it is being stopped", By: by}
	case pod && ep.Serving:
		return catalog.Health{State: catalog.Passing, By: by}
	case pod:
		return catalog.Health{State: catalog.Failing, Reason: "the pod is not ready", By: by}
	case ep.Ready:
		return catalog.Health{State: catalog.Unknown, By: byManifest}
	}
	return catalog.Health{State: catalog.Failing, Reason: "its EndpointSlice says that it is not ready", By: by}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
