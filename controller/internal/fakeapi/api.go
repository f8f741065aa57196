package fakeapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/client-go/rest"
)

type object = map[string]any

// API holds the objects. The zero value is not usable: call New.
type API struct {
	// Admit, if set, may change an object before it is stored.
	Admit func(resource string, obj map[string]any)
	// Fault, if set, may refuse a request with a status code other than 0.
	Fault func(verb, resource, name string) int

	mu     sync.Mutex
	rv     uint64
	byRes  map[string]map[string]object // resource -> namespace/name -> object
	events []event
	wake   chan struct{}
	writes []Write
}

type event struct {
	rv       uint64
	resource string
	kind     string
	obj      object
}

// Write is one change that the API took.
type Write struct{ Verb, Resource, Namespace, Name, Sub string }

func (w Write) String() string {
	s := w.Verb + " " + w.Resource + " " + w.Namespace + "/" + w.Name
	if w.Sub != "" {
		s += "/" + w.Sub
	}
	return s
}

// New makes an empty API.
func New() *API {
	return &API{rv: 1, byRes: map[string]map[string]object{}, wake: make(chan struct{})}
}

// Config gives the settings with which a client talks to the API.
func (a *API) Config() *rest.Config {
	return &rest.Config{Host: "http://fake.invalid", Transport: a, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}}
}

// Writes gives the changes since the last call to Writes.
func (a *API) Writes() []Write {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.writes
	a.writes = nil
	return w
}

// request is what the path of a URL says.
type request struct {
	verb, prefix, resource, namespace, name, sub string
}

func parse(method, path string) request {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	r := request{verb: method}
	n := 2 // api/v1
	if parts[0] == "apis" {
		n = 3
	}
	r.prefix = strings.Join(parts[1:n], "/")
	parts = parts[n:]
	if len(parts) > 2 && parts[0] == "namespaces" {
		r.namespace, parts = parts[1], parts[2:]
	}
	r.resource = parts[0]
	if len(parts) > 1 {
		r.name = parts[1]
	}
	if len(parts) > 2 {
		r.sub = parts[2]
	}
	return r
}

// RoundTrip answers one request.
func (a *API) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if req.Body != nil {
		body, _ = io.ReadAll(req.Body)
		req.Body.Close()
	}
	r := parse(req.Method, req.URL.Path)
	q := req.URL.Query()
	if req.Method == http.MethodGet && q.Get("watch") == "true" {
		if q.Get("sendInitialEvents") == "true" {
			return answer(req, http.StatusUnprocessableEntity, status(422, "Invalid", "no streaming lists")), nil
		}
		from, _ := strconv.ParseUint(q.Get("resourceVersion"), 10, 64)
		return a.watch(req, r, from), nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Fault != nil {
		if code := a.Fault(req.Method, r.resource, r.name); code != 0 {
			return answer(req, code, status(code, reasonOf(code), "injected")), nil
		}
	}
	code, out := a.do(r, req.Header.Get("Content-Type"), body)
	return answer(req, code, out), nil
}

func reasonOf(code int) string {
	switch code {
	case http.StatusNotFound:
		return "NotFound"
	case http.StatusConflict:
		return "Conflict"
	}
	return "InternalError"
}

func answer(req *http.Request, code int, obj any) *http.Response {
	b, err := json.Marshal(obj)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)),
	}
}

func status(code int, reason, message string) object {
	return object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
}

func (a *API) do(r request, contentType string, body []byte) (int, object) {
	objs := a.byRes[r.resource]
	key := r.namespace + "/" + r.name
	old := objs[key]
	if r.name != "" && old == nil {
		return 404, status(404, "NotFound", fmt.Sprintf("%s %q not found", r.resource, r.name))
	}
	switch r.verb {
	case http.MethodGet:
		if r.name != "" {
			return 200, old
		}
		items := []object{}
		for _, k := range slices.Sorted(maps.Keys(objs)) {
			if r.namespace == "" || strings.HasPrefix(k, r.namespace+"/") {
				items = append(items, objs[k])
			}
		}
		return 200, object{"kind": kindOf(r.resource) + "List", "apiVersion": r.prefix,
			"metadata": object{"resourceVersion": strconv.FormatUint(a.rv, 10)}, "items": items}
	case http.MethodPost:
		obj := decode(body)
		m := meta(obj)
		if m["name"] == nil || m["name"] == "" {
			m["name"] = fmt.Sprintf("%v%05d", m["generateName"], a.rv)
		}
		r.name = m["name"].(string)
		if objs[r.namespace+"/"+r.name] != nil {
			return 409, status(409, "AlreadyExists", r.name+" already exists")
		}
		if r.namespace != "" {
			m["namespace"] = r.namespace
		}
		m["uid"] = fmt.Sprintf("uid-%d", a.rv)
		m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		a.put(r, nil, obj, "ADDED")
		return 201, obj
	case http.MethodPut, http.MethodPatch:
		return a.change(r, old, contentType, body)
	case http.MethodDelete:
		delete(objs, key)
		gone := decode(encode(old))
		a.put(r, old, gone, "DELETED")
		return 200, object{"kind": "Status", "apiVersion": "v1", "status": "Success"}
	}
	return 405, status(405, "MethodNotAllowed", r.verb)
}

func (a *API) change(r request, old object, contentType string, body []byte) (int, object) {
	var obj object
	if r.verb == http.MethodPatch {
		if !strings.Contains(contentType, "merge-patch") {
			return 415, status(415, "UnsupportedMediaType", contentType)
		}
		b, err := jsonpatch.MergePatch(encode(old), body)
		if err != nil {
			return 400, status(400, "BadRequest", err.Error())
		}
		obj = decode(b)
		var asked struct {
			Metadata struct{ ResourceVersion, UID string }
		}
		_ = json.Unmarshal(body, &asked)
		if v := asked.Metadata.ResourceVersion; v != "" && v != meta(old)["resourceVersion"] {
			return 409, status(409, "Conflict", "the object has been modified")
		}
		if v := asked.Metadata.UID; v != "" && v != meta(old)["uid"] {
			return 409, status(409, "Conflict", "another object of that name")
		}
	} else {
		obj = decode(body)
		if v := meta(obj)["resourceVersion"]; v != nil && v != "" && v != meta(old)["resourceVersion"] {
			return 409, status(409, "Conflict", "the object has been modified")
		}
	}
	if r.sub == "status" {
		next := decode(encode(old))
		next["status"] = obj["status"]
		obj = next
	} else if old["status"] != nil && r.resource == "instances" {
		obj["status"] = old["status"]
	}
	for _, f := range []string{"uid", "creationTimestamp", "resourceVersion"} {
		meta(obj)[f] = meta(old)[f]
	}
	if a.Admit != nil {
		a.Admit(r.resource, obj)
	}
	if reflect.DeepEqual(decode(encode(obj)), old) {
		return 200, old
	}
	a.put(r, old, obj, "MODIFIED")
	return 200, obj
}

func (a *API) put(r request, old, obj object, kind string) {
	a.rv++
	meta(obj)["resourceVersion"] = strconv.FormatUint(a.rv, 10)
	if obj["kind"] == nil || obj["kind"] == "" {
		obj["kind"], obj["apiVersion"] = kindOf(r.resource), r.prefix
	}
	if kind == "ADDED" && a.Admit != nil {
		a.Admit(r.resource, obj)
	}
	obj2 := decode(encode(obj)) // own numbers and strings: nothing shared with the caller
	if kind != "DELETED" {
		if a.byRes[r.resource] == nil {
			a.byRes[r.resource] = map[string]object{}
		}
		a.byRes[r.resource][r.namespace+"/"+r.name] = obj2
	}
	a.events = append(a.events, event{a.rv, r.resource, kind, obj2})
	verb := map[string]string{"ADDED": "create", "MODIFIED": "update", "DELETED": "delete"}[kind]
	a.writes = append(a.writes, Write{verb, r.resource, r.namespace, r.name, r.sub})
	close(a.wake)
	a.wake = make(chan struct{})
}

func (a *API) watch(req *http.Request, r request, from uint64) *http.Response {
	pr, pw := io.Pipe()
	ctx := req.Context()
	body := &stream{PipeReader: pr, closed: make(chan struct{})}
	go func() {
		enc := json.NewEncoder(pw)
		next := 0
		for {
			a.mu.Lock()
			batch, wake := a.events[next:], a.wake
			next = len(a.events)
			a.mu.Unlock()
			for _, e := range batch {
				ns, _ := meta(e.obj)["namespace"].(string)
				if e.rv <= from || e.resource != r.resource || r.namespace != "" && ns != r.namespace {
					continue
				}
				if enc.Encode(object{"type": e.kind, "object": e.obj}) != nil {
					return
				}
			}
			select {
			case <-ctx.Done():
				pw.CloseWithError(io.EOF)
				return
			case <-body.closed:
				return
			case <-wake:
			}
		}
	}()
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: body, ContentLength: -1}
}

// stream tells the writing side that the client has gone.
type stream struct {
	*io.PipeReader
	once   sync.Once
	closed chan struct{}
}

func (s *stream) Close() error {
	s.once.Do(func() { close(s.closed) })
	return s.PipeReader.Close()
}

func meta(obj object) object {
	m, ok := obj["metadata"].(object)
	if !ok {
		m = object{}
		obj["metadata"] = m
	}
	return m
}

func encode(obj object) []byte {
	b, err := json.Marshal(obj)
	if err != nil {
		panic(err)
	}
	return b
}

func decode(b []byte) object {
	obj := object{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &obj); err != nil {
			panic(err)
		}
	}
	return obj
}

func kindOf(resource string) string {
	switch resource {
	case "endpointslices":
		return "EndpointSlice"
	case "endpoints":
		return "Endpoints"
	}
	s := strings.TrimSuffix(resource, "s")
	return strings.ToUpper(s[:1]) + s[1:]
}
