//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// uids of all pods.
func (c *cluster) uids(t testing.TB) (all []string) {
	t.Helper()
	list, err := c.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		all = append(all, string(list.Items[i].UID))
	}
	return all
}

// noCgroups wants that pods have none any more.
func noCgroups(t testing.TB, uids []string) {
	t.Helper()
	for _, uid := range uids {
		for _, depth := range []string{"*", "*/*", "*/*/*", "*/*/*/*"} {
			if found, _ := filepath.Glob("/sys/fs/cgroup/" + depth + "/" + uid); len(found) > 0 {
				t.Errorf("cgroups are left: %v", found)
			}
		}
	}
}

// TestPodsBad: what cannot run says why, leaves nothing on the machine when it
// is deleted, and keeps nothing else from running. The node has addresses for
// thirteen pods.
func TestPodsBad(t *testing.T) {
	t.Parallel()
	c := newPods(t, 1, "--pod-cidr", "10.244.7.0/28")
	ns := c.namespace(t, "bad")
	spec := func(name, more string) {
		c.apply(t, ns, "{apiVersion: v1, kind: Pod, metadata: {name: "+name+"}, spec: {terminationGracePeriodSeconds: 1, "+more+"}}")
	}
	spec("good", "containers: [{name: c, image: nginx}]") // the bridge is there from the first pod on
	c.pod(t, ns, "good", "ready", podReady)
	c.must(t, "delete", "pod", "good", "-n", ns)
	before, err := c.server().settled()
	if err != nil {
		t.Fatal(err)
	}
	spec("command", "containers: [{name: c, image: busybox, command: [/no/such/program]}]")
	spec("directory", "containers: [{name: c, image: busybox, command: [/etc]}]")
	spec("workdir", "containers: [{name: c, image: busybox, command: [sleep, '9'], workingDir: /etc/passwd}]")
	spec("user", "containers: [{name: c, image: busybox, command: [sleep, '9'], securityContext: {runAsNonRoot: true}}]")
	spec("probe", "containers: [{name: c, image: busybox, command: [sleep, '1000000'], readinessProbe: {tcpSocket: {port: 81}, periodSeconds: 1}}]")
	spec("volume", "containers: [{name: c, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, configMap: {name: absent}}]")
	spec("hostpath", "containers: [{name: c, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, hostPath: {path: /no/such/directory, type: Directory}}]")
	spec("claim", "containers: [{name: c, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, persistentVolumeClaim: {claimName: absent}}]")
	spec("secret", "containers: [{name: c, image: busybox, env: [{name: A, valueFrom: {secretKeyRef: {name: absent, key: a}}}]}]")
	spec("large", "containers: [{name: c, image: busybox, resources: {requests: {memory: 999Ti}}}]")
	spec("large-bound", "nodeName: node-1, containers: [{name: c, image: busybox, resources: {requests: {cpu: '9999'}}}]")
	spec("selector", "nodeSelector: {no: such}, containers: [{name: c, image: busybox}]")
	spec("port", "containers: [{name: c, image: 'registry.k8s.io/pause:3.10', ports: [{containerPort: 80, hostPort: 8099}]}]")
	c.pod(t, ns, "port", "ready", podReady)
	spec("port-clash", "containers: [{name: c, image: 'registry.k8s.io/pause:3.10', ports: [{containerPort: 80, hostPort: 8099}]}]")
	spec("port-clash-bound", "nodeName: node-1, containers: [{name: c, image: 'registry.k8s.io/pause:3.10', ports: [{containerPort: 80, hostPort: 8099}]}]")
	spec("init", "restartPolicy: Never, initContainers: [{name: i, image: busybox, command: ['false']}], containers: [{name: c, image: 'registry.k8s.io/pause:3.10'}]")

	waiting := func(reason, words string) func(p *corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			if len(p.Status.ContainerStatuses) == 0 {
				return false
			}
			w := p.Status.ContainerStatuses[0].State.Waiting
			return w != nil && w.Reason == reason && strings.Contains(w.Message, words)
		}
	}
	failed := func(reason string) func(p *corev1.Pod) bool {
		return func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed && p.Status.Reason == reason }
	}
	unschedulable := func(words string) func(p *corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			for _, s := range p.Status.Conditions {
				if s.Type == corev1.PodScheduled && s.Status == corev1.ConditionFalse && s.Reason == "Unschedulable" && strings.Contains(s.Message, words) {
					return p.Status.Phase == corev1.PodPending
				}
			}
			return false
		}
	}
	cannotRun := func(p *corev1.Pod) bool {
		for _, s := range p.Status.ContainerStatuses {
			if e := s.LastTerminationState.Terminated; e != nil && e.ExitCode == 128 && e.Reason == "ContainerCannotRun" && e.Message != "" {
				return true
			}
		}
		return false
	}
	for _, tc := range []struct {
		pod           string
		is            func(p *corev1.Pod) bool
		reason, words string
	}{
		{"command", cannotRun, "Failed", "/no/such/program"},
		{"directory", cannotRun, "Failed", "/etc"},
		{"workdir", cannotRun, "Failed", "/etc/passwd"},
		{"user", waiting("CreateContainerConfigError", "root"), "Failed", "root"},
		{"probe", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning && !podReady(p) }, "Unhealthy", "connection refused"},
		{"volume", waiting("ContainerCreating", ""), "FailedMount", `configmap "absent" not found`},
		{"hostpath", waiting("ContainerCreating", ""), "FailedMount", "/no/such/directory"},
		{"claim", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodPending }, "", ""},
		{"secret", waiting("CreateContainerConfigError", `secret "absent" not found`), "Failed", `secret "absent" not found`},
		{"large", unschedulable("nsufficient memory"), "FailedScheduling", "nsufficient memory"},
		{"large-bound", failed("OutOfcpu"), "OutOfcpu", "Node didn't have enough resource: cpu"},
		{"selector", unschedulable("affinity/selector"), "FailedScheduling", "node"},
		{"port-clash", unschedulable("ports"), "FailedScheduling", "ports"},
		{"port-clash-bound", failed("NodePorts"), "NodePorts", "8099"},
		{"init", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }, "", ""},
	} {
		c.pod(t, ns, tc.pod, "shows what is wrong", tc.is)
		if tc.reason != "" {
			c.event(t, ns, tc.pod, tc.reason, tc.words)
		}
	}
	uids := c.uids(t)
	c.must(t, "delete", "pods", "--all", "-n", ns, "--timeout=150s")
	c.server().clean(t, before)
	noCgroups(t, uids)

	// Fourteen pods for thirteen addresses: one waits for the first that goes.
	c.must(t, "create", "deployment", "many", "--image=registry.k8s.io/pause:3.10", "--replicas=14", "-n", ns)
	var last corev1.Pod
	eventually(t, "thirteen pods are ready", func() error {
		ready := 0
		for _, p := range c.pods(t, ns, "app=many") {
			if podReady(&p) {
				ready++
			} else {
				last = p
			}
		}
		return unless(ready == 13, "%d are ready", ready)
	})
	c.event(t, ns, last.Name, "FailedCreatePodSandBox", "no free pod address")
	c.must(t, "scale", "deployment", "many", "--replicas=10", "-n", ns)
	c.ready(t, ns, "app=many", 10)
	uids = c.uids(t)
	c.must(t, "delete", "namespace", ns, "--timeout=150s")
	c.server().clean(t, before)
	noCgroups(t, uids)
	// Of a request that took too long the log says "panicked: false".
	if text := c.children[0].text(); strings.Contains(strings.ReplaceAll(strings.ReplaceAll(text, "panicked: false", ""), "panic-reason: <nil>", ""), "panic") {
		t.Errorf("something panicked:\n%s", tail(text, 60))
	}
}

// TestPodsCrash: pods outlive what runs them. Killed and started again, it
// takes them over as they are.
func TestPodsCrash(t *testing.T) {
	t.Parallel()
	c := newPods(t, 2)
	ns := c.namespace(t, "crash")
	c.apply(t, ns, spreadWeb)
	for _, node := range c.nodes() {
		c.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: on-%[1]s}
spec:
  nodeName: %[1]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: counts, image: busybox, command: [sh, -c, "i=0; while :; do echo $((i=i+1)); sleep 0.02; done"], resources: {limits: {memory: 64Mi}}}
`, node))
		c.pod(t, ns, "on-"+node, "ready", podReady)
	}
	pods := c.ready(t, ns, "app=web", 4)
	url := "http://" + c.clusterIP(t, ns, "web") + "/"
	for _, m := range c.machines {
		m.answers(t, url, podNames(pods)...)
	}
	state := func() string {
		return c.must(t, "get", "pods", "-n", ns, "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.podIP} {range .status.containerStatuses[*]}{.containerID} {.restartCount} {.ready} {.state.running.startedAt}{end}{"\n"}{end}`)
	}
	before := state()
	for i, kind := range []string{"dev", "node"} {
		c.children[i].kill()
		// The dead one's pods go on answering each other.
		if i == 1 {
			c.server().answers(t, url, podNames(pods)...)
		}
		if err := c.again(t, i); err != nil {
			t.Fatalf("%s again: %v", kind, err)
		}
		for _, m := range c.machines {
			m.answers(t, url, podNames(pods)...)
		}
		eventually(t, "the pods are as before", func() error {
			now := state()
			return unless(now == before, "there is\n%s\nand was\n%s", now, before)
		})
		if got := c.must(t, "exec", "-n", ns, "on-"+c.machines[i].name, "--", "echo", "ran"); got != "ran\n" {
			t.Errorf("exec after the crash of %s: %q", kind, got)
		}
		var first, next int
		for line := range strings.Lines(c.must(t, "logs", "-n", ns, "on-"+c.machines[i].name)) {
			if _, err := fmt.Sscan(line, &next); err != nil || next != first+1 {
				t.Fatalf("the log goes on with %q after %d", line, first)
			}
			first = next
		}
		eventually(t, "the log goes on", func() error {
			got := c.must(t, "logs", "-n", ns, "on-"+c.machines[i].name, "--tail=1")
			_, err := fmt.Sscan(got, &next)
			return unless(err == nil && next > first+50, "%q after %d", got, first)
		})
	}
	uids := c.uids(t)
	// A pod deleted while its node is away is gone when it is back.
	c.children[1].kill()
	c.must(t, "delete", "pod", "on-node-2", "-n", ns, "--wait=false")
	if err := c.again(t, 1); err != nil {
		t.Fatal(err)
	}
	c.must(t, "wait", "--for=delete", "pod/on-node-2", "-n", ns, "--timeout=120s")

	// A node that stops leaves its pods alone, until it is reset.
	c.children[1].stop()
	pod := on(pods, "node-2")
	c.machines[1].answers(t, "http://"+pod.Status.PodIP+":9376/", pod.Name)
	for range 2 { // the second time there is nothing to do
		if r := c.fingerpost(t, 1, "node", "reset", "--state-dir", c.data(1)); r.code != 0 || !strings.Contains(r.err, "Nothing of this machine's pods is left") {
			t.Fatalf("node reset: %d %s%s", r.code, r.out, r.err)
		}
	}
	c.machines[1].clean(t, c.bare[1])
	// dev ends its pods with it.
	c.children[0].stop()
	c.machines[0].clean(t, c.bare[0])
	noCgroups(t, uids)
}

func on(pods []corev1.Pod, node string) corev1.Pod {
	for _, p := range pods {
		if p.Spec.NodeName == node {
			return p
		}
	}
	return corev1.Pod{}
}

// again starts what ran on a machine, as its administrator would: a node that
// joined knows its server and needs no token.
func (c *cluster) again(t testing.TB, i int) error {
	t.Helper()
	bin, env := tools.bin(t), environ(t, c.dir)
	if i == 0 {
		_, err := c.serve(bin, env)
		return err
	}
	m := c.machines[i]
	_, err := c.run(i, bin, env, "node", "--node-name", m.name, "--node-address", m.addr, "--state-dir", c.data(i))
	return err
}
