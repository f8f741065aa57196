package podstatus

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Input is what is known of a pod.
type Input struct {
	Pod *corev1.Pod // with the status that the API has
	// Init and Regular are in the order of the spec.
	Init, Regular []corev1.ContainerStatus
	// Sandbox says whether containers can be started: network and volumes of
	// the runtime are there.
	Sandbox bool
	// Over says that nothing of the pod runs or will be started again.
	Over bool
	// Failed makes the pod Failed whatever its containers did (refused,
	// deadline), with Reason and Message.
	Failed          bool
	Reason, Message string
	PodIPs, HostIPs []string
	Start           time.Time
}

// Make derives the status. Conditions of others (readiness gates) are kept.
func Make(in Input, now time.Time) corev1.PodStatus {
	old := &in.Pod.Status
	s := corev1.PodStatus{
		ObservedGeneration: in.Pod.Generation,
		QOSClass:           old.QOSClass, NominatedNodeName: old.NominatedNodeName,
		Reason: in.Reason, Message: in.Message,
		InitContainerStatuses: in.Init, ContainerStatuses: in.Regular,
		EphemeralContainerStatuses: old.EphemeralContainerStatuses,
		ResourceClaimStatuses:      old.ResourceClaimStatuses,
	}
	if !in.Start.IsZero() {
		t := metav1.NewTime(in.Start).Rfc3339Copy()
		s.StartTime = &t
	}
	if len(in.HostIPs) > 0 {
		s.HostIP = in.HostIPs[0]
		for _, ip := range in.HostIPs {
			s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
		}
	}
	if len(in.PodIPs) > 0 {
		s.PodIP = in.PodIPs[0]
		for _, ip := range in.PodIPs {
			s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
		}
	}
	s.Phase = phase(&in)

	d := deriver{in: &in, phase: s.Phase, now: metav1.NewTime(now).Rfc3339Copy()}
	conditions := slices.Clone(old.Conditions)
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: state(in.Sandbox)}
	containers := d.containersReady()
	for _, c := range []corev1.PodCondition{
		sandbox, d.initialized(), d.ready(containers), containers,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	} {
		conditions = d.set(conditions, c)
	}
	s.Conditions = conditions
	return s
}

// IsSidecar says whether an init container runs as long as the pod.
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Restarts says whether a container that ended with a code is started again.
func Restarts(p *corev1.Pod, c *corev1.Container, init bool, code int32) bool {
	if c.RestartPolicy != nil {
		for _, r := range c.RestartPolicyRules {
			if e := r.ExitCodes; e != nil && r.Action == corev1.ContainerRestartRuleActionRestart {
				if slices.Contains(e.Values, code) == (e.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
					return true
				}
			}
		}
		switch *c.RestartPolicy {
		case corev1.ContainerRestartPolicyAlways:
			return true
		case corev1.ContainerRestartPolicyNever:
			return false
		}
		return code != 0
	}
	switch p.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return !init || code != 0
}

func state(yes bool) corev1.ConditionStatus {
	if yes {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

func byName(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// ended gives how the last run of a container that does not run ended.
func ended(s *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	switch {
	case s.State.Terminated != nil:
		return s.State.Terminated
	case s.State.Waiting != nil:
		return s.LastTerminationState.Terminated
	}
	return nil
}

func phase(in *Input) corev1.PodPhase {
	if in.Failed {
		return corev1.PodFailed
	}
	spec := &in.Pod.Spec
	begun := Begun(in.Regular)
	pending := false
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		s := byName(in.Init, c.Name)
		switch {
		case IsSidecar(c):
			if s == nil || s.State.Running == nil || s.Started == nil || !*s.Started {
				pending = pending || !begun
			}
		case s == nil || s.State.Running != nil:
			pending = true
		default:
			e := ended(s)
			if e != nil && e.ExitCode != 0 && (in.Over || !Restarts(in.Pod, c, true, e.ExitCode)) {
				return corev1.PodFailed
			}
			if s.State.Terminated == nil || e.ExitCode != 0 {
				pending = true
			}
		}
	}
	running, waiting, stopped, succeeded, restarting := 0, 0, 0, 0, 0
	for i := range spec.Containers {
		c := &spec.Containers[i]
		s := byName(in.Regular, c.Name)
		switch {
		case s == nil:
			waiting++
		case s.State.Running != nil:
			running++
		default:
			e := ended(s)
			if e == nil {
				waiting++
				break
			}
			stopped++
			if e.ExitCode == 0 {
				succeeded++
			}
			if !in.Over && Restarts(in.Pod, c, false, e.ExitCode) {
				restarting++
			}
		}
	}
	switch {
	case in.Over && stopped > 0 && stopped == succeeded && waiting == 0:
		return corev1.PodSucceeded
	case in.Over:
		return corev1.PodFailed
	case pending, waiting > 0:
		return corev1.PodPending
	}
	// What is over but for its sidecars runs until they have ended.
	return corev1.PodRunning
}

// Begun says whether any of the containers has ever run.
func Begun(regular []corev1.ContainerStatus) bool {
	return slices.ContainsFunc(regular, func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
	})
}

type deriver struct {
	in    *Input
	phase corev1.PodPhase
	now   metav1.Time
}

func (d *deriver) set(list []corev1.PodCondition, c corev1.PodCondition) []corev1.PodCondition {
	c.LastTransitionTime, c.ObservedGeneration = d.now, d.in.Pod.Generation
	for i := range list {
		if list[i].Type == c.Type {
			if list[i].Status == c.Status {
				c.LastTransitionTime = list[i].LastTransitionTime
			}
			c.LastProbeTime = list[i].LastProbeTime
			list[i] = c
			return list
		}
	}
	return append(list, c)
}

// over gives the condition of a pod that has ended.
func (d *deriver) over(t corev1.PodConditionType) (corev1.PodCondition, bool) {
	switch d.phase {
	case corev1.PodFailed:
		return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: "PodFailed"}, true
	case corev1.PodSucceeded:
		return corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: "PodCompleted"}, true
	}
	return corev1.PodCondition{}, false
}

func (d *deriver) containersReady() corev1.PodCondition {
	if c, over := d.over(corev1.ContainersReady); over {
		return c
	}
	var unready []string
	check := func(name string, list []corev1.ContainerStatus) {
		if s := byName(list, name); s == nil || !s.Ready {
			unready = append(unready, name)
		}
	}
	spec := &d.in.Pod.Spec
	for i := range spec.InitContainers {
		if IsSidecar(&spec.InitContainers[i]) {
			check(spec.InitContainers[i].Name, d.in.Init)
		}
	}
	for i := range spec.Containers {
		check(spec.Containers[i].Name, d.in.Regular)
	}
	if len(unready) > 0 {
		return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady",
			Message: fmt.Sprintf("containers with unready status: %s", unready)}
	}
	return corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
}

func (d *deriver) ready(containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	text := ""
	for _, g := range d.in.Pod.Spec.ReadinessGates {
		i := slices.IndexFunc(d.in.Pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == g.ConditionType })
		switch {
		case i < 0:
			text += fmt.Sprintf(", corresponding condition of pod readiness gate %q does not exist.", g.ConditionType)
		case d.in.Pod.Status.Conditions[i].Status != corev1.ConditionTrue:
			text += fmt.Sprintf(", the status of pod readiness gate %q is not \"True\", but %s", g.ConditionType, d.in.Pod.Status.Conditions[i].Status)
		}
	}
	if text != "" {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", text[2:]
	}
	return c
}

func (d *deriver) initialized() corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if d.phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if Begun(d.in.Regular) {
		return c
	}
	var incomplete []string
	for i := range d.in.Pod.Spec.InitContainers {
		ic := &d.in.Pod.Spec.InitContainers[i]
		s := byName(d.in.Init, ic.Name)
		done := s != nil && s.Ready
		if IsSidecar(ic) {
			done = s != nil && s.Started != nil && *s.Started
		}
		if !done {
			incomplete = append(incomplete, ic.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}
