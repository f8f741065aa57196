package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// events tells people what happens. Equal ones are counted together and a
// chatty object is slowed down by the recorder.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	node        *corev1.ObjectReference
}

func newEvents(cfg Config) *events {
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: cfg.Client.CoreV1().Events("")})
	return &events{
		broadcaster: b,
		recorder:    b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet", Host: cfg.NodeName}),
		node:        &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: cfg.NodeName, UID: types.UID(cfg.NodeName)},
	}
}

func (e *events) close() { e.broadcaster.Shutdown() }

// normal and warning tell of a pod, or of one of its containers.

func (p *pod) normal(c *container, reason, format string, args ...any) {
	p.a.events.recorder.Event(p.reference(c), corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...))
}

func (p *pod) warning(c *container, reason, format string, args ...any) {
	p.a.events.recorder.Event(p.reference(c), corev1.EventTypeWarning, reason, fmt.Sprintf(format, args...))
}

func (p *pod) reference(c *container) *corev1.ObjectReference {
	r := &corev1.ObjectReference{Kind: "Pod", APIVersion: "v1", Namespace: p.namespace, Name: p.name, UID: types.UID(p.uid)}
	if c != nil {
		field := "spec.containers"
		if c.init {
			field = "spec.initContainers"
		}
		r.FieldPath = fmt.Sprintf("%s{%s}", field, c.name)
	}
	return r
}
