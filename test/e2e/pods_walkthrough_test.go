//go:build linux

package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

// TestPodsWalkthrough is what people do with pods and services, on one node
// and on two.
func TestPodsWalkthrough(t *testing.T) {
	t.Parallel()
	for nodes, name := range map[int]string{1: "one node", 2: "two nodes"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := podClusters.shared(t, nodes)
			for name, walk := range map[string]func(*testing.T, *cluster){
				"1 ClusterIP": walkClusterIP, "2 named port": walkNamedPort, "3 environment": walkEnvironment, "4 resolv.conf": walkNames,
				"5 headless": walkHeadless, "9 hostnames": walkHostnames, "15 readiness": walkReadiness, "16 liveness": walkLiveness,
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					walk(t, c)
				})
			}
		})
	}
}

// webPod is a pod of the program web, which answers its pod's name.
func webPod(name, labels, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {%s}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: e2e/web
    imagePullPolicy: IfNotPresent
    args: ["-listen", ":80", "-name", "$(NAME)"]
    env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
%s
---
`, name, labels, more)
}

func walkClusterIP(t *testing.T, c *cluster) {
	const ns = "love-test" // the manifest names it
	c.makeNamespace(t, ns)
	c.must(t, "apply", "-f", abs(t, "testdata/walkthrough/nginx-service.yaml"))
	c.apply(t, ns, webPod("a", "app: nginx-rs-test", "")+webPod("b", "app: nginx-rs-test", ""))
	pods := c.ready(t, ns, "app=nginx-rs-test", 2)
	ip := c.clusterIP(t, ns, "nginx-service")
	for _, m := range c.machines {
		m.answers(t, "http://"+ip+"/", "a", "b")
	}
	if got := c.must(t, "get", "svc", "-n", ns); !regexp.MustCompile(`(?m)^nginx-service +ClusterIP +` + regexp.QuoteMeta(ip) + ` +<none> +80/TCP `).MatchString(got) {
		t.Errorf("kubectl get svc:\n%s", got)
	}
	for _, shown := range [][]string{{"get", "endpoints", "-n", ns, "nginx-service"}, {"describe", "svc", "-n", ns, "nginx-service"}} {
		eventually(t, "kubectl "+shown[0], func() error {
			got := c.must(t, shown...)
			for _, ip := range ips(pods) {
				if !strings.Contains(got, ip+":80") {
					return fmt.Errorf("no %s in\n%s", ip, got)
				}
			}
			return nil
		})
	}
	c.must(t, "delete", "pod", "a", "-n", ns)
	c.server().answers(t, "http://"+ip+"/", "b")
	c.apply(t, ns, webPod("c", "app: nginx-rs-test", ""))
	for _, m := range c.machines {
		m.answers(t, "http://"+ip+"/", "b", "c")
	}
}

func walkNamedPort(t *testing.T, c *cluster) {
	ns := c.namespace(t, "named")
	for name, port := range map[string]int{"eight": 8081, "nine": 9091} {
		c.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: e2e/web
    imagePullPolicy: IfNotPresent
    args: ["-listen", ":%[2]d", "-name", "%[1]s"]
    ports: [{name: web, containerPort: %[2]d}]
`, name, port))
	}
	c.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 8000, targetPort: web}]
`)
	c.ready(t, ns, "app=web", 2)
	c.server().answers(t, "http://"+c.clusterIP(t, ns, "web")+":8000/", "eight", "nine")
}

func walkEnvironment(t *testing.T, c *cluster) {
	ns := c.namespace(t, "environment")
	c.must(t, "create", "deployment", "my-app", "--image=nginx", "-n", ns)
	before := c.ready(t, ns, "app=my-app", 1)[0]
	c.must(t, "create", "deployment", "mysql", "--image=mysql", "-n", ns)
	c.must(t, "expose", "deployment", "my-app", "--port=80", "-n", ns)
	c.must(t, "expose", "deployment", "mysql", "--port=3306", "-n", ns)
	if env := c.must(t, "exec", "-n", ns, before.Name, "--", "env"); strings.Contains(env, "MY_APP_SERVICE_HOST") || !strings.Contains(env, "KUBERNETES_SERVICE_HOST=10.96.0.1\n") {
		t.Errorf("the environment of a pod from before the service:\n%s", env)
	}
	c.must(t, "delete", "pod", before.Name, "-n", ns)
	var after corev1.Pod
	eventually(t, "another pod", func() error {
		for _, p := range c.pods(t, ns, "app=my-app") {
			if p.Name != before.Name && podReady(&p) {
				after = p
				return nil
			}
		}
		return fmt.Errorf("there is none")
	})
	env := c.must(t, "exec", "-n", ns, after.Name, "--", "env")
	app, sql := c.clusterIP(t, ns, "my-app"), c.clusterIP(t, ns, "mysql")
	for _, want := range []string{
		"MY_APP_SERVICE_HOST=" + app, "MY_APP_SERVICE_PORT=80", "MY_APP_PORT=tcp://" + app + ":80", "MY_APP_PORT_80_TCP_ADDR=" + app, "MY_APP_PORT_80_TCP_PROTO=tcp",
		"MYSQL_SERVICE_HOST=" + sql, "MYSQL_SERVICE_PORT=3306", "MYSQL_PORT_3306_TCP=tcp://" + sql + ":3306", "HOSTNAME=" + after.Name,
	} {
		if !strings.Contains(env, want+"\n") {
			t.Errorf("no %s in the environment of a pod from after the services:\n%s", want, env)
		}
	}
}

func walkNames(t *testing.T, c *cluster) {
	ns, other := c.namespace(t, "names"), c.namespace(t, "names-other")
	c.apply(t, other, `
apiVersion: v1
kind: Service
metadata: {name: nginx-service}
spec: {ports: [{port: 80}]}
`)
	c.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: my-app}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: shell, image: busybox, command: [sleep, "1000000"]}
`)
	c.pod(t, ns, "client", "ready", podReady)
	if got := c.must(t, "exec", "-n", ns, "client", "--", "cat", "/etc/resolv.conf"); !strings.Contains(got, "search "+ns+".svc.cluster.local svc.cluster.local cluster.local\n") ||
		!strings.Contains(got, "nameserver 10.96.0.10\n") || !strings.Contains(got, "options ndots:5\n") {
		t.Errorf("resolv.conf:\n%s", got)
	}
	here, there := c.clusterIP(t, ns, "my-app"), c.clusterIP(t, other, "nginx-service")
	for name, ip := range map[string]string{
		"my-app": here, "my-app." + ns: here, "my-app." + ns + ".svc": here,
		"nginx-service." + other: there, "nginx-service." + other + ".svc.cluster.local": there, "kubernetes.default": "10.96.0.1",
	} {
		eventually(t, "nslookup "+name, func() error {
			r := c.try(t, "exec", "-n", ns, "client", "--", "nslookup", name)
			return unless(strings.Contains(r.out, "Address: "+ip+"\n"), "want %s:\n%s%s", ip, r.out, r.err)
		})
		if got := c.must(t, "exec", "-n", ns, "client", "--", "getent", "ahostsv4", name); !strings.HasPrefix(got, ip+" ") {
			t.Errorf("getent %s, want %s:\n%s", name, ip, got)
		}
	}
	if r := c.try(t, "exec", "-n", ns, "client", "--", "nslookup", "nginx-service."+other+".svc.cluster.local.", "10.96.0.10"); r.code != 0 {
		t.Errorf("nslookup of a full name: %d %s%s", r.code, r.out, r.err)
	}
}

func walkHeadless(t *testing.T, c *cluster) {
	ns := c.namespace(t, "headless")
	c.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: sql, port: 3306}]
`)
	for _, name := range []string{"db-0", "db-1"} {
		c.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: db}}
spec:
  terminationGracePeriodSeconds: 1
  hostname: %[1]s
  subdomain: db
  containers: [{name: sql, image: mysql, ports: [{containerPort: 3306}]}]
`, name))
	}
	pods := c.ready(t, ns, "app=db", 2)
	zone := "db." + ns + ".svc.cluster.local"
	for _, m := range c.machines {
		m.resolves(t, zone, dns.TypeA, ips(pods)...)
		m.resolves(t, "db-0."+zone, dns.TypeA, pods[0].Status.PodIP)
		m.resolves(t, "_sql._tcp."+zone, dns.TypeSRV, "0 50 3306 db-0."+zone+".", "0 50 3306 db-1."+zone+".")
	}
	if got := c.must(t, "exec", "-n", ns, "db-0", "--", "hostname", "-f"); got != "db-0."+zone+"\n" {
		t.Errorf("hostname -f: %s", got)
	}
	c.must(t, "delete", "pod", "db-0", "-n", ns)
	c.server().resolves(t, zone, dns.TypeA, pods[1].Status.PodIP)
}

func walkHostnames(t *testing.T, c *cluster) {
	ns := c.namespace(t, "hostnames")
	c.must(t, "apply", "-n", ns, "-f", abs(t, "testdata/walkthrough/hostnames.yaml"))
	c.must(t, "rollout", "status", "deployment/hostnames", "-n", ns, "--timeout=180s")
	pods := c.ready(t, ns, "app=hostnames", 3)
	for _, m := range c.machines {
		m.answers(t, "http://"+c.clusterIP(t, ns, "hostnames")+"/", podNames(pods)...)
	}
	// A pod reaches the Service that it is behind, itself too.
	got := c.must(t, "exec", "-n", ns, pods[0].Name, "--", "sh", "-c", "for i in $(seq 60); do curl -s --max-time 30 http://hostnames/; done")
	for _, p := range pods {
		if !strings.Contains(got, p.Name) {
			t.Errorf("%s is never reached from %s:\n%s", p.Name, pods[0].Name, got)
		}
	}
}

func walkReadiness(t *testing.T, c *cluster) {
	ns := c.namespace(t, "readiness")
	c.apply(t, ns, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: names}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
`)
	const probe = "    readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}"
	c.apply(t, ns, webPod("one", "app: web", probe)+webPod("two", "app: web", probe))
	pods := c.ready(t, ns, "app=web", 2)
	url, zone := "http://"+c.clusterIP(t, ns, "web")+"/", "names."+ns+".svc.cluster.local"
	c.server().answers(t, url, "one", "two")
	c.server().sh(t, "curl -sf -X POST http://"+pods[0].Status.PodIP+"/fail")
	for _, m := range c.machines {
		m.answers(t, url, "two")
		m.resolves(t, zone, dns.TypeA, pods[1].Status.PodIP)
	}
	eventually(t, "endpoints", func() error {
		got := c.must(t, "get", "endpoints", "-n", ns, "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}/{.subsets[*].notReadyAddresses[*].ip}")
		return unless(got == pods[1].Status.PodIP+"/"+pods[0].Status.PodIP, "%s", got)
	})
	c.event(t, ns, "one", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
	c.server().sh(t, "curl -sf -X POST http://"+pods[0].Status.PodIP+"/heal")
	c.server().answers(t, url, "one", "two")
	c.server().resolves(t, zone, dns.TypeA, ips(pods)...)
	if p := c.pod(t, ns, "one", "ready", podReady); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod was restarted: %+v", p.Status.ContainerStatuses)
	}
}

func walkLiveness(t *testing.T, c *cluster) {
	ns := c.namespace(t, "liveness")
	c.apply(t, ns, webPod("web", "app: web", "    livenessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2}"))
	for restarts := range 2 {
		p := c.pod(t, ns, "web", fmt.Sprintf("ready after %d restarts", restarts), func(p *corev1.Pod) bool {
			return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == int32(restarts)
		})
		eventually(t, "it listens", func() error {
			code, body := c.server().fetch("http://" + p.Status.PodIP + "/healthz")
			return unless(code == 200, "%d %s", code, body)
		})
		c.server().sh(t, "curl -sf -X POST http://"+p.Status.PodIP+"/fail")
	}
	c.event(t, ns, "web", "Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 503")
	c.event(t, ns, "web", "Killing", "Container web failed liveness probe, will be restarted")
	c.pod(t, ns, "web", "in back-off", func(p *corev1.Pod) bool {
		w := p.Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})
	c.event(t, ns, "web", "BackOff", "Back-off restarting failed container web")
	c.pod(t, ns, "web", "restarted again", func(p *corev1.Pod) bool {
		return podReady(p) && p.Status.ContainerStatuses[0].RestartCount == 2
	})
}
