package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

var oldVersions = []string{"extensions/v1beta1", "networking.k8s.io/v1beta1"}

// warned collects warnings.
type warned struct {
	mu   sync.Mutex
	text []string
}

func (w *warned) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

// ingresses is a client of Ingresses in a version.
func ingresses(t *testing.T, s *running, groupVersion string) (dynamic.ResourceInterface, *warned) {
	t.Helper()
	c, w := restclient.CopyConfig(s.rest), &warned{}
	c.WarningHandler = w
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	gv, err := schema.ParseGroupVersion(groupVersion)
	if err != nil {
		t.Fatal(err)
	}
	return d.Resource(gv.WithResource("ingresses")).Namespace("default"), w
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// manifest is an Ingress as people wrote it.
const manifest = `
apiVersion: %s
kind: Ingress
metadata:
  name: %s
  annotations:
    kubernetes.io/ingress.class: "nginx"
spec:
  backend:
    serviceName: fallback
    servicePort: http
  tls:
  - hosts: [dashboard.example.com]
    secretName: ingress-secret
  rules:
  - host: dashboard.example.com
    http:
      paths:
      - backend:
          serviceName: kubernetes-dashboard
          servicePort: 80
      - path: /api
        pathType: Prefix
        backend:
          serviceName: api
          servicePort: web
`

// testOldIngress is part of TestServer.
func testOldIngress(t *testing.T, s *running) {
	for _, gv := range oldVersions {
		t.Run(gv, func(t *testing.T) {
			name := strings.NewReplacer("/", "-", ".", "-").Replace(gv)
			t.Run("convert", func(t *testing.T) { testIngressConversion(t, s, gv, name) })
			t.Run("words", func(t *testing.T) { testIngressWords(t, s, gv) })
			t.Run("once allowed", func(t *testing.T) { testIngressOnceAllowed(t, s, gv, name) })
			t.Run("apply", func(t *testing.T) { testIngressApply(t, s, gv, name) })
			t.Run("default class", func(t *testing.T) { testDefaultClass(t, s, gv, name) })
			t.Run("schema", func(t *testing.T) { testIngressSchema(t, s, gv) })
		})
	}
	t.Run("discovery", func(t *testing.T) { testIngressDiscovery(t, s) })
	t.Run("rights", func(t *testing.T) { testIngressRights(t, s) })
	t.Run("classes", func(t *testing.T) { testOldClasses(t, s) })
	t.Run("table", func(t *testing.T) { testIngressTable(t, s) })
}

func testIngressConversion(t *testing.T, s *running, gv, name string) {
	ctx, v1 := t.Context(), s.admin.NetworkingV1().Ingresses("default")
	api, w := ingresses(t, s, gv)
	// A watch in the other version than the writer's sees its own.
	seen, err := v1.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Stop()
	made, err := api.Create(ctx, object(t, fmt.Sprintf(manifest, gv, name)), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	since := map[string]string{"extensions/v1beta1": "v1.14+", "networking.k8s.io/v1beta1": "v1.19+"}[gv]
	for _, want := range []string{
		gv + " Ingress is deprecated in " + since + ", unavailable in v1.22+; use networking.k8s.io/v1 Ingress",
		"annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
	} {
		if !slices.Contains(w.text, want) {
			t.Errorf("warnings %q, want %q among them", w.text, want)
		}
	}
	got, err := v1.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	backend := func(svc string, p networkingv1.ServiceBackendPort) networkingv1.IngressBackend {
		return networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: svc, Port: p}}
	}
	want := networkingv1.IngressSpec{
		DefaultBackend: ptr.To(backend("fallback", networkingv1.ServiceBackendPort{Name: "http"})),
		TLS:            []networkingv1.IngressTLS{{Hosts: []string{"dashboard.example.com"}, SecretName: "ingress-secret"}},
		Rules: []networkingv1.IngressRule{{Host: "dashboard.example.com", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
			{PathType: ptr.To(networkingv1.PathTypeImplementationSpecific), Backend: backend("kubernetes-dashboard", networkingv1.ServiceBackendPort{Number: 80})},
			{Path: "/api", PathType: ptr.To(networkingv1.PathTypePrefix), Backend: backend("api", networkingv1.ServiceBackendPort{Name: "web"})},
		}}}}},
	}
	if a, b := asJSON(t, got.Spec), asJSON(t, want); a != b {
		t.Errorf("in v1:\n%s\nwant\n%s", a, b)
	}
	select {
	case e := <-seen.ResultChan():
		if i, ok := e.Object.(*networkingv1.Ingress); !ok || e.Type != watch.Added || i.Spec.DefaultBackend == nil {
			t.Errorf("the watch in v1 saw %s %T", e.Type, e.Object)
		}
	case <-time.After(2 * time.Minute):
		t.Error("the watch in v1 saw nothing")
	}
	// Written in v1, seen in the old version.
	old, err := api.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: got.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Stop()
	got.Spec.DefaultBackend.Service.Port = networkingv1.ServiceBackendPort{Number: 8080}
	if _, err := v1.Update(ctx, got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-old.ResultChan():
		u := e.Object.(*unstructured.Unstructured)
		port, _, _ := unstructured.NestedInt64(u.Object, "spec", "backend", "servicePort")
		if e.Type != watch.Modified || u.GetAPIVersion() != gv || port != 8080 {
			t.Errorf("the watch in %s saw %s %v", gv, e.Type, u.Object)
		}
	case <-time.After(2 * time.Minute):
		t.Errorf("the watch in %s saw nothing", gv)
	}
	if _, err := api.Get(ctx, name, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	made.SetName(name + "-2")
	made.SetResourceVersion("")
	if _, err := api.Create(ctx, made, metav1.CreateOptions{}); err != nil {
		t.Errorf("what was answered cannot be sent back: %v", err)
	}
	if l, err := api.List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) < 2 || l.Items[0].GetAPIVersion() != gv {
		t.Errorf("list: %v, %v", l, err)
	}
	if err := api.Delete(ctx, name+"-2", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := v1.Get(ctx, name+"-2", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("deleted in %s, but in v1: %v", gv, err)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testIngressWords(t *testing.T, s *running, gv string) {
	api, _ := ingresses(t, s, gv)
	head := "apiVersion: " + gv + "\nkind: Ingress\nmetadata: {name: bad}\nspec: "
	for spec, want := range map[string][]string{
		`{}`: {"either `backend` or `rules` must be specified"},
		`{backend: {serviceName: "A b", servicePort: 80}}`:                                      {"spec.backend.serviceName: Invalid value"},
		`{backend: {serviceName: a, servicePort: 70000}}`:                                       {"spec.backend.servicePort: Invalid value: 70000"},
		`{backend: {serviceName: a, servicePort: Not_A_Port}}`:                                  {"spec.backend.servicePort: Invalid value"},
		`{backend: {servicePort: 80}}`:                                                          {"spec.backend.serviceName: Required value"},
		`{backend: {serviceName: a}}`:                                                           {"spec.backend: Required value: port name or number is required"},
		`{rules: [{host: a, http: {paths: [{backend: {serviceName: "a_", servicePort: 0}}]}}]}`: {"spec.rules[0].http.paths[0].backend.serviceName: Invalid value"},
		`{rules: [{host: 1.2.3.4}]}`:                                                            {"spec.rules[0].host", "must be a DNS name"},
		`{rules: [{http: {paths: []}}]}`:                                                        {"spec.rules[0].http.paths: Required value"},
		`{rules: [{http: {paths: [{path: api, backend: {serviceName: a, servicePort: 80}}]}}]}`: {"must be an absolute path"},
	} {
		_, err := api.Create(t.Context(), object(t, head+spec), metav1.CreateOptions{})
		if !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v, want an Invalid", spec, err)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q in it", spec, err, part)
			}
		}
		for _, wrong := range []string{"defaultBackend", "service.name", "service.port"} {
			if strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: %v speaks of %q, which %s does not have", spec, err, wrong, gv)
			}
		}
	}
	// v1 keeps its own.
	_, err := s.admin.NetworkingV1().Ingresses("default").Create(t.Context(), &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "bad"}}, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "`defaultBackend`") {
		t.Errorf("v1: %v", err)
	}
	// So do fields: an unknown one is named.
	u := object(t, head+`{defaultBackend: {service: {name: a}}}`)
	if _, err := api.Create(t.Context(), u, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err == nil || !strings.Contains(err.Error(), `unknown field "spec.defaultBackend"`) {
		t.Errorf("a field of v1: %v", err)
	}
}

func testIngressOnceAllowed(t *testing.T, s *running, gv, name string) {
	api, _ := ingresses(t, s, gv)
	spec := `spec: {tls: [{secretName: "Not_A_Name"}], rules: [{host: "*.example.com", http: {paths: [{path: rel, backend: {serviceName: a, servicePort: 80}}]}}]}`
	text := "kind: Ingress\nmetadata: {name: " + name + "-loose}\n" + spec + "\napiVersion: "
	u, err := api.Create(t.Context(), object(t, text+gv), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	u.SetLabels(map[string]string{"a": "b"})
	if _, err := api.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
		t.Errorf("update: %v", err)
	}
	v1 := s.admin.NetworkingV1().Ingresses("default")
	i, err := v1.Get(t.Context(), u.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i.Labels["a"] = "c"
	if _, err := v1.Update(t.Context(), i, metav1.UpdateOptions{}); err != nil {
		t.Errorf("in v1 the object can no longer be updated: %v", err)
	}
	i.ResourceVersion, i.Name = "", "new"
	if _, err := v1.Create(t.Context(), i, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("v1 is as loose: %v", err)
	}
}

func testIngressApply(t *testing.T, s *running, gv, name string) {
	api, _ := ingresses(t, s, gv)
	text := fmt.Sprintf(manifest, gv, name+"-ssa")
	opts := metav1.ApplyOptions{FieldManager: "me"}
	u := object(t, text)
	if _, err := api.Apply(t.Context(), u.GetName(), u, opts); err != nil {
		t.Fatal(err)
	}
	// Another version of the same, by the same manager, is no conflict, and a
	// field that is left out is removed.
	u = object(t, strings.Replace(text, "  backend:\n    serviceName: fallback\n    servicePort: http\n", "", 1))
	got, err := api.Apply(t.Context(), u.GetName(), u, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, has, _ := unstructured.NestedMap(got.Object, "spec", "backend"); has {
		t.Errorf("spec.backend is still there: %v", got.Object["spec"])
	}
	// Somebody else's value in v1 is a conflict, which names the field.
	patch := `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"` + u.GetName() + `","annotations":{"kubernetes.io/ingress.class":"other"}}}`
	_, err = s.admin.NetworkingV1().Ingresses("default").Patch(t.Context(), u.GetName(), types.ApplyPatchType, []byte(patch), metav1.PatchOptions{FieldManager: "you"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), "kubernetes.io/ingress.class") {
		t.Errorf("got %v, want a conflict about the annotation", err)
	}
	for _, p := range []struct {
		kind types.PatchType
		body string
	}{
		{types.MergePatchType, `{"spec":{"backend":{"serviceName":"x","servicePort":"y"}}}`},
		{types.StrategicMergePatchType, `{"spec":{"backend":{"servicePort":8080}}}`},
		{types.JSONPatchType, `[{"op":"replace","path":"/spec/backend/serviceName","value":"z"}]`},
	} {
		if _, err := api.Patch(t.Context(), u.GetName(), p.kind, []byte(p.body), metav1.PatchOptions{}); err != nil {
			t.Errorf("%s: %v", p.kind, err)
		}
	}
	i, err := s.admin.NetworkingV1().Ingresses("default").Get(t.Context(), u.GetName(), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if b := i.Spec.DefaultBackend; b == nil || b.Service.Name != "z" || b.Service.Port != (networkingv1.ServiceBackendPort{Number: 8080}) {
		t.Errorf("after the patches: %s", asJSON(t, i.Spec.DefaultBackend))
	}
}

func testDefaultClass(t *testing.T, s *running, gv, name string) {
	ctx, classes := t.Context(), s.admin.NetworkingV1().IngressClasses()
	if _, err := classes.Create(ctx, &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec:       networkingv1.IngressClassSpec{Controller: "example.com/x"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := classes.Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}()
	api, _ := ingresses(t, s, gv)
	u := object(t, fmt.Sprintf(manifest, gv, name+"-class"))
	with, err := api.Create(ctx, u, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c, has, _ := unstructured.NestedString(with.Object, "spec", "ingressClassName"); has {
		t.Errorf("an Ingress with the annotation got the class %q", c)
	}
	// The plugin reads an informer, which is told a moment later.
	u.SetAnnotations(nil)
	for n, deadline := 0, time.Now().Add(2*time.Minute); ; n++ {
		u.SetName(fmt.Sprintf("%s-class-%d", name, n))
		got, err := api.Create(ctx, u, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if c, _, _ := unstructured.NestedString(got.Object, "spec", "ingressClassName"); c == name {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the default class is not set: %v", got.Object["spec"])
		}
	}
}

func testIngressSchema(t *testing.T, s *running, gv string) {
	body, err := s.admin.RESTClient().Get().AbsPath("/openapi/v3/apis/" + gv).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := "io.k8s.api." + strings.NewReplacer("extensions/", "extensions.", "networking.k8s.io/", "networking.").Replace(gv) + ".Ingress"
	if !strings.Contains(string(body), `"`+name+`"`) || !strings.Contains(string(body), "servicePort") {
		t.Errorf("OpenAPI v3 of %s has no %s", gv, name)
	}
	if body, err = s.admin.RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").DoRaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(body), `"/apis/`+gv+`/namespaces/{namespace}/ingresses/{name}"`) || !strings.Contains(string(body), `"`+name+`"`) {
		t.Errorf("OpenAPI v2 has no %s", name)
	}
}

func testIngressDiscovery(t *testing.T, s *running) {
	groups, lists, err := s.admin.Discovery().ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string][]string{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			have[l.GroupVersion] = append(have[l.GroupVersion], r.Name)
			if l.GroupVersion == "extensions/v1beta1" && len(r.ShortNames) > 0 {
				t.Errorf("extensions/v1beta1 has the short names %v, of which kubectl warns", r.ShortNames)
			}
		}
	}
	if got := fmt.Sprint(have["extensions/v1beta1"]); got != "[ingresses ingresses/status]" {
		t.Errorf("extensions/v1beta1 has %s", got)
	}
	if got := fmt.Sprint(have["networking.k8s.io/v1beta1"]); got != "[ingressclasses ingresses ingresses/status]" {
		t.Errorf("networking.k8s.io/v1beta1 has %s", got)
	}
	for _, g := range groups {
		if g.Name == "networking.k8s.io" && (g.PreferredVersion.Version != "v1" || len(g.Versions) != 2) {
			t.Errorf("networking.k8s.io: preferred %s of %v", g.PreferredVersion.Version, g.Versions)
		}
	}
	if last := groups[len(groups)-1].Name; last != "extensions" {
		t.Errorf("the last group is %s, want extensions", last)
	}
	// As kubectl resolves names.
	resources, err := restmapper.GetAPIGroupResources(s.admin.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(resources)
	for _, name := range []string{"ingresses", "ingress"} {
		got, err := mapper.ResourceFor(schema.GroupVersionResource{Resource: name})
		if err != nil || got != networkingv1.SchemeGroupVersion.WithResource("ingresses") {
			t.Errorf("%s means %v, %v", name, got, err)
		}
	}
	if _, err := mapper.KindFor(schema.GroupVersionResource{Group: "extensions", Resource: "deployments"}); !meta.IsNoMatchError(err) {
		t.Errorf("extensions has deployments: %v", err)
	}
	// And as clients older than aggregated discovery read it.
	plain, err := s.admin.RESTClient().Get().AbsPath("/apis").SetHeader("Accept", "application/json").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, e := strings.Index(string(plain), `"networking.k8s.io"`), strings.Index(string(plain), `"extensions"`); n < 0 || e < n {
		t.Errorf("in the plain list networking.k8s.io is at %d, extensions at %d", n, e)
	}
}

func testIngressRights(t *testing.T, s *running) {
	// The controller that joins these into view, edit and admin does not run here.
	for role, want := range map[string][2]int{"view": {200, 403}, "edit": {403, 201}} {
		token := account(t, s, "ingress-"+role, "system:aggregate-to-"+role)
		for _, gv := range append(oldVersions, "networking.k8s.io/v1") {
			path := "/apis/" + gv + "/namespaces/default/ingresses"
			if got, body := request(t, s, "GET", path, token, ""); got != want[0] {
				t.Errorf("%s lists %s: %d %s", role, gv, got, body)
			}
			if gv == "networking.k8s.io/v1" {
				continue
			}
			b := fmt.Sprintf(`{"apiVersion":%q,"kind":"Ingress","metadata":{"generateName":"r-"},"spec":{"backend":{"serviceName":"a","servicePort":1}}}`, gv)
			if got, body := request(t, s, "POST", path, token, b); got != want[1] {
				t.Errorf("%s creates in %s: %d %s", role, gv, got, body)
			}
		}
	}
}

func testOldClasses(t *testing.T, s *running) {
	body := `{"apiVersion":"networking.k8s.io/v1beta1","kind":"IngressClass","metadata":{"name":"old"},"spec":{"controller":"example.com/y"}}`
	res := s.admin.RESTClient().Post().AbsPath("/apis/networking.k8s.io/v1beta1/ingressclasses").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context())
	if err := res.Error(); err != nil {
		t.Fatal(err)
	}
	c, err := s.admin.NetworkingV1().IngressClasses().Get(t.Context(), "old", metav1.GetOptions{})
	if err != nil || c.Spec.Controller != "example.com/y" {
		t.Errorf("in v1: %v, %v", c, err)
	}
	// They were never of the group extensions.
	if err := s.admin.RESTClient().Get().AbsPath("/apis/extensions/v1beta1/ingressclasses").Do(t.Context()).Error(); !apierrors.IsNotFound(err) {
		t.Errorf("extensions/v1beta1 ingressclasses: %v", err)
	}
}

func testIngressTable(t *testing.T, s *running) {
	for _, gv := range oldVersions {
		b, err := s.admin.RESTClient().Get().AbsPath("/apis/"+gv+"/namespaces/default/ingresses").
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var table metav1.Table
		if err := json.Unmarshal(b, &table); err != nil {
			t.Fatal(err)
		}
		var columns []string
		for _, c := range table.ColumnDefinitions {
			columns = append(columns, c.Name)
		}
		if got := strings.Join(columns, " "); got != "Name Class Hosts Address Ports Age" || len(table.Rows) == 0 || !strings.Contains(string(table.Rows[0].Object.Raw), "PartialObjectMetadata") {
			t.Errorf("%s: columns %s, %d rows", gv, got, len(table.Rows))
		}
	}
}
