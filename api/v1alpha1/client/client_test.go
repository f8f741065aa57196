package client

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// transport answers every request with the same object and keeps the last.
type transport struct {
	method, path, query, contentType, accept, body string
	answer                                         any
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.method, t.path, t.query, t.contentType, t.accept = r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Content-Type"), r.Header.Get("Accept")
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		t.body = string(b)
	}
	b, err := json.Marshal(t.answer)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(strings.NewReader(string(b)))}, err
}

func TestRequests(t *testing.T) {
	in := &v1alpha1.Instance{TypeMeta: metav1.TypeMeta{Kind: "Instance", APIVersion: "fingerpost.dev/v1alpha1"}, ObjectMeta: metav1.ObjectMeta{Name: "i", Namespace: "ns"}}
	list := &v1alpha1.InstanceList{TypeMeta: metav1.TypeMeta{Kind: "InstanceList", APIVersion: "fingerpost.dev/v1alpha1"}, Items: []v1alpha1.Instance{*in}}
	renewal := &v1alpha1.Renewal{TypeMeta: metav1.TypeMeta{Kind: "Renewal", APIVersion: "fingerpost.dev/v1alpha1"}, TTL: &metav1.Duration{Duration: 5 * time.Second}}
	const base = "/apis/fingerpost.dev/v1alpha1/namespaces/ns/instances"
	tests := []struct {
		name       string
		answer     any
		do         func(*Instances) error
		verb, path string
		body       string
	}{
		{"get", in, func(c *Instances) error { _, err := c.Get(t.Context(), "i", metav1.GetOptions{}); return err }, "GET", base + "/i", ""},
		{"list", list, func(c *Instances) error { _, err := c.List(t.Context(), metav1.ListOptions{}); return err }, "GET", base, ""},
		{"create", in, func(c *Instances) error { _, err := c.Create(t.Context(), in, metav1.CreateOptions{}); return err }, "POST", base, `"kind":"Instance"`},
		{"update", in, func(c *Instances) error { _, err := c.Update(t.Context(), in, metav1.UpdateOptions{}); return err }, "PUT", base + "/i", `"kind":"Instance"`},
		{"status", in, func(c *Instances) error {
			_, err := c.UpdateStatus(t.Context(), in, metav1.UpdateOptions{})
			return err
		}, "PUT", base + "/i/status", `"status"`},
		{"patch", in, func(c *Instances) error {
			_, err := c.Patch(t.Context(), "i", types.MergePatchType, []byte(`{}`), metav1.PatchOptions{}, "status")
			return err
		}, "PATCH", base + "/i/status", `{}`},
		{"delete", in, func(c *Instances) error { return c.Delete(t.Context(), "i", metav1.DeleteOptions{}) }, "DELETE", base + "/i", "DeleteOptions"},
		{"renew", renewal, func(c *Instances) error {
			r, err := c.Renew(t.Context(), "i", &v1alpha1.Renewal{Door: "http", ID: "1"})
			if err == nil && r.TTL.Duration != 5*time.Second {
				t.Error(r.TTL)
			}
			return err
		}, "PUT", base + "/i/renew", `"door":"http"`},
		{"renew all", v1alpha1.RenewalList{Items: []v1alpha1.RenewalItem{{Name: "i", TTL: &metav1.Duration{Duration: 5 * time.Second}}}}, func(c *Instances) error {
			r, err := c.RenewAll(t.Context(), []v1alpha1.RenewalItem{{Name: "i", Door: "http", ID: "1"}})
			if err == nil && (len(r) != 1 || r[0].TTL.Duration != 5*time.Second) {
				t.Error(r)
			}
			return err
		}, "PUT", strings.TrimSuffix(base, "instances") + "renewals", `"door":"http"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := &transport{answer: tt.answer}
			c, err := New(&rest.Config{Host: "http://x", Transport: tr, ContentConfig: rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"}})
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.do(c.Instances("ns")); err != nil {
				t.Fatal(err)
			}
			if tr.method != tt.verb || tr.path != tt.path || !strings.Contains(tr.body, tt.body) || strings.Contains(tr.contentType, "protobuf") {
				t.Errorf("%+v", tr)
			}
		})
	}
}

func TestLister(t *testing.T) {
	ix := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc, IndexService: ServiceIndexFunc})
	for _, n := range []string{"a", "b"} {
		if err := ix.Add(&v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: n}, Spec: v1alpha1.InstanceSpec{Service: "web"}}); err != nil {
			t.Fatal(err)
		}
	}
	l := NewLister(ix)
	if in, err := l.Get("ns", "a"); err != nil || in.Name != "a" {
		t.Error(in, err)
	}
	if _, err := l.Get("ns", "c"); err == nil {
		t.Error("c is there")
	}
	if all, err := l.OfService("ns", "web"); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
	if all, err := l.List("ns", labels.Everything()); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
}
