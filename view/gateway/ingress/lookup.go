package ingress

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/catalog"
)

// lookups follows the single Secrets and ConfigMaps that annotations name, so
// that no others are ever read. Each costs the server a watch.
type lookups struct {
	s   *Source
	ctx context.Context
	on  map[ref]*lookup
}

type lookup struct {
	cancel  context.CancelFunc
	factory informers.SharedInformerFactory
	synced  <-chan struct{}
}

func newLookups(ctx context.Context, s *Source) *lookups {
	return &lookups{s: s, ctx: ctx, on: map[ref]*lookup{}}
}

// follow begins and ends watches as the drafts want, and gives those begun.
func (l *lookups) follow(st *state) (begun []ref) {
	for r := range st.wanted {
		if st.lookups[r] > 0 && l.on[r] == nil {
			l.begin(r)
			begun = append(begun, r)
		} else if st.lookups[r] == 0 && l.on[r] != nil {
			l.end(r)
			if r.kind == kindConfigMap {
				st.putConfigMap(r.key, nil)
			} else if o := st.objects.Secrets[r.key]; o != nil && o.Type != corev1.SecretTypeTLS {
				st.putSecret(r.key, nil)
			}
		}
	}
	clear(st.wanted)
	return begun
}

func (l *lookups) begin(r ref) {
	ctx, cancel := context.WithCancel(l.ctx)
	f := informers.NewSharedInformerFactoryWithOptions(l.s.c.Client, 0, informers.WithTransform(trim), informers.WithNamespace(r.key.Namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", r.key.Name).String()
		}))
	q := &l.s.queue
	var i cache.SharedIndexInformer
	var h cache.ResourceEventHandler
	if r.kind == kindConfigMap {
		i = f.Core().V1().ConfigMaps().Informer()
		h = handler(q, (*state).putConfigMap, func(t *state, k catalog.Key) { t.putConfigMap(k, nil) }, func(o, _ *corev1.ConfigMap) bool { return keyOf(o) == r.key }, sameConfigMap)
	} else {
		i = f.Core().V1().Secrets().Informer()
		h = handler(q, (*state).putSecret, func(t *state, k catalog.Key) { t.putSecret(k, nil) }, func(o, _ *corev1.Secret) bool { return keyOf(o) == r.key }, sameSecret)
	}
	reg, err := i.AddEventHandler(h)
	if err != nil { // only of informers that were stopped
		cancel()
		return
	}
	f.StartWithContext(ctx)
	l.on[r] = &lookup{cancel: cancel, factory: f, synced: reg.HasSyncedChecker().Done()}
}

func (l *lookups) end(r ref) {
	w := l.on[r]
	delete(l.on, r)
	w.cancel()
	w.factory.Shutdown()
}

func (l *lookups) stop() {
	for _, w := range l.on {
		w.cancel()
	}
	for r := range l.on {
		l.end(r)
	}
}

// wait gives what was begun a chance to be read.
func (l *lookups) wait(ctx context.Context, begun []ref, patience time.Duration) error {
	if len(begun) == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	for _, r := range begun {
		w := l.on[r]
		if w == nil {
			continue
		}
		select {
		case <-w.synced:
		case <-t.C:
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}
