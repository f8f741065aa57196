//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// awayPods run on the second node: two behind a Service, of which one restarts
// what is killed with what it had, and one that is deleted while nobody looks.
const awayPods = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: sesame}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  volumes: [{name: hidden, secret: {secretName: hidden}}]
  containers:
  - name: web
    image: k8s.gcr.io/serve_hostname
    ports: [{containerPort: 9376}]
    env: [{name: MARK, value: away}]
    envFrom: [{configMapRef: {name: settings}}]
    volumeMounts: [{name: hidden, mountPath: /hidden}]
    readinessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1, httpGet: {port: 9376}}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: k8s.gcr.io/serve_hostname, env: [{name: MARK, value: away}], ports: [{containerPort: 9376}]}]
`

// TestNodeAwayFromServer: a node that is started while its server is away goes
// on with its pods: they keep their processes and addresses, names and virtual
// IPs answer, what ends is restarted. When the server is back, so is the node.
func TestNodeAwayFromServer(t *testing.T) {
	t.Parallel()
	c := newPods(t, 2)
	ns, m, far := c.namespace(t, "away"), c.machines[1], c.children[1]
	c.apply(t, ns, "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: 9376}]}}")
	name := "web." + ns + ".svc.cluster.local"
	ip := c.clusterIP(t, ns, "web")
	// Processes are found by the Service in their environment: the node knows it before.
	m.resolves(t, name, dns.TypeA, ip)
	c.apply(t, ns, awayPods)
	pods := c.ready(t, ns, "app=web", 2)
	m.answers(t, "http://"+ip+"/", podNames(pods)...)

	// processes gives the numbers of what answers in the pods.
	processes := func() string {
		return m.sh(t, `for p in /proc/[0-9]*; do case "$(tr '\0' '\n' <$p/environ 2>/dev/null)" in *MARK=away*) echo ${p#/proc/} $(tr '\0' ' ' <$p/cmdline);; esac; done`)
	}
	before := processes()
	if n := strings.Count(before, "\n"); n < 2 {
		t.Fatalf("the processes of pods are not found: %q", before)
	}
	c.children[0].stop()
	far.stop() // it writes down what it knows; of kill -9 see below
	if now := processes(); now != before {
		t.Fatalf("processes with the node killed:\n%sand before:\n%s", now, before)
	}
	node := func() {
		t.Helper()
		if _, err := c.run(1, c.bin, c.env, "node", "--node-name", m.name, "--node-address", m.addr, "--state-dir", c.data(1)); err != nil {
			t.Fatal(err)
		}
	}
	node()
	m.resolves(t, name, dns.TypeA, ip)
	m.answers(t, "http://"+ip+"/", podNames(pods)...)
	if now := processes(); now != before {
		t.Errorf("processes with the node taken over:\n%sand before:\n%s", now, before)
	}

	// What ends is restarted, with its settings and its address.
	m.sh(t, `for p in /proc/[0-9]*; do case "$(tr '\0' '\n' <$p/environ 2>/dev/null)" in *colour=green*) kill -9 ${p#/proc/};; esac; done; :`)
	one := pods[0]
	eventually(t, "the pod answers again", func() error {
		code, body := m.fetch("http://" + one.Status.PodIP + ":9376/")
		return unless(code == http.StatusOK && body == one.Name+"\n", "%d %s", code, body)
	})
	if got := m.sh(t, `for p in /proc/[0-9]*; do case "$(tr '\0' '\n' <$p/environ 2>/dev/null)" in *colour=green*) cat $p/root/hidden/word;; esac; done; :`); !strings.HasPrefix(got, "sesame") {
		t.Errorf("the restarted container's secret: %q", got)
	}

	// Another start knows of the restart.
	c.children[1].kill()
	node()
	m.answers(t, "http://"+ip+"/", podNames(pods)...)

	if _, err := c.serve(c.bin, c.env); err != nil {
		t.Fatal(err)
	}
	c.pod(t, ns, one.Name, "the restart is known", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == 1 && p.Status.PodIP == one.Status.PodIP
	})
	c.pod(t, ns, pods[1].Name, "nothing happened", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == 0 && p.Status.ContainerStatuses[0].ContainerID == pods[1].Status.ContainerStatuses[0].ContainerID
	})
	eventually(t, "the node is ready", func() error {
		n, err := c.client.CoreV1().Nodes().Get(t.Context(), m.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return unless(nodeReady(n), "%+v", n.Status.Conditions)
	})
	// It does again what it is told.
	c.must(t, "delete", "pod", "-n", ns, pods[1].Name)
	m.answers(t, "http://"+ip+"/", one.Name)
	if got := c.must(t, "exec", "-n", ns, one.Name, "--", "sh", "-c", "echo $colour"); got != "green\n" {
		t.Errorf("exec: %q", got)
	}
	if got := c.must(t, "logs", "-n", ns, one.Name); !strings.Contains(got, "listens on port 9376") {
		t.Errorf("logs: %q", got)
	}
	c.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: three, labels: {app: web}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: k8s.gcr.io/serve_hostname, ports: [{containerPort: 9376}]}]
`, m.name))
	m.answers(t, "http://"+ip+"/", one.Name, "three")
}
