package kube

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// recheck is how often the door looks whether a kind that the server did not
// have, or did not let it read, can be read now.
const recheck = 30 * time.Second

// source reads one kind.
type source struct {
	d         *Door
	kind      kind
	client    rest.Interface
	namespace string
	selector  fields.Selector
	example   runtime.Object
	optional  bool // the door does without it where it may not be read

	refused context.CancelCauseFunc // ends the reflector of an optional source
}

// connect makes the clients and the list of sources.
func (d *Door) connect(rc *rest.Config) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	rc.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	httpClient, err := rest.HTTPClientFor(rc)
	if err != nil {
		return err
	}
	client := func(path string, gv schema.GroupVersion, contentType string) (rest.Interface, error) {
		c := rest.CopyConfig(rc)
		c.APIPath, c.GroupVersion = path, &gv
		c.ContentType, c.AcceptContentTypes = contentType, contentType
		if contentType != runtime.ContentTypeJSON {
			c.AcceptContentTypes += "," + runtime.ContentTypeJSON
		}
		return rest.RESTClientForConfigAndClient(c, httpClient)
	}
	core, err1 := client("/api", corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf)
	disc, err2 := client("/apis", discoveryv1.SchemeGroupVersion, runtime.ContentTypeProtobuf)
	own, err3 := client("/apis", v1alpha1.GroupVersion, runtime.ContentTypeJSON)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	ns, all := d.cfg.Namespace, fields.Everything()
	spaces := all
	if ns != "" {
		spaces = fields.OneTermEqualSelector("metadata.name", ns)
	}
	d.sources = []*source{
		{d: d, kind: services, client: core, namespace: ns, selector: all, example: &corev1.Service{}},
		{d: d, kind: slicesKind, client: disc, namespace: ns, selector: all, example: &discoveryv1.EndpointSlice{}},
		// A role bound to one namespace cannot list namespaces.
		{d: d, kind: namespaces, client: core, selector: spaces, example: &corev1.Namespace{}, optional: ns != ""},
		{d: d, kind: instances, client: own, namespace: ns, selector: all, example: &v1alpha1.Instance{}, optional: true},
	}
	if d.cfg.Pods {
		d.sources = append(d.sources, &source{d: d, kind: pods, client: core, namespace: ns, selector: all, example: &corev1.Pod{}, optional: true})
	}
	d.probe = func(ctx context.Context) error {
		return core.Get().AbsPath("/version").MaxRetries(0).Do(ctx).Error()
	}
	return nil
}

func (s *source) run(ctx context.Context) {
	if !s.optional {
		s.reflect(ctx)
		return
	}
	told := false
	for ctx.Err() == nil {
		if s.kind == instances && !s.offered(ctx) {
			s.push(event{verb: forget})
		} else if ctx.Err() == nil {
			rctx, cancel := context.WithCancelCause(ctx)
			s.refused = cancel
			s.reflect(rctx)
			cancel(nil)
			if ctx.Err() != nil {
				return
			}
			if !told {
				told = true
				s.d.log.Warn("the server does not let this be read: doing without", "kind", s.kind, "err", context.Cause(rctx))
			}
			if s.kind == namespaces {
				s.push(event{verb: replace, list: []any{namespace(s.d.cfg.Namespace)}})
			} else {
				s.push(event{verb: forget})
			}
		}
		s.d.live.ok(string(s.kind))
		sleep(ctx, recheck)
	}
}

// offered asks, until there is an answer, whether the server has the kind.
func (s *source) offered(ctx context.Context) bool {
	next := s.d.backoff().DelayFunc()
	for {
		err := s.client.Get().MaxRetries(0).Do(ctx).Error()
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil, apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			return false
		}
		s.d.live.fail(string(s.kind), err)
		sleep(ctx, next())
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (d *Door) backoff() wait.Backoff {
	return wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.3, Steps: 30, Cap: d.cfg.MaxBackoff}
}

func (s *source) reflect(ctx context.Context) {
	// The reflector's own messages repeat with every attempt. The door says
	// once that the server is gone; these are for those who debug.
	logger := logr.FromSlogHandler(quiet{s.d.log.Handler()})
	backoff := s.d.backoff()
	r := cache.NewReflectorWithOptions(s.listWatch(), s.example, sink{s}, cache.ReflectorOptions{
		Name: "door/kube", TypeDescription: string(s.kind), Logger: &logger, Backoff: &backoff,
	})
	ctx = klog.NewContext(ctx, logger)
	// The loop is the door's own: the reflector's starts from a long wait
	// again only after two quiet minutes, and waits longer for each error.
	next := backoff.DelayFunc()
	for ctx.Err() == nil {
		began := s.d.cfg.Now()
		if err := r.ListAndWatchWithContext(ctx); err != nil && ctx.Err() == nil {
			s.d.log.Debug("read from the API server", "kind", s.kind, "err", err)
		}
		if s.d.cfg.Now().Sub(began) > 10*s.d.cfg.MaxBackoff {
			next = backoff.DelayFunc()
		}
		sleep(ctx, next())
	}
}

func (s *source) listWatch() *cache.ListWatch {
	request := func(o *metav1.ListOptions) *rest.Request {
		o.FieldSelector = s.selector.String()
		return s.client.Get().MaxRetries(0).Namespace(s.namespace).Resource(string(s.kind)).VersionedParams(o, metav1.ParameterCodec)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := request(&o).Do(ctx).Get()
			return list, s.outcome(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			w, err := request(&o).Watch(ctx)
			if _, stream := w.(*watch.StreamWatcher); err == nil && !stream {
				// The client answers a dropped connection with a watch that has
				// already ended.
				s.d.live.fail(string(s.kind), errors.New("the connection was dropped"))
				return w, nil
			}
			return w, s.outcome(ctx, err)
		},
	}
}

// outcome notes whether a request was answered, and gives its error back.
func (s *source) outcome(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		s.d.live.ok(string(s.kind))
	case apierrors.IsGone(err), apierrors.IsResourceExpired(err), apierrors.IsTooManyRequests(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		// The server is there and said how to go on: the next request will tell.
		s.d.live.heard()
	case s.optional && (apierrors.IsForbidden(err) || apierrors.IsNotFound(err)):
		s.d.live.heard()
		s.d.metrics.failed(s.kind)
		s.refused(err)
	default:
		s.d.live.fail(string(s.kind), err)
		s.d.metrics.failed(s.kind)
	}
	return err
}

// quiet demotes messages to the debug level, and leaves out the chattier ones.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if !q.Enabled(ctx, r.Level) { // errors come unasked
		return nil
	}
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(n string) slog.Handler      { return quiet{q.Handler.WithGroup(n)} }
