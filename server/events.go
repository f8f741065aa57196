package server

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	type note struct {
		service         catalog.Key
		reason, message string
	}
	notes := make(chan note, maxNotes)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case n := <-notes:
				ref := corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: n.service.Namespace, Name: n.service.Name}
				// kubectl describe finds Events by the UID, which the catalog does not know.
				if s, err := client.CoreV1().Services(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{ResourceVersion: "0"}); err == nil {
					ref.UID = s.UID
				}
				r.Event(&ref, corev1.EventTypeWarning, n.reason, n.message)
			}
		}
	}()
	return func(k catalog.Key, reason, message string) {
		c.Log.Warn(message, "service", k.String(), "reason", reason)
		select {
		case notes <- note{k, reason, message}:
		default: // the log has it
		}
	}
}

// maxNotes is how many Events may wait to be written; views do not wait.
const maxNotes = 1024
