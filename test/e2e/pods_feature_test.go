//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodsVolumesAndEnvironment: everything that a manifest can put into a
// container, seen from inside.
func TestPodsVolumesAndEnvironment(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 1)
	ns := c.namespace(t, "full")
	c.apply(t, ns, `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, file.conf: "a = 1\n"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {password: s3cret}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full, tier: front}, annotations: {note: "hello there"}}
spec:
  terminationGracePeriodSeconds: 1
  hostname: own-name
  hostAliases: [{ip: 192.0.2.7, hostnames: [printer, printer.example]}]
  dnsConfig: {options: [{name: timeout, value: "3"}], searches: [more.example]}
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo first > /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  - name: side
    image: busybox
    restartPolicy: Always
    command: [sh, -c, "echo side >> /shared/order; exec sleep 1000000"]
    volumeMounts: [{name: shared, mountPath: /shared}]
    startupProbe: {exec: {command: [grep, -q, side, /shared/order]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 100}
  - {name: second, image: busybox, command: [sh, -c, "echo second >> /shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, 'cat /shared/order; echo "$0" "$@"; exec sleep 1000000', "$(GREETING)", "$$(GREETING)", "$(NOBODY)"]
    workingDir: /shared
    env:
    - {name: WORD, value: hello}
    - {name: GREETING, value: "$(WORD) world"}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: settings, key: absent, optional: true}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    envFrom: [{configMapRef: {name: settings}, prefix: S_}]
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: settings, mountPath: /one/file.conf, subPath: file.conf}
    - {name: keys, mountPath: /keys, readOnly: true}
    - {name: info, mountPath: /info}
  - {name: other, image: busybox, command: [sh, -c, "echo other > /shared/from-other; exec sleep 1000000"], volumeMounts: [{name: shared, mountPath: /shared}]}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}
`)
	p := c.pod(t, ns, "full", "ready", podReady)
	in := func(line string) string {
		return c.must(t, "exec", "-n", ns, "full", "-c", "main", "--", "sh", "-c", line)
	}
	if got, want := c.must(t, "logs", "-n", ns, "full", "-c", "main"), "first\nside\nsecond\nhello world $(GREETING) $(NOBODY)\n"; got != want {
		t.Errorf("logs: %q, want %q", got, want)
	}
	env := in("env")
	for _, want := range []string{"COLOR=blue", "PASSWORD=s3cret", "POD_IP=" + p.Status.PodIP, "NODE=node-1", "TIER=front", "LIMIT=64", "S_color=blue", "GREETING=hello world", "HOSTNAME=own-name"} {
		if !strings.Contains(env, want+"\n") {
			t.Errorf("no %s in\n%s", want, env)
		}
	}
	if strings.Contains(env, "ABSENT") {
		t.Error("an optional variable without a value is there")
	}
	for line, want := range map[string]string{
		"pwd": "/shared\n", "cat /settings/file.conf /one/file.conf": "a = 1\na = 1\n", "cat /settings/color": "blue", "cat /keys/password; stat -Lc %a /keys/password": "s3cret400\n",
		"cat /info/note": "hello there", `grep tier /info/labels`: "tier=\"front\"\n", "cat /shared/from-other": "other\n", "hostname": "own-name\n",
		"touch /keys/x 2>/dev/null || echo read-only": "read-only\n", "cat /var/run/secrets/kubernetes.io/serviceaccount/namespace": ns,
		"getent hosts printer.example | cut -d' ' -f1": "192.0.2.7\n", "grep -c own-name /etc/hosts": "1\n", "ls /proc | grep -c '^1$'": "1\n",
	} {
		if got := in(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if got := in("cat /etc/resolv.conf"); !strings.Contains(got, " more.example\n") || !strings.Contains(got, "timeout:3") {
		t.Errorf("resolv.conf: %s", got)
	}
	// The token of the service account is good at the API's own address.
	if got := in(`curl -s --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt -H "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)" https://kubernetes.default.svc/api/v1/namespaces/` + ns + `/pods`); !strings.Contains(got, "system:serviceaccount:"+ns+":default") {
		t.Errorf("the API to a pod: %s", got)
	}
	c.must(t, "patch", "configmap", "settings", "-n", ns, "-p", `{"data":{"color":"red"}}`)
	c.must(t, "annotate", "pod", "full", "-n", ns, "--overwrite", "note=changed")
	eventually(t, "files follow their objects", func() error {
		got := in("cat /settings/color /info/note")
		return unless(got == "redchanged", "%q", got)
	})
	if p.Status.QOSClass != corev1.PodQOSBurstable || p.Status.HostIP != c.server().addr || len(p.Status.PodIPs) != 1 {
		t.Errorf("status: %+v", p.Status)
	}
}

// TestPodsEnds: Jobs complete, crashes back off, and what a container says at
// its end is kept.
func TestPodsEnds(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 1)
	ns := c.namespace(t, "ends")
	c.apply(t, ns, `
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: sum, image: busybox, command: [sh, -c, "echo $((6*7))"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: fails, image: busybox, command: ["false"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: crash, image: busybox, command: [sh, -c, "echo run; echo why > /dev/termination-log; exit 3"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: last-words}
spec:
  restartPolicy: Never
  containers: [{name: c, image: busybox, command: [sh, -c, "echo last words; exit 4"], terminationMessagePolicy: FallbackToLogsOnError}]
---
apiVersion: v1
kind: Pod
metadata: {name: graceful}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.1; done"]
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook > /proc/1/fd/1"]}}}
`)
	c.must(t, "wait", "--for=condition=complete", "job/sum", "-n", ns, "--timeout=120s")
	c.must(t, "wait", "--for=condition=failed", "job/fails", "-n", ns, "--timeout=120s")
	if got := c.must(t, "logs", "-n", ns, "-l", "job-name=sum"); got != "42\n42\n42\n" {
		t.Errorf("logs of a Job: %q", got)
	}
	crash := c.pod(t, ns, "crash", "in back-off after a restart", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount >= 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if e := crash.Status.ContainerStatuses[0].LastTerminationState.Terminated; e == nil || e.ExitCode != 3 || e.Reason != "Error" || e.Message != "why\n" {
		t.Errorf("how the container ended: %+v", e)
	}
	if got := c.must(t, "logs", "-n", ns, "crash", "--previous"); got != "run\n" {
		t.Errorf("logs --previous: %q", got)
	}
	c.event(t, ns, "crash", "BackOff", "Back-off restarting failed container crash")
	p := c.pod(t, ns, "last-words", "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if e := p.Status.ContainerStatuses[0].State.Terminated; e == nil || e.ExitCode != 4 || e.Message != "last words\n" {
		t.Errorf("the termination message: %+v", e)
	}
	c.pod(t, ns, "graceful", "ready", podReady)
	logs, err := c.server().spawn("logs", c.kubectl(t, "logs", "-f", "-n", ns, "graceful"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.stop()
	if err := logs.waitFor("up"); err != nil {
		t.Fatal(err)
	}
	c.must(t, "delete", "pod", "graceful", "-n", ns, "--timeout=120s")
	if code := logs.code(t); code != 0 || logs.text() != "up\nhook\nterm\n" {
		t.Errorf("logs -f to the end: exit %d %q", code, logs.text())
	}
}

// TestPodsHost: pods with the machine's network, ports on the machine, and one
// pod on every machine.
func TestPodsHost(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "host")
	c.apply(t, ns, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: every}
spec:
  selector: {matchLabels: {app: every}}
  template:
    metadata: {labels: {app: every}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: k8s.gcr.io/serve_hostname, ports: [{containerPort: 9376, hostPort: 8376}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: host}}
spec:
  nodeName: node-2
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  containers: [{name: web, image: e2e/web, imagePullPolicy: IfNotPresent, args: ["-listen", ":8377", "-name", "host"]}]
---
apiVersion: v1
kind: Service
metadata: {name: host}
spec: {selector: {app: host}, ports: [{port: 80, targetPort: 8377}]}
`)
	every := c.ready(t, ns, "app=every", 2)
	host := c.pod(t, ns, "host", "ready", podReady)
	if host.Status.PodIP != c.machines[1].addr || host.Status.HostIP != c.machines[1].addr {
		t.Errorf("the addresses of a pod in the host's network: %s on %s", host.Status.PodIP, host.Status.HostIP)
	}
	c.server().answers(t, "http://"+c.clusterIP(t, ns, "host")+"/", "host")
	if got := c.must(t, "exec", "-n", ns, "host", "--", "cat", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 10.96.0.10") {
		t.Errorf("resolv.conf of ClusterFirstWithHostNet: %s", got)
	}
	for _, p := range every {
		for _, from := range c.machines {
			from.answers(t, "http://"+p.Status.HostIP+":8376/", p.Name)
		}
		if got := c.must(t, "exec", "-n", ns, every[0].Name, "--", "curl", "-s", "--max-time", "30", "http://"+p.Status.HostIP+":8376/"); got != p.Name+"\n" {
			t.Errorf("the host port of %s from a pod: %q", p.Spec.NodeName, got)
		}
		c.machines[int(p.Spec.NodeName[5]-'1')].answers(t, "http://127.0.0.1:8376/", p.Name)
	}
	c.must(t, "delete", "daemonset", "every", "-n", ns, "--timeout=120s")
	eventually(t, "the host ports are free", func() error {
		list, err := c.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=every"})
		if err != nil {
			return err
		}
		code, body := c.server().fetch("http://127.0.0.1:8376/")
		return unless(len(list.Items) == 0 && code == 0, "%d pods, %d %s", len(list.Items), code, body)
	})
}

// TestPodsStreams: kubectl attach, exec with a terminal, cp and port-forward.
func TestPodsStreams(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 2)
	ns := c.namespace(t, "tty")
	c.apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: cat}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers:
  - {name: cat, image: busybox, command: [sh, -c, "while read line; do echo got $line; done"], stdin: true}
  - {name: shell, image: busybox, command: [sleep, "1000000"]}
  - {name: web, image: nginx, ports: [{containerPort: 80}]}
`)
	c.pod(t, ns, "cat", "ready", podReady)
	if r := c.try(t, "logs", "-n", ns, "cat", "-c", "shell"); r.code != 0 || r.out != "" {
		t.Errorf("logs of a container that wrote nothing: %d %q %s", r.code, r.out, r.err)
	}
	if r := c.try(t, "logs", "-n", ns, "cat", "-c", "shell", "--previous"); r.code == 0 || !strings.Contains(r.err, `previous terminated container "shell" in pod "cat" not found`) {
		t.Errorf("logs --previous of a container that was never restarted: %d %s", r.code, r.err)
	}
	t.Run("attach", func(t *testing.T) {
		cmd := c.kubectl(t, "attach", "-i", "-n", ns, "cat", "-c", "cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.server().spawn("attach", cmd)
		if err != nil {
			t.Fatal(err)
		}
		defer p.stop()
		eventually(t, "an answer", func() error {
			if _, err := fmt.Fprintln(in, "something"); err != nil {
				return err
			}
			return unless(strings.Contains(p.text(), "got something"), "%s", p.text())
		})
	})
	t.Run("stdin", func(t *testing.T) {
		big := strings.Repeat("0123456789abcde\n", 1<<16)
		cmd := c.kubectl(t, "exec", "-i", "-n", ns, "cat", "-c", "shell", "--", "sh", "-c", "cat; echo done >&2; exit 5")
		cmd.Stdin = strings.NewReader(big)
		if r := c.server().finish(t, cmd); r.code != 5 || r.out != big || !strings.Contains(r.err, "done") {
			t.Errorf("1 MiB there and back: exit %d, %d bytes, %s", r.code, len(r.out), tail(r.err, 3))
		}
	})
	t.Run("tty", func(t *testing.T) {
		if _, err := exec.LookPath("script"); err != nil {
			t.Skip("script (util-linux), which makes a terminal, is not installed")
		}
		line := "stty cols 123 rows 45; " + filepath.Join(tools.bin(t), "kubectl") + " exec -it -n " + ns + ` cat -c shell -- sh -c 'tty; for i in $(seq 300); do [ "$(stty size)" != "45 123" ] || break; sleep 0.1; done; stty size; exit 6'`
		cmd := exec.Command("script", "-qec", line, "/dev/null")
		cmd.Env = environ(t, c.dir, "KUBECONFIG="+c.kubeconfig(), "TERM=xterm")
		if r := c.server().finish(t, cmd); r.code != 6 || !strings.Contains(r.out, "/dev/pts/") || !strings.Contains(r.out, "45 123") {
			t.Errorf("exec -it: exit %d %q %s", r.code, r.out, r.err)
		}
	})
	t.Run("cp", func(t *testing.T) {
		dir := t.TempDir()
		for _, f := range []string{"a", "sub/b"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, "from", f)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "from", f), []byte(f), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		c.must(t, "cp", "-n", ns, "-c", "shell", filepath.Join(dir, "from"), "cat:/srv/copy")
		c.must(t, "cp", "-n", ns, "-c", "shell", "cat:/srv/copy", filepath.Join(dir, "back"))
		if got, err := os.ReadFile(filepath.Join(dir, "back", "sub", "b")); string(got) != "sub/b" {
			t.Errorf("cp of a directory: %q %v", got, err)
		}
		if _, err := os.Stat("/srv/copy"); err == nil {
			t.Error("what was copied into a container is on the machine")
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		c.forward(t, ns, "pod/cat", 18090, 80, func(url string) {
			for range 20 {
				if code, body := c.server().fetch(url); code != 200 || !strings.Contains(body, "This is cat") {
					t.Errorf("port-forward: %d %s", code, body)
				}
			}
		})
	})
}
