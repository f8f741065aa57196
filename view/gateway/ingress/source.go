package ingress

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Config is what a Source needs: Rest or Client, and OnUpdate.
type Config struct {
	Rest      *rest.Config
	Client    kubernetes.Interface // in the place of Rest
	Namespace string               // empty: all
	Options

	// OnUpdate gets what changed, one call at a time; the first one has Replace
	// and comes when everything has been read. Before it there may be one, with
	// Replace too, of the last run: see File. Nobody changes it any more.
	OnUpdate func(route.Update)

	// Name is this gateway's among those of the cluster; the host's if empty.
	Name string
	// Publish are the addresses (or host names) that clients reach this gateway
	// at; they go into the status of Ingresses. None: no status is written.
	Publish []string
	// File keeps what the routes are made of, for a start without the API server; no
	// file if empty. FileSource names that server: a file of another one is not used.
	File, FileSource string
	// LeaseNamespace holds the Leases of the gateways; kube-system if empty.
	LeaseNamespace string
	Events         record.EventRecorder  // nil: Events are written with the client
	Log            *slog.Logger          // nil: no log
	Registerer     prometheus.Registerer // nil: no metrics
}

// Source follows the Ingresses of an API server.
type Source struct {
	c       Config
	log     *slog.Logger
	queue   queue
	report  *reporter
	metrics *metrics
	synced  chan struct{}
	ran     atomic.Bool
	keep    *keeper // nil: nothing is kept
	kept    bool
	stale   atomic.Int64 // when what is served was taken, in ns; 0: it is of this run
	away    atomic.Int64 // when the API server ceased to answer; 0: it does
}

// gather is how long changes that come together may wait for each other.
const gather = 3 * time.Millisecond

// refPatience is how long the first update waits for objects that annotations
// name, and refHold how long a later one does that names new ones: rules that work
// stay open meanwhile. Rules whose objects have not come by then are closed until
// they have.
const (
	refPatience = 2 * time.Second
	refHold     = 300 * time.Millisecond
)

// New makes a source. It does not talk to the server yet, but reads Config.File.
func New(c Config) (*Source, error) {
	if c.Rest == nil && c.Client == nil || c.OnUpdate == nil {
		return nil, errors.New("ingress: make a source: Rest or Client, and OnUpdate must be set")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Source{}
	if c.Client == nil {
		rc := rest.CopyConfig(c.Rest)
		// Status of many Ingresses at once is the one burst there is.
		rc.QPS, rc.Burst = 500, 1000
		rc.ContentType = runtime.ContentTypeProtobuf
		rc.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		if rc.UserAgent == "" {
			rc.UserAgent = "fingerpost-gateway"
		}
		rc.Wrap(func(next http.RoundTripper) http.RoundTripper { return &patient{next, c.Log, &s.away} })
		client, err := kubernetes.NewForConfig(rc)
		if err != nil {
			return nil, fmt.Errorf("ingress: make a client for %s: %w", rc.Host, err)
		}
		c.Client = client
	}
	if c.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("ingress: find the name of this host: %w; give one", err)
		}
		c.Name = name
	}
	c.LeaseNamespace = cmp.Or(c.LeaseNamespace, metav1.NamespaceSystem)
	c.complete()
	s.c, s.log, s.synced = c, c.Log, make(chan struct{})
	s.queue.wake = make(chan struct{}, 1)
	s.metrics = newMetrics(c.Registerer, s.Stale, c.Now)
	s.report = newReporter(&s.c)
	var err error
	if s.keep, err = newKeeper(s); err != nil {
		return nil, err
	}
	s.kept = s.keep.load()
	return s, nil
}

// Synced is closed when everything has been read and handed over once.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Stale says since when what was handed over may be old: since the last run, or
// since the API server ceased to answer. Zero: it follows the server.
func (s *Source) Stale() time.Time {
	ns := s.stale.Load()
	if ns == 0 {
		ns = s.away.Load()
	}
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Kept says whether there are routes of an earlier run, which will do until the API
// server answers.
func (s *Source) Kept() bool { return s.kept }

// queue holds what the informers saw until the loop takes it.
type queue struct {
	mu    sync.Mutex
	items []func(*state)
	wake  chan struct{}
}

func (q *queue) add(f func(*state)) {
	q.mu.Lock()
	q.items = append(q.items, f)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() []func(*state) {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

// handler queues what an informer of one kind sees.
func handler[T metav1.Object](q *queue, put func(*state, catalog.Key, T), gone func(*state, catalog.Key), wanted, same func(old, now T) bool) cache.ResourceEventHandlerFuncs {
	add := func(o any) {
		if v, ok := o.(T); ok && wanted(v, v) {
			q.add(func(s *state) { put(s, keyOf(v), v) })
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: add,
		UpdateFunc: func(old, now any) {
			a, ok := old.(T)
			b, ok2 := now.(T)
			if !ok || !ok2 || !same(a, b) {
				add(now)
			}
		},
		DeleteFunc: func(o any) {
			if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = t.Obj
			}
			if v, ok := o.(T); ok && wanted(v, v) {
				k := keyOf(v)
				q.add(func(s *state) { gone(s, k) })
			}
		},
	}
}

func trim(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

func always[T any](T, T) bool { return true }

func sameIngress(a, b *networkingv1.Ingress) bool {
	return reflect.DeepEqual(&a.Spec, &b.Spec) && maps.Equal(a.Annotations, b.Annotations) && a.UID == b.UID && a.DeletionTimestamp.Equal(b.DeletionTimestamp)
}

func sameService(a, b *corev1.Service) bool { return reflect.DeepEqual(&a.Spec, &b.Spec) }

func sameSecret(a, b *corev1.Secret) bool { return reflect.DeepEqual(a.Data, b.Data) }

func sameConfigMap(a, b *corev1.ConfigMap) bool { return maps.Equal(a.Data, b.Data) }

// Run hands over updates until ctx ends, and then returns nil. It may be called
// once.
func (s *Source) Run(ctx context.Context) error {
	if s.ran.Swap(true) {
		return errors.New("ingress: run: it ran before; make a new source")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	keep := s.keep
	keep.serve()
	// The file is written until the loop has ended.
	written, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	wg.Go(func() { keep.run(written) })

	opts := []informers.SharedInformerOption{informers.WithTransform(trim), informers.WithNamespace(s.c.Namespace)}
	f := informers.NewSharedInformerFactoryWithOptions(s.c.Client, 0, opts...)
	secrets := informers.NewSharedInformerFactoryWithOptions(s.c.Client, 0, append(opts, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)).String()
	}))...)
	q := &s.queue
	ingresses := f.Networking().V1().Ingresses()
	s.report.lister = ingresses.Lister()
	isTLS := func(v, _ *corev1.Secret) bool { return v.Type == corev1.SecretTypeTLS }
	var errs []error
	var waits []cache.InformerSynced
	watch := func(i cache.SharedIndexInformer, h cache.ResourceEventHandler) {
		reg, err := i.AddEventHandler(h)
		errs = append(errs, err)
		if err == nil {
			waits = append(waits, reg.HasSynced)
		}
	}
	watch(ingresses.Informer(), handler(q, (*state).putIngress, func(t *state, k catalog.Key) { t.putIngress(k, nil) }, always[*networkingv1.Ingress], func(a, b *networkingv1.Ingress) bool {
		s.report.look(keyOf(b)) // somebody may have written its status
		return sameIngress(a, b)
	}))
	watch(f.Networking().V1().IngressClasses().Informer(), handler(q, func(t *state, k catalog.Key, c *networkingv1.IngressClass) { t.putClass(k.Name, c) },
		func(t *state, k catalog.Key) { t.putClass(k.Name, nil) }, always[*networkingv1.IngressClass],
		func(a, b *networkingv1.IngressClass) bool {
			return a.Spec.Controller == b.Spec.Controller && maps.Equal(a.Annotations, b.Annotations)
		}))
	watch(f.Core().V1().Services().Informer(), handler(q, (*state).putService, func(t *state, k catalog.Key) { t.putService(k, nil) }, always[*corev1.Service], sameService))
	watch(secrets.Core().V1().Secrets().Informer(), handler(q, (*state).putSecret, func(t *state, k catalog.Key) { t.putSecret(k, nil) }, isTLS, sameSecret))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ingress: follow the API server: %w", err)
	}
	f.StartWithContext(ctx)
	secrets.StartWithContext(ctx)
	defer func() { cancel(); f.Shutdown(); secrets.Shutdown() }()
	wg.Go(func() { s.report.run(ctx) })
	if !cache.WaitForCacheSync(ctx.Done(), waits...) {
		return nil
	}
	s.loop(ctx, keep)
	return nil
}

// recheck is how often certificates are looked at for their dates.
const recheck = time.Hour

func (s *Source) loop(ctx context.Context, keep *keeper) {
	st := newState(s.c.Options)
	refs := newLookups(ctx, s)
	defer refs.stop()
	clock := time.NewTicker(recheck)
	defer clock.Stop()
	s.apply(st)
	st.redraftAll()
	if refs.wait(ctx, refs.follow(st), refPatience) != nil {
		return
	}
	s.apply(st)
	s.hand(st, refs)
	if s.stale.Swap(0) != 0 {
		s.log.Info("the API server answers: its routes are served, and no longer those of the last run")
	}
	close(s.synced)
	keep.save(st)
	defer keep.save(st) // with the time of the end
	for {
		select {
		case <-ctx.Done():
			return
		case <-keep.clock():
			keep.save(st)
			continue
		case <-clock.C:
			keep.changed() // it has grown an hour older, which may count one day
			for h, c := range st.hosts {
				if c.secret != (catalog.Key{}) {
					st.again[h] = struct{}{}
				}
			}
		case <-s.queue.wake:
			// The first of a burst waits for the rest of it.
			t := time.NewTimer(gather)
			select {
			case <-ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			s.apply(st)
		}
		st.redraftAll()
		if begun := refs.follow(st); len(begun) > 0 {
			if refs.wait(ctx, begun, refHold) != nil {
				return
			}
			s.apply(st)
		}
		if s.hand(st, refs) {
			keep.changed()
		}
	}
}

func (s *Source) apply(st *state) {
	for _, f := range s.queue.take() {
		f(st)
	}
}

// hand gives away what is new, and says whether anything was.
func (s *Source) hand(st *state, refs *lookups) bool {
	began := time.Now()
	u := st.flush()
	told := st.tell()
	refs.follow(st)
	s.metrics.flushed(st, u, time.Since(began))
	if u != nil {
		s.c.OnUpdate(*u)
	}
	s.report.tell(st, told)
	return u != nil
}
