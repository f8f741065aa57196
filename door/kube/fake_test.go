package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// fakeAPI is a small Kubernetes API: list and watch over HTTP, in JSON and
// protobuf, on connections in memory so that a test owns the time.
type fakeAPI struct {
	scheme *runtime.Scheme
	codecs serializer.CodecFactory
	server *http.Server
	pipes  chan net.Conn

	mu        sync.Mutex
	rv        int
	objects   map[string]map[string]runtime.Object // resource -> namespace/name
	history   []fakeEvent
	compacted int // watches from before get 410
	watchers  map[*fakeWatcher]bool
	conns     []net.Conn

	down      bool // connections are refused
	silent    bool // requests get no answer
	watchList bool // streams lists
	hidden    map[string]int
	lists     int
	packed    int // requests that would take a packed answer
}

type fakeEvent struct {
	rv       int
	resource string
	kind     string
	obj      runtime.Object
}

type fakeWatcher struct {
	resource string
	events   chan any // fakeEvent, or []byte to write as is; closed: end of stream
}

func newFakeAPI(t testing.TB) *fakeAPI {
	f := &fakeAPI{
		scheme: runtime.NewScheme(), pipes: make(chan net.Conn), rv: 100,
		objects: map[string]map[string]runtime.Object{}, watchers: map[*fakeWatcher]bool{},
		watchList: true, hidden: map[string]int{},
	}
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(f.scheme); err != nil {
			t.Fatal(err)
		}
	}
	f.codecs = serializer.NewCodecFactory(f.scheme)
	f.server = &http.Server{Handler: http.HandlerFunc(f.serve)}
	go f.server.Serve(f) //nolint:errcheck // ends with Close
	t.Cleanup(func() { f.server.Close() })
	return f
}

// config gives a client's configuration.
func (f *fakeAPI) config() *rest.Config {
	return &rest.Config{Host: "http://fake", Dial: f.dial}
}

func (f *fakeAPI) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	f.mu.Lock()
	f.conns = append(f.conns, server)
	f.mu.Unlock()
	select {
	case f.pipes <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeAPI) Accept() (net.Conn, error) {
	c, ok := <-f.pipes
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (f *fakeAPI) Close() error   { close(f.pipes); return nil }
func (f *fakeAPI) Addr() net.Addr { return &net.UnixAddr{Name: "fake"} }

func resourceOf(o runtime.Object) string {
	switch o.(type) {
	case *corev1.Service:
		return "services"
	case *discoveryv1.EndpointSlice:
		return "endpointslices"
	case *corev1.Namespace:
		return "namespaces"
	case *corev1.Pod:
		return "pods"
	}
	return "instances"
}

func nameOf(o runtime.Object) string {
	m, _ := meta.Accessor(o)
	return m.GetNamespace() + "/" + m.GetName()
}

// put creates or updates objects.
func (f *fakeAPI) put(objs ...runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range objs {
		o = o.DeepCopyObject()
		r, n := resourceOf(o), nameOf(o)
		kind := "ADDED"
		if f.objects[r] == nil {
			f.objects[r] = map[string]runtime.Object{}
		}
		if f.objects[r][n] != nil {
			kind = "MODIFIED"
		}
		f.emit(kind, r, o)
		f.objects[r][n] = o
	}
}

func (f *fakeAPI) delete(o runtime.Object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, n := resourceOf(o), nameOf(o)
	if old := f.objects[r][n]; old != nil {
		delete(f.objects[r], n)
		f.emit("DELETED", r, old.DeepCopyObject())
	}
}

func (f *fakeAPI) emit(kind, resource string, o runtime.Object) {
	f.rv++
	m, _ := meta.Accessor(o)
	m.SetResourceVersion(strconv.Itoa(f.rv))
	e := fakeEvent{f.rv, resource, kind, o}
	f.history = append(f.history, e)
	for w := range f.watchers {
		if w.resource == resource {
			w.events <- e
		}
	}
}

// breakStreams ends every watch: with garbage, or by cutting the connection.
func (f *fakeAPI) breakStreams(garbage string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		if garbage != "" {
			w.events <- []byte(garbage)
		}
		close(w.events)
		delete(f.watchers, w)
	}
}

func (f *fakeAPI) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

func (f *fakeAPI) set(change func(*fakeAPI)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

var fakeGroups = map[string]schema.GroupVersion{
	"services": corev1.SchemeGroupVersion, "namespaces": corev1.SchemeGroupVersion, "pods": corev1.SchemeGroupVersion,
	"endpointslices": discoveryv1.SchemeGroupVersion, "instances": v1alpha1.GroupVersion,
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	silent := f.silent
	if r.Header.Get("Accept-Encoding") != "" {
		f.packed++
	}
	f.mu.Unlock()
	if silent {
		<-r.Context().Done()
		return
	}
	p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	resource := p[len(p)-1]
	ns := ""
	if len(p) > 2 && p[len(p)-3] == "namespaces" {
		ns = p[len(p)-2]
	}
	gv, known := fakeGroups[resource]
	f.mu.Lock()
	code := f.hidden[resource]
	if resource == "v1alpha1" {
		code = f.hidden["instances"]
	}
	f.mu.Unlock()
	switch {
	case code != 0:
		f.status(w, code)
	case !known: // version, discovery
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"kind":"APIResourceList","apiVersion":"v1","resources":[]}`)
	case r.URL.Query().Get("watch") == "true":
		f.watch(w, r, gv, resource, ns)
	default:
		f.list(w, r, gv, resource, ns)
	}
}

func (f *fakeAPI) status(w http.ResponseWriter, code int) {
	s := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Message: "refused by the fake"}
	s.Reason = map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound, 410: metav1.StatusReasonExpired, 422: metav1.StatusReasonInvalid}[code]
	b, _ := json.Marshal(s)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(b) //nolint:errcheck // the client went away
}

func (f *fakeAPI) media(r *http.Request) runtime.SerializerInfo {
	media := "application/json"
	if strings.Contains(r.Header.Get("Accept"), "protobuf") {
		media = runtime.ContentTypeProtobuf
	}
	info, _ := runtime.SerializerInfoForMediaType(f.codecs.SupportedMediaTypes(), media)
	return info
}

// sorted gives the objects of a resource; the caller holds mu.
func (f *fakeAPI) sorted(resource, ns string) (out []runtime.Object) {
	var names []string
	for n := range f.objects[resource] {
		if ns == "" || strings.HasPrefix(n, ns+"/") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	for _, n := range names {
		out = append(out, f.objects[resource][n])
	}
	return out
}

func (f *fakeAPI) list(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion, resource, ns string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	var list runtime.Object
	switch resource {
	case "services":
		list = &corev1.ServiceList{}
	case "endpointslices":
		list = &discoveryv1.EndpointSliceList{}
	case "namespaces":
		list = &corev1.NamespaceList{}
	case "pods":
		list = &corev1.PodList{}
	default:
		list = &v1alpha1.InstanceList{}
	}
	if err := meta.SetList(list, f.sorted(resource, ns)); err != nil {
		panic(err)
	}
	lm, _ := meta.ListAccessor(list)
	lm.SetResourceVersion(strconv.Itoa(f.rv))
	info := f.media(r)
	b, err := runtime.Encode(f.codecs.EncoderForVersion(info.Serializer, gv), list)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", info.MediaType)
	w.Write(b) //nolint:errcheck // the client went away
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion, resource, ns string) {
	q := r.URL.Query()
	initial := q.Get("sendInitialEvents") == "true"
	from, _ := strconv.Atoi(q.Get("resourceVersion"))
	watcher := &fakeWatcher{resource: resource, events: make(chan any, 10000)}
	f.mu.Lock()
	switch {
	case initial && !f.watchList:
		f.mu.Unlock()
		f.status(w, 422)
		return
	case initial:
		for _, o := range f.sorted(resource, ns) {
			watcher.events <- fakeEvent{obj: o, kind: "ADDED"}
		}
		mark := bookmark(resource, f.rv)
		mark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		watcher.events <- fakeEvent{obj: mark.(runtime.Object), kind: "BOOKMARK"}
	case from < f.compacted:
		f.mu.Unlock()
		f.status(w, 410)
		return
	default:
		for _, e := range f.history {
			if e.rv > from && e.resource == resource {
				watcher.events <- e
			}
		}
	}
	f.watchers[watcher] = true
	f.mu.Unlock()
	defer f.set(func(f *fakeAPI) { delete(f.watchers, watcher) })

	info := f.media(r)
	w.Header().Set("Content-Type", info.MediaType)
	w.(http.Flusher).Flush()
	frames := info.StreamSerializer.Framer.NewFrameWriter(w)
	object := f.codecs.EncoderForVersion(info.Serializer, gv)
	if info.MediaType == runtime.ContentTypeProtobuf {
		w.Header().Set("Content-Type", info.MediaType+";stream=watch")
	}
	outer := f.codecs.EncoderForVersion(info.StreamSerializer.Serializer, gv)
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-watcher.events:
			switch e := e.(type) {
			case nil:
				if !ok {
					return
				}
			case []byte:
				w.Write(e) //nolint:errcheck // the client went away
			case fakeEvent:
				if m, _ := meta.Accessor(e.obj); ns != "" && m.GetNamespace() != ns && e.kind != "BOOKMARK" {
					continue
				}
				f.mu.Lock() // the encoder writes the kind into the object
				raw, err := runtime.Encode(object, e.obj)
				f.mu.Unlock()
				if err != nil {
					panic(err)
				}
				we := &metav1.WatchEvent{Type: e.kind, Object: runtime.RawExtension{Raw: raw}}
				b, err := runtime.Encode(outer, we)
				if err != nil {
					panic(err)
				}
				frames.Write(b) //nolint:errcheck // the client went away
			}
			w.(http.Flusher).Flush()
		}
	}
}

func bookmark(resource string, rv int) metav1.Object {
	var o metav1.Object
	switch resource {
	case "services":
		o = &corev1.Service{}
	case "endpointslices":
		o = &discoveryv1.EndpointSlice{}
	case "namespaces":
		o = &corev1.Namespace{}
	case "pods":
		o = &corev1.Pod{}
	default:
		o = &v1alpha1.Instance{}
	}
	o.SetResourceVersion(strconv.Itoa(rv))
	return o
}
