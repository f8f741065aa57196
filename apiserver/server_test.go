package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	restclient "k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/store"
)

// beats is a Liveness that knows one instance.
type beats struct {
	mu sync.Mutex
	n  int
}

func (b *beats) Renew(ns, name, door, id string, _ time.Time) (time.Duration, error) {
	if ns != "default" || name != "web-1" {
		return 0, apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("instances").GroupResource(), name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	return 15 * time.Second, nil
}

func service(name, clusterIP string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 80}}}}
}

// TestServer starts one server and looks at it from many sides: a start costs
// more than a look.
func TestServer(t *testing.T) {
	live := &beats{}
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	s := start(t, st, filepath.Join(dir, "pki"), live)
	t.Run("cluster IPs", func(t *testing.T) { testClusterIPs(t, s) })
	t.Run("node ports", func(t *testing.T) { testNodePorts(t, s) })
	t.Run("who may", func(t *testing.T) { testWhoMay(t, s) })
	t.Run("heartbeats", func(t *testing.T) { testHeartbeats(t, s, live) })
	t.Run("instances", func(t *testing.T) { testInstances(t, s) })
	t.Run("loopback endpoints", func(t *testing.T) { testLoopback(t, s) })
	t.Run("bad requests", func(t *testing.T) { testBadRequests(t, s) })
	t.Run("discovery", func(t *testing.T) { testDiscovery(t, s) })
	t.Run("old versions of Ingress", func(t *testing.T) { testOldIngress(t, s) })
}

func testClusterIPs(t *testing.T, s *running) {
	ctx, api := t.Context(), s.admin.CoreV1().Services("default")
	svc, err := api.Create(ctx, service("auto", ""), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(svc.Spec.ClusterIP, "10.96.") {
		t.Errorf("ClusterIP %q, want one of 10.96.0.0/20", svc.Spec.ClusterIP)
	}
	ip, err := s.admin.NetworkingV1().IPAddresses().Get(ctx, svc.Spec.ClusterIP, metav1.GetOptions{})
	if err != nil || ip.Spec.ParentRef == nil || ip.Spec.ParentRef.Name != "auto" {
		t.Errorf("IPAddress of the service: %+v, %v", ip, err)
	}
	for name, c := range map[string]struct{ ip, want string }{
		"taken":          {svc.Spec.ClusterIP, "provided IP is already allocated"},
		"out of range":   {"10.97.0.1", "is not in the valid range"},
		"network itself": {"10.96.0.0", "is not in the valid range"},
		"broadcast":      {"10.96.15.255", "is not in the valid range"},
		"no address":     {"10.96.0", "must be a valid IP address"},
		"other family":   {"fd00::1", "not configured on this cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := api.Create(ctx, service("bad", c.ip), metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an Invalid with %q", err, c.want)
			}
		})
	}
	// A dry run keeps nothing.
	if _, err := api.Create(ctx, service("dry", "10.96.0.77"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(ctx, service("wet", "10.96.0.77"), metav1.CreateOptions{}); err != nil {
		t.Errorf("after a dry run the address is taken: %v", err)
	}
	// A refused create gives its address back; a delete too.
	if err := api.Delete(ctx, "wet", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(ctx, service("again", "10.96.0.77"), metav1.CreateOptions{}); err != nil {
		t.Errorf("after a delete the address is taken: %v", err)
	}
	// ExternalName and back.
	svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	was := ip.Name
	svc, err = api.Update(ctx, svc, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.NetworkingV1().IPAddresses().Get(ctx, was, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the address of a service that is ExternalName now still exists: %v", err)
	}
	svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Ports: []corev1.ServicePort{{Port: 80}}}
	if svc, err = api.Update(ctx, svc, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.admin.NetworkingV1().IPAddresses().Get(ctx, svc.Spec.ClusterIP, metav1.GetOptions{}); err != nil {
		t.Errorf("the new address is not recorded: %v", err)
	}
}

func testNodePorts(t *testing.T, s *running) {
	ctx, api := t.Context(), s.admin.CoreV1().Services("default")
	np := func(name string, port int32) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: port}}}}
	}
	if _, err := api.Create(ctx, np("np1", 31234), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Create(ctx, np("np2", 31234), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "provided port is already allocated") {
		t.Errorf("a second service with the node port: %v", err)
	}
	if _, err := api.Create(ctx, np("np3", 80), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "30000-32767") {
		t.Errorf("a node port out of range: %v", err)
	}
	svc, err := api.Create(ctx, np("np4", 0), metav1.CreateOptions{})
	if err != nil || svc.Spec.Ports[0].NodePort < 30000 || svc.Spec.Ports[0].NodePort > 32767 {
		t.Errorf("allocated node port: %v, %v", svc.Spec.Ports, err)
	}
	// The refused creates must have given their ClusterIPs back: what is
	// recorded belongs to a service.
	all, err := api.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := map[string]bool{}
	for _, svc := range all.Items {
		owned[svc.Spec.ClusterIP] = true
	}
	ips, err := s.admin.NetworkingV1().IPAddresses().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ips.Items {
		if !owned[ip.Name] {
			t.Errorf("address %s belongs to no service", ip.Name)
		}
	}
}

// request sends one request with a token ("" for none) and gives status and body.
func request(t *testing.T, s *running, method, path, token, body string) (int, string) {
	t.Helper()
	cfg := restclient.CopyConfig(s.rest)
	cfg.CertData, cfg.KeyData = nil, nil
	tr, err := restclient.TransportFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.rest.Host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// account makes a service account, bound to a role in default if that is not
// empty, and gives a token.
func account(t *testing.T, s *running, name, role string) string {
	t.Helper()
	ctx := t.Context()
	if _, err := s.admin.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if role != "" {
		_, err := s.admin.RbacV1().RoleBindings("default").Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: "default"}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// Who may do what is read by a watch. Each role may do one of these.
		some := []authorizationv1.ResourceAttributes{{Verb: "list", Group: v1alpha1.GroupVersion.Group, Resource: "instances"}, {Verb: "list", Resource: "services"}, {Verb: "create", Resource: "services"}}
		if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
			for _, a := range some {
				a.Namespace = "default"
				r, err := s.admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
					Spec: authorizationv1.SubjectAccessReviewSpec{User: "system:serviceaccount:default:" + name, ResourceAttributes: &a},
				}, metav1.CreateOptions{})
				if err != nil || r.Status.Allowed {
					return err == nil, err
				}
			}
			return false, nil
		}); err != nil {
			t.Fatalf("the role %s of %s is not known: %v", role, name, err)
		}
	}
	tr, err := s.admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tr.Status.Token
}

func testWhoMay(t *testing.T, s *running) {
	nobody, viewer := account(t, s, "nobody", ""), account(t, s, "registrar", RoleRegistrar)
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"GET", "/healthz", "", 200}, {"GET", "/livez", "", 200}, {"GET", "/readyz", "", 200}, {"GET", "/version", "", 200},
		{"GET", "/api", "", 401}, {"GET", "/api/v1/services", "", 401}, {"GET", "/metrics", "", 401}, {"GET", "/openapi/v3", "", 401},
		{"POST", "/version", "", 403},
		{"GET", "/healthz/../api/v1/secrets", "", 401},
		{"GET", "/api/v1/services", "garbage", 401},
		{"GET", "/api/v1/services", nobody[:len(nobody)-3] + "abc", 401},
		{"GET", "/healthz", "garbage", 401},
		{"GET", "/api/v1/services", nobody, 403}, {"GET", "/api/v1/namespaces/default/secrets", nobody, 403},
		{"GET", "/api", nobody, 200}, {"GET", "/openapi/v3", nobody, 200},
		{"GET", "/apis/fingerpost.dev/v1alpha1/namespaces/default/instances", viewer, 200},
		{"GET", "/apis/fingerpost.dev/v1alpha1/namespaces/kube-system/instances", viewer, 403},
		{"GET", "/api/v1/namespaces/default/secrets", viewer, 403},
	} {
		if got, body := request(t, s, c.method, c.path, c.token, ""); got != c.want {
			t.Errorf("%s %s with token %.8q: status %d, want %d: %.200s", c.method, c.path, c.token, got, c.want, body)
		}
	}
}

func testHeartbeats(t *testing.T, s *running, live *beats) {
	may, mayNot := account(t, s, "beater", RoleRegistrar), account(t, s, "silent", "")
	base := "/apis/fingerpost.dev/v1alpha1/namespaces/default/instances/"
	for _, c := range []struct {
		name, method, path, token, body string
		want                            int
		contains                        string
	}{
		{"plain", "PUT", base + "web-1/renew", may, "", 200, `"ttl":"15s"`},
		{"again, from memory", "PUT", base + "web-1/renew", may, "", 200, `"ttl":"15s"`},
		{"post", "POST", base + "web-1/renew?door=http&id=1", may, "", 200, `"ttl":"15s"`},
		{"body", "PUT", base + "web-1/renew", may, `{"door":"http","id":"1"}`, 200, `"ttl"`},
		{"unknown", "PUT", base + "web-2/renew", may, "", 404, "not found"},
		{"no token", "PUT", base + "web-1/renew", "", "", 401, "create token"},
		{"bad token", "PUT", base + "web-1/renew", "x", "", 401, ""},
		{"not allowed", "PUT", base + "web-1/renew", mayNot, "", 403, "instances/renew"},
		{"other namespace", "PUT", strings.Replace(base, "default", "kube-system", 1) + "web-1/renew", may, "", 403, ""},
		{"garbage body", "PUT", base + "web-1/renew", may, "{", 400, "Renewal"},
		{"huge body", "PUT", base + "web-1/renew", may, strings.Repeat(" ", 5<<10), 400, "4 KiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, body := request(t, s, c.method, c.path, c.token, c.body)
			if got != c.want || !strings.Contains(body, c.contains) {
				t.Errorf("status %d, want %d with %q: %s", got, c.want, c.contains, body)
			}
			if !json.Valid([]byte(body)) {
				t.Errorf("the answer is no JSON: %s", body)
			}
		})
	}
	if live.n != 4 {
		t.Errorf("%d heartbeats counted, want 4", live.n)
	}
}

func testInstances(t *testing.T, s *running) {
	c, err := client.New(s.rest)
	if err != nil {
		t.Fatal(err)
	}
	ctx, api := t.Context(), c.Instances("default")
	in, err := api.Create(ctx, &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Name: "db-1"},
		Spec:       v1alpha1.InstanceSpec{Service: "db", Address: "10.0.0.5", Ports: []v1alpha1.InstancePort{{Port: 5432}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !in.Status.Ready || in.Labels[v1alpha1.LabelService] != "db" || in.Spec.Ports[0].Protocol != "TCP" {
		t.Errorf("created %+v", in)
	}
	// An explicit negative takes it out with the one write that says so.
	in.Spec.Claims = []v1alpha1.Claim{{Door: "eureka", ID: "a", State: v1alpha1.ClaimOutOfService}}
	if in, err = api.Update(ctx, in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if in.Status.Ready || !in.Status.Serving || in.Status.Health.State != v1alpha1.HealthOutOfService {
		t.Errorf("out of service: status %+v", in.Status)
	}
	// Derived fields are nobody's to write.
	in.Status.Ready = true
	in.Status.Health.State = v1alpha1.HealthPassing
	if in, err = api.UpdateStatus(ctx, in, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if in.Status.Ready {
		t.Error("status.ready was written from outside")
	}
	for name, c := range map[string]struct {
		spec v1alpha1.InstanceSpec
		want string
	}{
		"host name":         {v1alpha1.InstanceSpec{Service: "x", Address: "db.example.com"}, "must be an IPv4 or IPv6 address"},
		"loopback, no node": {v1alpha1.InstanceSpec{Service: "x", Address: "127.0.0.1"}, "spec.nodeName"},
		"no service":        {v1alpha1.InstanceSpec{Address: "10.0.0.1"}, "spec.service"},
		"port":              {v1alpha1.InstanceSpec{Service: "x", Address: "10.0.0.1", Ports: []v1alpha1.InstancePort{{Port: 70000}}}, "1 and 65535"},
		"two claims":        {v1alpha1.InstanceSpec{Service: "x", Address: "10.0.0.1", Claims: []v1alpha1.Claim{{Door: "a", ID: "1"}, {Door: "a", ID: "1"}}}, "Duplicate"},
		"short ttl":         {v1alpha1.InstanceSpec{Service: "x", Address: "10.0.0.1", Check: &v1alpha1.Check{Type: "ttl", TTL: &metav1.Duration{Duration: 1}}}, "at least 1s"},
		"check":             {v1alpha1.InstanceSpec{Service: "x", Address: "10.0.0.1", Check: &v1alpha1.Check{Type: "icmp"}}, "supported values"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := api.Create(ctx, &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: c.spec}, metav1.CreateOptions{})
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an Invalid with %q", err, c.want)
			}
		})
	}
	// Generic clients, as garbage collection and the deletion of namespaces, ask
	// for protobuf.
	pb := restclient.CopyConfig(s.rest)
	pb.ContentType, pb.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	md, err := metadata.NewForConfig(pb)
	if err != nil {
		t.Fatal(err)
	}
	res := v1alpha1.GroupVersion.WithResource("instances")
	if l, err := md.Resource(res).Namespace("default").List(ctx, metav1.ListOptions{}); err != nil || len(l.Items) == 0 {
		t.Errorf("metadata of instances in protobuf: %v, %v", l, err)
	}
	if _, err := c.Instances("kube-system").Create(ctx, &v1alpha1.Instance{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1alpha1.InstanceSpec{Service: "x", Address: "10.0.0.1"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := md.Resource(res).Namespace("kube-system").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Errorf("delete all instances with protobuf: %v", err)
	}
	in.Spec.Address = "10.0.0.6"
	if _, err := api.Update(ctx, in, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("the address was changed: %v", err)
	}
}

func testLoopback(t *testing.T, s *running) {
	node := "here"
	slice := func(name, managedBy string, node *string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelManagedBy: managedBy, discoveryv1.LabelServiceName: "x"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"127.0.0.1"}, NodeName: node}},
		}
	}
	own := s.Client // in process, as our controllers are
	for name, c := range map[string]struct {
		by   kubernetes.Interface
		obj  *discoveryv1.EndpointSlice
		good bool
	}{
		"ours":            {own, slice("a", v1alpha1.ManagedBy, &node), true},
		"ours, no node":   {own, slice("b", v1alpha1.ManagedBy, nil), false},
		"other manager":   {own, slice("c", "somebody", &node), false},
		"a person's":      {s.admin, slice("d", "somebody", &node), false},
		"a person's fake": {s.admin, slice("e", v1alpha1.ManagedBy, &node), false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.by.DiscoveryV1().EndpointSlices("default").Create(t.Context(), c.obj, metav1.CreateOptions{})
			if c.good && err != nil {
				t.Errorf("refused: %v", err)
			}
			if !c.good && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "loopback")) {
				t.Errorf("got %v, want Kubernetes' refusal of loopback addresses", err)
			}
		})
	}
	_, err := own.CoreV1().Endpoints("default").Create(t.Context(), &corev1.Endpoints{ //nolint:staticcheck // the legacy kind is served on purpose
		ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "127.0.0.1", NodeName: &node}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Errorf("Endpoints of our controller: %v", err)
	}
}

func testBadRequests(t *testing.T, s *running) {
	token := account(t, s, "admin2", "cluster-admin")
	path := "/api/v1/namespaces/default/services"
	for _, c := range []struct {
		name, query, body string
		want              int
		contains          string
	}{
		{"not JSON", "", `{"apiVersion":"v1","kind":"Service",`, 400, "unexpected"},
		{"another kind", "", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"}}`, 400, "Pod"},
		{"unknown field", "?fieldValidation=Strict", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"},"spec":{"prots":[]}}`, 400, `unknown field \"spec.prots\"`},
		{"bad name", "", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"-x"},"spec":{"ports":[{"port":1}]}}`, 422, "RFC 1123"},
		{"bad port", "", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x"},"spec":{"ports":[{"port":0}]}}`, 422, "between 1 and 65535"},
		{"too large", "", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x","annotations":{"a":"` + strings.Repeat("x", 4<<20) + `"}}}`, 413, ""},
		{"annotations too large", "", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"x","annotations":{"a":"` + strings.Repeat("x", 300<<10) + `"}},"spec":{"ports":[{"port":1}]}}`, 422, "Too long"},
		{"empty", "", ``, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, body := request(t, s, "POST", path+c.query, token, c.body)
			if got != c.want || !strings.Contains(body, c.contains) {
				t.Errorf("status %d, want %d with %q: %.300s", got, c.want, c.contains, body)
			}
		})
	}
}

func testDiscovery(t *testing.T, s *running) {
	lists, err := s.admin.Discovery().ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, l := range lists {
		for _, r := range l.APIResources {
			have[l.GroupVersion+" "+r.Name] = true
		}
	}
	for _, want := range []string{
		"v1 services", "v1 endpoints", "v1 pods", "v1 nodes", "v1 namespaces", "v1 secrets", "v1 configmaps", "v1 serviceaccounts", "v1 events", "v1 replicationcontrollers",
		"discovery.k8s.io/v1 endpointslices", "networking.k8s.io/v1 ingresses", "networking.k8s.io/v1 ingressclasses", "networking.k8s.io/v1 servicecidrs", "networking.k8s.io/v1 ipaddresses",
		"apps/v1 deployments", "apps/v1 replicasets", "coordination.k8s.io/v1 leases", "rbac.authorization.k8s.io/v1 roles",
		"authentication.k8s.io/v1 tokenreviews", "authorization.k8s.io/v1 subjectaccessreviews",
		"admissionregistration.k8s.io/v1 validatingwebhookconfigurations", "admissionregistration.k8s.io/v1 validatingadmissionpolicies",
		"apiextensions.k8s.io/v1 customresourcedefinitions", "events.k8s.io/v1 events", "fingerpost.dev/v1alpha1 instances",
	} {
		if !have[want] {
			t.Errorf("not served: %s", want)
		}
	}
	if t.Failed() {
		t.Log(fmt.Sprint(have))
	}
}

// TestTwoServers runs two servers on one etcd, creating services at both: no
// address and no node port may be given twice, and none may be lost.
func TestTwoServers(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	servers := []*running{start(t, st, filepath.Join(dir, "pki"), nil), start(t, st, filepath.Join(dir, "pki"), nil)}

	const each = 60
	var wg sync.WaitGroup
	for i, s := range servers {
		for w := range 4 {
			wg.Go(func() {
				for n := range each / 4 {
					svc := service(fmt.Sprintf("s-%d-%d-%d", i, w, n), "")
					svc.Spec.Type = corev1.ServiceTypeNodePort
					if _, err := s.admin.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
						t.Errorf("create: %v", err)
					}
				}
			})
		}
	}
	wg.Wait()
	// The same address asked for at both: one gets it.
	won := make([]error, 2)
	for i, s := range servers {
		wg.Go(func() {
			_, won[i] = s.admin.CoreV1().Services("default").Create(t.Context(), service(fmt.Sprintf("same-%d", i), "10.96.0.9"), metav1.CreateOptions{})
		})
	}
	wg.Wait()
	if (won[0] == nil) == (won[1] == nil) {
		t.Errorf("one address asked for at two servers: %v and %v, want one success", won[0], won[1])
	}
	all, err := servers[0].admin.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ips, ports := map[string]string{}, map[int32]string{}
	for _, s := range all.Items {
		if other, twice := ips[s.Spec.ClusterIP]; twice {
			t.Errorf("%s and %s have ClusterIP %s", s.Name, other, s.Spec.ClusterIP)
		}
		ips[s.Spec.ClusterIP] = s.Name
		if p := s.Spec.Ports[0].NodePort; p != 0 {
			if other, twice := ports[p]; twice {
				t.Errorf("%s and %s have node port %d", s.Name, other, p)
			}
			ports[p] = s.Name
		}
	}
	if len(ports) != 2*each {
		t.Errorf("%d node port services, want %d", len(ports), 2*each)
	}

	// After a restart the addresses are known.
	taken := all.Items[0]
	for _, s := range servers {
		s.stop()
	}
	s := start(t, st, filepath.Join(dir, "pki"), nil)
	_, err = s.admin.CoreV1().Services("default").Create(t.Context(), service("late", taken.Spec.ClusterIP), metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("after a restart, a taken address: %v", err)
	}
}

func TestOtherServiceRangeIsRefused(t *testing.T) {
	s := startOne(t)
	cfg := *s.cfg
	cfg.ServiceCIDRs = nil
	cidr, err := s.admin.NetworkingV1().ServiceCIDRs().Get(t.Context(), defaultCIDR, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.ServiceCIDRs = append(cfg.ServiceCIDRs, mustPrefix("10.200.0.0/16"))
	err = ensureServiceCIDR(t.Context(), s.Client, &cfg)
	if err == nil || !strings.Contains(err.Error(), "--service-cidr "+cidr.Spec.CIDRs[0]) {
		t.Errorf("got %v, want an error that names the range to use", err)
	}
}
