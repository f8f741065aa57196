package apiserver

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
)

// as gives a client with a certificate of the server's CA.
func (r *running) as(t *testing.T, user string, groups ...string) *kubernetes.Clientset {
	t.Helper()
	pair, err := r.PKI.Issue(x509.Certificate{Subject: pkix.Name{CommonName: user, Organization: groups}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(&restclient.Config{Host: r.rest.Host, QPS: -1, TLSClientConfig: restclient.TLSClientConfig{CAData: r.PKI.CACert, CertData: pair.Cert, KeyData: pair.Key}})
}

func (r *running) node(t *testing.T, name string) *kubernetes.Clientset {
	return r.as(t, "system:node:"+name, "system:nodes")
}

// pod makes a pod on a node that uses a secret and a config map named like it.
func (r *running) pod(t *testing.T, name, node string) *corev1.Pod {
	t.Helper()
	ctx := t.Context()
	if _, err := r.admin.CoreV1().ServiceAccounts("default").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := r.admin.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: name,
			Volumes: []corev1.Volume{{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}},
			Containers: []corev1.Container{{Name: "c", Image: "x", Env: []corev1.EnvVar{{Name: "S", ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: "k"}}}}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNodeRights(t *testing.T) {
	r := startOne(t)
	ctx := t.Context()
	a, b := r.node(t, "a"), r.node(t, "b")
	for n, c := range map[string]*kubernetes.Clientset{"a": a, "b": b} {
		if _, err := c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pa, pb := r.pod(t, "pa", "a"), r.pod(t, "pb", "b")
	// The graph of who uses what follows a watch.
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 2*time.Minute, true, func(c ctxType) (bool, error) {
		_, errA := a.CoreV1().Secrets("default").Get(c, "pa", metav1.GetOptions{})
		_, errB := b.CoreV1().Secrets("default").Get(c, "pb", metav1.GetOptions{})
		return errA == nil && errB == nil, nil
	}); err != nil {
		t.Fatalf("a node cannot read the secret of its own pod: %v", err)
	}
	patch := []byte(`{"status":{"phase":"Running"}}`)
	label := []byte(`{"metadata":{"labels":{"x":"y"}}}`)
	review := func(p *corev1.Pod) *authenticationv1.TokenRequest {
		return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}}}
	}
	for name, tc := range map[string]struct {
		allowed bool
		do      func() error
	}{
		"own config map": {true, func() error {
			_, err := a.CoreV1().ConfigMaps("default").Get(ctx, "pa", metav1.GetOptions{})
			return err
		}},
		"own pod": {true, func() error { _, err := a.CoreV1().Pods("default").Get(ctx, "pa", metav1.GetOptions{}); return err }},
		"own pods": {true, func() error {
			_, err := a.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=a"})
			return err
		}},
		"own status": {true, func() error {
			_, err := a.CoreV1().Pods("default").Patch(ctx, "pa", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
			return err
		}},
		"own node": {true, func() error {
			_, err := a.CoreV1().Nodes().Patch(ctx, "a", types.StrategicMergePatchType, label, metav1.PatchOptions{})
			return err
		}},
		"own token": {true, func() error {
			_, err := a.CoreV1().ServiceAccounts("default").CreateToken(ctx, "pa", review(pa), metav1.CreateOptions{})
			return err
		}},
		"services":       {true, func() error { _, err := a.CoreV1().Services("").List(ctx, metav1.ListOptions{}); return err }},
		"slices":         {true, func() error { _, err := a.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{}); return err }},
		"service ranges": {true, func() error { _, err := a.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{}); return err }},
		"nodes":          {true, func() error { _, err := a.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); return err }},
		"foreign secret": {false, func() error { _, err := a.CoreV1().Secrets("default").Get(ctx, "pb", metav1.GetOptions{}); return err }},
		"foreign config map": {false, func() error {
			_, err := a.CoreV1().ConfigMaps("default").Get(ctx, "pb", metav1.GetOptions{})
			return err
		}},
		"foreign pod": {false, func() error { _, err := a.CoreV1().Pods("default").Get(ctx, "pb", metav1.GetOptions{}); return err }},
		"foreign pods": {false, func() error {
			_, err := a.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=b"})
			return err
		}},
		"all pods":            {false, func() error { _, err := a.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); return err }},
		"all secrets":         {false, func() error { _, err := a.CoreV1().Secrets("").List(ctx, metav1.ListOptions{}); return err }},
		"secrets of namspace": {false, func() error { _, err := a.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); return err }},
		"foreign status": {false, func() error {
			_, err := a.CoreV1().Pods("default").Patch(ctx, "pb", types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
			return err
		}},
		"foreign node": {false, func() error {
			_, err := a.CoreV1().Nodes().Patch(ctx, "b", types.StrategicMergePatchType, label, metav1.PatchOptions{})
			return err
		}},
		"foreign pod deleted": {false, func() error { return a.CoreV1().Pods("default").Delete(ctx, "pb", metav1.DeleteOptions{}) }},
		"foreign eviction": {false, func() error {
			return a.CoreV1().Pods("default").EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "pb"}})
		}},
		"foreign token": {false, func() error {
			_, err := a.CoreV1().ServiceAccounts("default").CreateToken(ctx, "pb", review(pb), metav1.CreateOptions{})
			return err
		}},
		"token without pod": {false, func() error {
			_, err := a.CoreV1().ServiceAccounts("default").CreateToken(ctx, "pa", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		}},
		"pod of its own making": {false, func() error {
			_, err := a.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.PodSpec{NodeName: "a", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}, metav1.CreateOptions{})
			return err
		}},
		"role": {false, func() error { _, err := a.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{}); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.do()
			if tc.allowed && err != nil || !tc.allowed && !apierrors.IsForbidden(err) {
				t.Errorf("allowed %v wanted, got %v", tc.allowed, err)
			}
		})
	}
}

// A pod that names no service account gets the default one, and a volume with
// its token.
func TestServiceAccountAdmission(t *testing.T) {
	r := startOne(t)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := r.admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod without service account: %v", err)
	}
	if _, err := r.admin.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := r.admin.CoreV1().Pods("default").Create(t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.ServiceAccountName != "default" || len(got.Spec.Volumes) != 1 || got.Spec.Volumes[0].Projected == nil || len(got.Spec.Containers[0].VolumeMounts) != 1 {
		t.Errorf("%+v", got.Spec)
	}
}

// The API of a node is asked with the server's own certificate, and only by who
// may.
func TestNodePort(t *testing.T) {
	r := startOne(t)
	ctx := t.Context()
	var seen atomic.Value
	pair, err := r.PKI.Issue(x509.Certificate{}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, serving := nodeServing(t, r.PKI, pair)
	kubelet := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen.Store(fmt.Sprint(req.Method, " ", req.URL.Path, " by ", req.TLS.PeerCertificates[0].Subject.CommonName))
		fmt.Fprintln(w, "a line of the log")
	}))
	kubelet.TLS = nodeTLS(t, r.PKI, key, serving)
	kubelet.StartTLS()
	defer kubelet.Close()
	port := kubelet.Listener.Addr().(*net.TCPAddr).Port

	r.nodeAt(t, "a", port)
	r.pod(t, "pa", "a")
	log, err := r.admin.CoreV1().Pods("default").GetLogs("pa", &corev1.PodLogOptions{Container: "c"}).DoRaw(ctx)
	if err != nil || string(log) != "a line of the log\n" {
		t.Fatalf("%q, %v", log, err)
	}
	if got, want := seen.Load(), "GET /containerLogs/default/pa/c by "+UserKubeletClient; got != want {
		t.Errorf("the node saw %v, want %v", got, want)
	}

	// Without the verb on pods/exec, exec is refused before the node hears of it.
	if _, err := r.admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "logs"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods", "pods/log"}, Verbs: []string{"get"}}, {APIGroups: []string{""}, Resources: []string{"pods/exec"}, Verbs: []string{"delete"}}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "viewer"},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "logs"}, Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "eve"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eve := r.as(t, "eve")
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 2*time.Minute, true, func(c ctxType) (bool, error) {
		_, err := eve.CoreV1().Pods("default").GetLogs("pa", &corev1.PodLogOptions{}).DoRaw(c)
		return err == nil, nil
	}); err != nil {
		t.Fatalf("who may read logs cannot: %v", err)
	}
	for _, verb := range []string{"exec", "attach", "portforward"} {
		err := eve.CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name("pa").SubResource(verb).
			VersionedParams(&corev1.PodExecOptions{Container: "c", Command: []string{"x"}, Stdout: true}, paramCodec).Do(ctx).Error()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s by a viewer: %v", verb, err)
		}
	}
	if strings.Contains(fmt.Sprint(seen.Load()), "exec") {
		t.Error("the node was asked")
	}
}

func TestWorkloadKinds(t *testing.T) {
	r := startOne(t)
	for _, g := range []struct{ group, kind string }{
		{"apps/v1", "daemonsets"}, {"apps/v1", "statefulsets"}, {"apps/v1", "controllerrevisions"}, {"apps/v1", "deployments/scale"},
		{"batch/v1", "jobs"}, {"batch/v1", "cronjobs"}, {"certificates.k8s.io/v1", "certificatesigningrequests/approval"},
		{"v1", "pods/eviction"}, {"v1", "pods/exec"}, {"v1", "serviceaccounts/token"}, {"policy/v1", "poddisruptionbudgets"},
	} {
		list, err := r.admin.Discovery().ServerResourcesForGroupVersion(g.group)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(list)
		if !strings.Contains(string(b), `"name":"`+g.kind+`"`) {
			t.Errorf("%s has no %s", g.group, g.kind)
		}
	}
	// What cannot work is refused as upstream does.
	_, err := r.admin.BatchV1().Jobs("default").Create(t.Context(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("a job that restarts always: %v", err)
	}
	_, err = r.as(t, "eve", "system:masters-not").CertificatesV1().CertificateSigningRequests().Create(t.Context(), &certificatesv1.CertificateSigningRequest{}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("a certificate request by anybody: %v", err)
	}
}
