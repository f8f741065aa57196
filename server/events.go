package server

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/catalog"
)

// events turns what a view could not do for a service into an Event on it,
// where "kubectl describe service" shows it.
func events(ctx context.Context, c *Config) func(catalog.Key, string, string) {
	client, err := kubernetes.NewForConfig(rest.AddUserAgent(c.Rest, "events"))
	if err != nil {
		c.Log.Warn("no Events will be written", "error", err)
		return nil
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, b.Shutdown)
	r := b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "fingerpost-node", Host: c.NodeName})
	return func(k catalog.Key, reason, message string) {
		c.Log.Warn(message, "service", k.String(), "reason", reason)
		r.Event(&corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: k.Namespace, Name: k.Name}, corev1.EventTypeWarning, reason, message)
	}
}
