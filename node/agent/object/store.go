package object

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

// Kind of an object.
type Kind string

// The kinds.
const (
	ConfigMap Kind = "configmap"
	Secret    Kind = "secret"
)

// Ref names an object.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

func (r Ref) String() string { return fmt.Sprintf("%s %q", r.Kind, r.Name) }

// Store watches what is held.
type Store struct {
	client kubernetes.Interface
	dir    string // where what is held is kept; "": nowhere
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	entries map[Ref]*entry
}

type entry struct {
	ref     Ref
	cancel  context.CancelFunc
	holders map[*Hold]struct{}
	ready   chan struct{} // closed when it was seen, there or not
	seen    bool
	obj     runtime.Object // nil: it does not exist
	err     error          // of the last attempt
}

// Hold keeps objects in the store.
type Hold struct {
	store  *Store
	refs   []Ref
	change func()
}

// New makes a store without watches.
func New(c kubernetes.Interface) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	return &Store{client: c, ctx: ctx, cancel: cancel, entries: map[Ref]*entry{}}
}

// Open makes a store that keeps what is held in a directory. When the API does
// not answer, what is there is what there is.
func Open(c kubernetes.Interface, dir string, log *slog.Logger) *Store {
	s := New(c)
	s.dir, s.log = dir, log
	return s
}

// Close ends all watches and waits for them.
func (s *Store) Close() {
	s.cancel()
	s.wg.Wait()
}

// Hold watches objects until the hold is released. change is called after each
// change of one; it must not block.
func (s *Store) Hold(refs []Ref, change func()) *Hold {
	h := &Hold{s, refs, change}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range refs {
		e := s.entries[r]
		if e == nil {
			ctx, cancel := context.WithCancel(s.ctx)
			e = &entry{ref: r, cancel: cancel, holders: map[*Hold]struct{}{}, ready: make(chan struct{})}
			s.entries[r] = e
			s.wg.Go(func() { s.follow(ctx, e) })
		}
		e.holders[h] = struct{}{}
	}
	return h
}

// Release ends the hold.
func (h *Hold) Release() {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, r := range h.refs {
		e := h.store.entries[r]
		if e == nil {
			continue
		}
		delete(e.holders, h)
		if len(e.holders) == 0 {
			e.cancel()
			delete(h.store.entries, r)
		}
	}
}

func (s *Store) get(ctx context.Context, r Ref) (runtime.Object, error) {
	s.mu.Lock()
	e := s.entries[r]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("object %q/%q not registered", r.Namespace, r.Name)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.err != nil {
			return nil, e.err
		}
		return nil, fmt.Errorf("failed to sync %s cache: timed out waiting for the condition", r.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.obj == nil {
		return nil, fmt.Errorf("%s %w", r, envvar.ErrNotFound)
	}
	return e.obj, nil
}

// ConfigMap gives one that is held; it waits until it was looked for once.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	o, err := s.get(ctx, Ref{ConfigMap, namespace, name})
	if err != nil {
		return nil, err
	}
	return o.(*corev1.ConfigMap), nil
}

// Secret gives one that is held; it waits until it was looked for once.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	o, err := s.get(ctx, Ref{Secret, namespace, name})
	if err != nil {
		return nil, err
	}
	return o.(*corev1.Secret), nil
}

// follow lists and watches one object.
func (s *Store) follow(ctx context.Context, e *entry) {
	const first, longest = 20 * time.Millisecond, 10 * time.Second
	wait := first
	slow := time.AfterFunc(keptPatience, func() { s.fallBack(e) })
	defer slow.Stop()
	for ctx.Err() == nil {
		begin := time.Now()
		version, err := s.list(ctx, e)
		if err == nil {
			err = s.watch(ctx, e, version)
		}
		if err == nil && time.Since(begin) > time.Second {
			wait = first
		}
		if err != nil {
			s.mu.Lock()
			e.err = err
			s.mu.Unlock()
			s.fallBack(e)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(wait*2, longest)
	}
}

func (s *Store) list(ctx context.Context, e *entry) (version string, err error) {
	o := metav1.ListOptions{FieldSelector: "metadata.name=" + e.ref.Name}
	var obj runtime.Object
	switch e.ref.Kind {
	case ConfigMap:
		l, err := s.client.CoreV1().ConfigMaps(e.ref.Namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		version = l.ResourceVersion
		for i := range l.Items {
			if l.Items[i].Name == e.ref.Name {
				obj = &l.Items[i]
			}
		}
	case Secret:
		l, err := s.client.CoreV1().Secrets(e.ref.Namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		version = l.ResourceVersion
		for i := range l.Items {
			if l.Items[i].Name == e.ref.Name {
				obj = &l.Items[i]
			}
		}
	}
	s.saw(e, obj)
	return version, nil
}

func (s *Store) watch(ctx context.Context, e *entry, version string) error {
	o := metav1.ListOptions{FieldSelector: "metadata.name=" + e.ref.Name, ResourceVersion: version}
	var w watch.Interface
	var err error
	switch e.ref.Kind {
	case ConfigMap:
		w, err = s.client.CoreV1().ConfigMaps(e.ref.Namespace).Watch(ctx, o)
	case Secret:
		w, err = s.client.CoreV1().Secrets(e.ref.Namespace).Watch(ctx, o)
	}
	if err != nil {
		return err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
			m, isObject := ev.Object.(metav1.Object)
			switch {
			case ev.Type == watch.Error:
				return apierrors.FromObject(ev.Object)
			case !isObject || m.GetName() != e.ref.Name:
			case ev.Type == watch.Added, ev.Type == watch.Modified:
				s.saw(e, ev.Object)
			case ev.Type == watch.Deleted:
				s.saw(e, nil)
			}
		}
	}
}

// set notes what was seen and tells the holders.
func (s *Store) set(e *entry, obj runtime.Object) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	s.mu.Lock()
	changed := version(e.obj) != version(obj)
	e.obj, e.err = obj, nil
	if !e.seen {
		e.seen, changed = true, false
		close(e.ready)
	}
	var tell []func()
	if changed {
		for h := range e.holders {
			tell = append(tell, h.change)
		}
	}
	s.mu.Unlock()
	for _, f := range tell {
		f()
	}
}

func version(o runtime.Object) string {
	if m, ok := o.(metav1.Object); ok {
		return string(m.GetUID()) + m.GetResourceVersion() + fmt.Sprintf("%p", o)
	}
	return ""
}

// Token makes a token of the pod's service account, bound to the pod.
func (s *Store) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		req.Spec.Audiences = []string{audience}
	}
	name := pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	wait := 20 * time.Millisecond
	for begin := time.Now(); ; wait *= 2 {
		got, err := s.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, name, req, metav1.CreateOptions{})
		if err == nil {
			return got.Status.Token, got.Status.ExpirationTimestamp.Time, nil
		}
		if !apierrors.IsForbidden(err) || time.Since(begin) > time.Second {
			return "", time.Time{}, err
		}
		select {
		case <-ctx.Done():
			return "", time.Time{}, err
		case <-time.After(wait):
		}
	}
}
