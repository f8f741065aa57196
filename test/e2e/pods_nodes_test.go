//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// spreadWeb is a Deployment of web with as many pods on each node, and its
// Service.
const spreadWeb = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: hostnames, image: k8s.gcr.io/serve_hostname, ports: [{containerPort: 9376}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 9376}]}
`

// TestPodsTwoNodes: pods of two machines are one network, and kubectl reaches
// all of them.
func TestPodsTwoNodes(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "nodes")
	c.apply(t, ns, spreadWeb)
	pods := c.ready(t, ns, "app=web", 4)
	on := map[string][]corev1.Pod{}
	for _, p := range pods {
		on[p.Spec.NodeName] = append(on[p.Spec.NodeName], p)
	}
	if len(on["node-1"]) != 2 || len(on["node-2"]) != 2 {
		t.Fatalf("the nodes have %d and %d pods, want 2 and 2", len(on["node-1"]), len(on["node-2"]))
	}
	near, far := on["node-1"][0], on["node-2"][0]

	t.Run("reach", func(t *testing.T) {
		url := "http://" + c.clusterIP(t, ns, "web") + "/"
		for _, m := range c.machines {
			m.answers(t, url, podNames(pods)...)
		}
		for _, from := range []corev1.Pod{near, far} {
			for _, to := range pods {
				if got := c.must(t, "exec", "-n", ns, from.Name, "--", "curl", "-s", "--max-time", "30", "http://"+to.Status.PodIP+":9376/"); got != to.Name+"\n" {
					t.Errorf("from %s of %s to %s of %s: %q", from.Name, from.Spec.NodeName, to.Name, to.Spec.NodeName, got)
				}
			}
			got := c.must(t, "exec", "-n", ns, from.Name, "--", "sh", "-c", "for i in $(seq 80); do curl -s --max-time 30 http://web; done")
			for _, to := range pods {
				if !strings.Contains(got, to.Name) {
					t.Errorf("%s is never reached through the Service from %s", to.Name, from.Name)
				}
			}
		}
	})
	t.Run("streams", func(t *testing.T) {
		if got := c.must(t, "logs", "-n", ns, far.Name); !strings.Contains(got, "hostnames listens on port 9376") {
			t.Errorf("logs: %s", got)
		}
		if got := c.must(t, "exec", "-n", ns, far.Name, "--", "hostname"); got != far.Name+"\n" {
			t.Errorf("exec: %s", got)
		}
		if r := c.try(t, "exec", "-n", ns, far.Name, "--", "sh", "-c", "exit 7"); r.code != 7 {
			t.Errorf("exec gives exit code %d, want 7: %s", r.code, r.err)
		}
		for i, p := range []corev1.Pod{near, far} {
			c.forward(t, ns, p.Name, 18080+i, 9376, func(url string) {
				if code, body := c.server().fetch(url); code != http.StatusOK || body != p.Name+"\n" {
					t.Errorf("port-forward to %s: %d %q", p.Name, code, body)
				}
			})
		}
	})
	t.Run("proxy", func(t *testing.T) {
		for _, path := range []string{"pods/" + near.Name + ":9376", "pods/" + far.Name + ":9376", "services/web"} {
			if got := c.must(t, "get", "--raw", "/api/v1/namespaces/"+ns+"/"+path+"/proxy/"); !strings.HasPrefix(got, "web-") {
				t.Errorf("%s/proxy: %q", path, got)
			}
		}
	})
}

// forward runs kubectl port-forward while f does.
func (c *cluster) forward(t testing.TB, ns, pod string, local, port int, f func(url string)) {
	t.Helper()
	p, err := c.server().spawn("port-forward", c.kubectl(t, "port-forward", "-n", ns, pod, fmt.Sprintf("%d:%d", local, port)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	if err := p.waitFor("Forwarding from 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	f(fmt.Sprintf("http://127.0.0.1:%d/", local))
}

// TestPodsNodeRights: a node has rights on what is its own, and on nothing else.
func TestPodsNodeRights(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "rights")
	for _, node := range c.nodes() {
		c.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: of-%[1]s}
stringData: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: on-%[1]s}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: busybox, command: [sleep, "1000000"], env: [{name: KEY, valueFrom: {secretKeyRef: {name: of-%[1]s, key: key}}}]}
`, node))
	}
	c.apply(t, ns, "{apiVersion: v1, kind: Secret, metadata: {name: of-nobody}, stringData: {key: value}}")
	for _, node := range c.nodes() {
		c.pod(t, ns, "on-"+node, "ready", podReady)
	}
	pair := c.nodeCertificate(t, 1)
	ca := filepath.Join(c.data(0), "pki", "ca.crt")
	as := []string{"--kubeconfig=/dev/null", "--server=" + serverURL, "--certificate-authority=" + ca, "--client-certificate=" + pair, "--client-key=" + pair, "-n", ns}
	if got := c.must(t, append(as, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")...); got != "system:node:node-2" {
		t.Fatalf("the certificate is of %q", got)
	}
	for _, tc := range []struct {
		args string
		ok   bool
	}{
		{"get pod on-node-2", true},
		{"get secret of-node-2", true},
		{"get pods --field-selector=spec.nodeName=node-2", true},
		{"get node node-2", true},
		{"get pod on-node-1", false},
		{"get secret of-node-1", false},
		{"get secret of-nobody", false},
		{"get secrets", false},
		{"get pods", false},
		{"get pods --field-selector=spec.nodeName=node-1", false},
		{"delete pod on-node-1 --wait=false", false},
		{"label node node-1 a=b", false},
		{"label node node-2 node-restriction.kubernetes.io/a=b", false},
		{"exec on-node-2 -- true", false},
		{"create configmap of-me", false},
		{"create deployment of-me --image=nginx", false},
		{"create token default", false},
	} {
		r := c.try(t, append(as, strings.Fields(tc.args)...)...)
		if denied := strings.Contains(r.err, "orbidden") || strings.Contains(r.err, "is not allowed") || strings.Contains(r.err, "can only"); tc.ok != (r.code == 0) || !tc.ok && !denied {
			t.Errorf("kubectl %s: exit %d %s%s, want allowed=%v", tc.args, r.code, r.out, r.err, tc.ok)
		}
	}
}

// nodeCertificate gives the file with the certificate and key of a node that
// joined.
func (c *cluster) nodeCertificate(t testing.TB, i int) string {
	t.Helper()
	dir := filepath.Join(c.data(i), "nodes", c.machines[i].name, "join")
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		text, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		names = append(names, e.Name())
		if strings.Contains(e.Name(), "client") && strings.Contains(string(text), "PRIVATE KEY") && strings.Contains(string(text), "CERTIFICATE") {
			return filepath.Join(dir, e.Name())
		}
	}
	t.Fatalf("no certificate in %s: %v", dir, names)
	return ""
}

// TestPodsStreamRights: who may exec says RBAC, and the node's port listens to
// nobody but the API server.
func TestPodsStreamRights(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "streams")
	c.apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: target}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers: [{name: shell, image: busybox, command: [sh, -c, "echo hello; exec sleep 1000000"]}]
`)
	c.must(t, "create", "role", "reader", "--verb=get,list", "--resource=pods,pods/exec", "-n", ns)
	c.must(t, "create", "role", "runner", "--verb=get", "--resource=pods", "-n", ns)
	c.must(t, "create", "role", "streams", "--verb=create", "--resource=pods/exec", "-n", ns)
	tokens := map[string]string{}
	for name, roles := range map[string][]string{"reader": {"reader"}, "runner": {"runner", "streams"}} {
		c.must(t, "create", "serviceaccount", name, "-n", ns)
		for _, role := range roles {
			c.must(t, "create", "rolebinding", name+"-"+role, "--role="+role, "--serviceaccount="+ns+":"+name, "-n", ns)
		}
		tokens[name] = strings.TrimSpace(c.must(t, "create", "token", name, "-n", ns))
	}
	c.pod(t, ns, "target", "ready", podReady)
	as := func(name string, args ...string) result {
		return c.try(t, append([]string{"--kubeconfig=/dev/null", "--server=" + serverURL, "--certificate-authority=" + filepath.Join(c.data(0), "pki", "ca.crt"),
			"--token=" + tokens[name], "-n", ns}, args...)...)
	}
	eventually(t, "exec with the right to, when the rights are known", func() error {
		r := as("runner", "exec", "target", "--", "echo", "ran")
		return unless(r.out == "ran\n", "%d %s%s", r.code, r.out, r.err)
	})
	for name, args := range map[string][]string{"reader": {"exec", "target", "--", "true"}, "runner": {"logs", "target"}} {
		if r := as(name, args...); r.code == 0 || !strings.Contains(r.err, "orbidden") {
			t.Errorf("%s without the right to: %d %s%s", args[0], r.code, r.out, r.err)
		}
	}

	node, err := c.client.CoreV1().Nodes().Get(t.Context(), "node-2", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("https://%s:%d", c.machines[1].addr, node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	pair := c.nodeCertificate(t, 1)
	curl := func(args string) string {
		return c.server().sh(t, "curl -sk --max-time 30 -o /dev/null -w '%{http_code}' "+args+" || :")
	}
	for _, path := range []string{"/pods", "/containerLogs/" + ns + "/target/shell", "/exec/" + ns + "/target/shell?command=id&output=1", "/runningpods/", "/metrics"} {
		for who, flags := range map[string]string{
			"a stranger": "", "a token": "-H 'Authorization: Bearer " + tokens["runner"] + "'", "the node itself": "--cert " + pair + " --key " + pair,
		} {
			if got := curl(flags + " '" + base + path + "'"); got != "000" && got != "401" && got != "403" {
				t.Errorf("%s gets %s for %s", who, got, path)
			}
		}
	}
	// The administrator may come directly: the port does work.
	pki := filepath.Join(c.dir, "admin.pem")
	if err := os.WriteFile(pki, []byte(c.adminPair(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := curl("--cert " + pki + " --key " + pki + " " + base + "/pods"); got != "200" {
		t.Errorf("the administrator gets %s", got)
	}
}

// adminPair is the administrator's certificate and key, of the kubeconfig.
func (c *cluster) adminPair(t testing.TB) string {
	t.Helper()
	cfg, err := c.rest()
	if err != nil {
		t.Fatal(err)
	}
	return string(cfg.CertData) + string(cfg.KeyData)
}
