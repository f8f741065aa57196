package ingress

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/ingress/disk"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// keeper writes the objects that routes are made of to disk, and makes routes of
// those of the last run. nil does nothing.
type keeper struct {
	s    *Source
	file *disk.File
	last *route.Update // of the last run, until it is handed over
	due  *time.Timer
	on   bool // due will fire
}

// gatherEvery is how often what changed is collected for the file.
const gatherEvery = time.Second

func newKeeper(s *Source) (*keeper, error) {
	if s.c.File == "" {
		return nil, nil //nolint:nilnil // a nil keeper works
	}
	f, err := disk.New(disk.Config{Path: s.c.File, Source: s.c.FileSource, Now: s.c.Now, Wrote: func(w disk.Write) {
		if w.Err != nil {
			s.log.Warn("the routes could not be kept on disk: a start without the API server would serve older ones", "file", s.c.File, "error", w.Err)
		}
		s.metrics.wrote(w)
	}})
	if err != nil {
		return nil, err
	}
	due := time.NewTimer(time.Hour)
	due.Stop()
	return &keeper{s: s, file: f, due: due}, nil
}

// load makes the routes of the last run, and says whether it could.
func (k *keeper) load() bool {
	if k == nil {
		return false
	}
	log := k.s.log.With("file", k.file.Path())
	c, err := k.file.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	st := newState(k.s.c.Options)
	for i := 0; err == nil && i < len(c.Records); i++ {
		var obj runtime.Object
		if obj, err = decodeRecord(&c.Records[i]); err == nil {
			err = st.put(obj)
		}
	}
	if err != nil {
		log.Warn("the routes of the last run are not used: there are none until the API server answers", "reason", err)
		return false
	}
	k.last = st.flush()
	k.s.stale.Store(c.Taken.UnixNano())
	log.Info("serving the routes of the last run until the API server answers", "taken", c.Taken, "ingresses", len(st.drafts), "hosts", len(k.last.Hosts))
	return true
}

// serve hands over what was loaded.
func (k *keeper) serve() {
	if k != nil && k.last != nil {
		k.s.c.OnUpdate(*k.last)
		k.last = nil
	}
}

// clock fires when it is time to gather.
func (k *keeper) clock() <-chan time.Time {
	if k == nil {
		return nil
	}
	return k.due.C
}

// changed notes that the file does not say what is.
func (k *keeper) changed() {
	if k != nil && !k.on {
		k.on = true
		k.due.Reset(gatherEvery)
	}
}

// save has what the routes are made of written. It belongs to the goroutine of
// the state, which it reads; encoding is left to that of the file.
func (k *keeper) save(st *state) {
	if k == nil {
		return
	}
	k.on = false
	all := st.used()
	taken := k.s.Stale()
	if taken.IsZero() {
		taken = k.s.c.Now()
	}
	k.file.Save(func() ([]disk.Record, time.Time) {
		records := make([]disk.Record, 0, len(all))
		for _, o := range all {
			if r, err := encodeRecord(o); err == nil { // they came from the server
				records = append(records, r)
			}
		}
		return records, taken
	})
}

func (k *keeper) run(ctx context.Context) {
	if k != nil {
		_ = k.file.Run(ctx)
	}
}

// used gives the Ingresses that are ours, and what they refer to.
func (s *state) used() []runtime.Object {
	all := make([]runtime.Object, 0, len(s.drafts)+len(s.byRef)+len(s.objects.Classes)+2)
	for _, c := range s.objects.Classes {
		all = append(all, c)
	}
	for _, d := range s.drafts {
		all = append(all, d.in)
	}
	refer := func(r ref) {
		switch r.kind {
		case kindService:
			if o := s.objects.Services[r.key]; o != nil {
				all = append(all, o)
			}
		case kindSecret:
			if o := s.objects.Secrets[r.key]; o != nil {
				all = append(all, o)
			}
		case kindConfigMap:
			if o := s.objects.ConfigMaps[r.key]; o != nil {
				all = append(all, o)
			}
		}
	}
	for r := range s.byRef {
		refer(r)
	}
	// Those of the options, which no Ingress names.
	for kind, name := range map[string]string{kindService: s.o.DefaultService, kindSecret: s.o.DefaultCertificate} {
		if ns, name, ok := strings.Cut(name, "/"); ok {
			r := ref{kind, catalog.Key{Namespace: ns, Name: name}}
			if s.byRef[r] == nil {
				refer(r)
			}
		}
	}
	return all
}

// The kinds of records beside those of refs.
const (
	kindIngress = "Ingress"
	kindClass   = "IngressClass"
)

// encodeRecord writes an object without what routes do not depend on.
func encodeRecord(obj runtime.Object) (disk.Record, error) {
	meta := func(m *metav1.ObjectMeta) metav1.ObjectMeta {
		out := metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, CreationTimestamp: m.CreationTimestamp}
		for k, v := range m.Annotations {
			if k == corev1.LastAppliedConfigAnnotation {
				continue
			}
			if out.Annotations == nil {
				out.Annotations = make(map[string]string, len(m.Annotations))
			}
			out.Annotations[k] = v
		}
		return out
	}
	var kind string
	var data []byte
	var err error
	switch o := obj.(type) {
	case *networkingv1.Ingress:
		kind = kindIngress
		data, err = (&networkingv1.Ingress{ObjectMeta: meta(&o.ObjectMeta), Spec: o.Spec}).Marshal()
	case *networkingv1.IngressClass:
		kind = kindClass
		data, err = (&networkingv1.IngressClass{ObjectMeta: meta(&o.ObjectMeta), Spec: o.Spec}).Marshal()
	case *corev1.Service:
		kind = kindService
		data, err = (&corev1.Service{ObjectMeta: meta(&o.ObjectMeta), Spec: o.Spec}).Marshal()
	case *corev1.Secret:
		kind = kindSecret
		data, err = (&corev1.Secret{ObjectMeta: meta(&o.ObjectMeta), Type: o.Type, Data: o.Data}).Marshal()
	case *corev1.ConfigMap:
		kind = kindConfigMap
		data, err = (&corev1.ConfigMap{ObjectMeta: meta(&o.ObjectMeta), Data: o.Data}).Marshal()
	default:
		err = fmt.Errorf("ingress: keep an object on disk: it is a %T", obj)
	}
	return disk.Record{Kind: kind, Data: data}, err
}

func decodeRecord(r *disk.Record) (runtime.Object, error) {
	var obj interface {
		runtime.Object
		Unmarshal([]byte) error
	}
	switch r.Kind {
	case kindIngress:
		obj = &networkingv1.Ingress{}
	case kindClass:
		obj = &networkingv1.IngressClass{}
	case kindService:
		obj = &corev1.Service{}
	case kindSecret:
		obj = &corev1.Secret{}
	case kindConfigMap:
		obj = &corev1.ConfigMap{}
	default:
		return nil, fmt.Errorf("it holds a %q, which this version does not know", r.Kind)
	}
	if err := obj.Unmarshal(r.Data); err != nil {
		return nil, fmt.Errorf("it holds a %s that cannot be read: %w", r.Kind, err)
	}
	return obj, nil
}
