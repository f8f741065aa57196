package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
)

func TestNodeObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n0"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24"}}}
		other.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.9"}}
		if _, err := r.api.CoreV1().Nodes().Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		var ranges []netip.Prefix
		r.cfg.Network = func(p []netip.Prefix) (Network, error) { ranges = p; return r.net, nil }
		r.cfg.StreamPort, r.cfg.Zone = 10250, "z1"
		r.start()
		r.wait(time.Second)
		n, err := r.api.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if want := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}; !slices.Equal(ranges, want) || n.Spec.PodCIDR != "10.244.1.0/24" || n.Annotations[claimAnnotation] != "" {
			t.Errorf("ranges %v, spec %+v, annotations %v", ranges, n.Spec, n.Annotations)
		}
		if n.Labels[corev1.LabelHostname] != "n1" || n.Labels[corev1.LabelTopologyZone] != "z1" || n.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 {
			t.Errorf("%+v", n)
		}
		if q := n.Status.Allocatable[corev1.ResourcePods]; q.Value() != 250 || len(n.Status.Conditions) != 5 || len(n.Status.Addresses) != 2 {
			t.Errorf("%+v", n.Status)
		}
		want := []network.Peer{{Node: "n0", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}, Via: netip.MustParseAddr("192.0.2.9")}}
		if !slices.EqualFunc(r.net.peers, want, samePeer) {
			t.Errorf("routes %v", r.net.peers)
		}
		lease := func() time.Time {
			l, err := r.api.CoordinationV1().Leases("kube-node-lease").Get(t.Context(), "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return l.Spec.RenewTime.Time
		}
		before := lease()
		r.wait(25 * time.Second)
		if d := lease().Sub(before); d != 20*time.Second {
			t.Errorf("the lease was renewed after %s", d)
		}
		r.end()
	})
}

func TestClaimsMeet(t *testing.T) {
	taken := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("10.244.2.0/23")}
	got, err := pick([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/22"), netip.MustParsePrefix("fd00:10::/56")}, taken, "n", 0)
	if want := []string{"10.244.1.0/24", "fd00:10::/64"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	full := append(taken, netip.MustParsePrefix("10.244.1.0/24"))
	if got, err := pick([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/22")}, full, "n", 3); err == nil {
		t.Errorf("a full range gave %v", got)
	}
	// Twenty nodes at once, each sees only what was written before it looked.
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		results := make(chan string, 20)
		for i := range 20 {
			cfg := r.cfg
			cfg.NodeName, cfg.ClusterCIDRs = fmt.Sprintf("n%d", i), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/19")}
			a, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				p, err := a.node.register(context.Background())
				results <- fmt.Sprint(p, err)
			}()
		}
		seen := map[string]bool{}
		for range 20 {
			got := <-results
			if seen[got] {
				t.Errorf("%s was given twice", got)
			}
			seen[got] = true
		}
	})
}

// The agent dies, pods are deleted meanwhile, and the next one cleans up.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.create(r.pod(`{metadata: {name: web}, spec: {containers: [{name: web, image: nginx}]}}`))
		r.create(r.pod(`{metadata: {name: gone, uid: uid-gone}, spec: {containers: [{name: web, image: nginx}]}}`))
		r.create(r.pod(`{metadata: {name: late, uid: uid-late}, spec: {containers: [{name: web, image: nginx}]}}`))
		r.wait(time.Second)
		before := r.id("web")
		r.end()
		zero := int64(0)
		if err := r.api.CoreV1().Pods("default").Delete(t.Context(), "gone", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		r.rt.Exit(runtime.ContainerID{PodUID: "uid-late", Name: "web"}, 3, 0)
		stray := filepath.Join(r.cfg.Dir, "pods", "uid-stray")
		if err := os.MkdirAll(stray, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := r.net.Attach(t.Context(), "uid-stray"); err != nil {
			t.Fatal(err)
		}
		r.api.ClearActions()
		r.start()
		r.wait(3 * time.Second)
		if r.id("web") != before || !r.agent.byName("default", "web").containers[0].running() {
			t.Errorf("web was restarted:\n%s", r.rt.Dump())
		}
		if got := line(r.get("late")); got != "Running ready; web running ready x1" {
			t.Errorf("what ended meanwhile: %s", got)
		}
		if strings.Contains(r.rt.Dump(), "uid-gone") || len(r.net.pods) != 2 {
			t.Errorf("left over: %v\n%s", r.net.pods, r.rt.Dump())
		}
		for _, d := range []string{stray, filepath.Join(r.cfg.Dir, "pods", "uid-gone")} {
			if _, err := os.Stat(d); !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", d, err)
			}
		}
		for _, a := range r.api.Actions() {
			if p, ok := a.(clienttesting.PatchAction); ok && a.GetResource().Resource == "pods" && p.GetName() == "web" {
				t.Errorf("the status of web was written again: %s", p.GetPatch())
			}
		}
		r.end()
		cfg := r.cfg
		if err := Reset(t.Context(), cfg); err != nil || r.rt.Dump() != "" || r.net.pods != nil {
			t.Errorf("reset: %v, left %s %v", err, r.rt.Dump(), r.net.pods)
		}
	})
}

// With the API away a container is restarted; the status comes when it is back.
func TestAPIAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var away atomic.Bool
		r.api.PrependReactor("patch", "*", func(clienttesting.Action) (bool, kruntime.Object, error) {
			return away.Load(), nil, errors.New("no route to host")
		})
		r.start()
		r.create(r.pod(`{spec: {containers: [{name: web, image: nginx}]}}`))
		r.wait(time.Second)
		away.Store(true)
		r.rt.Exit(r.id("web"), 1, 0)
		r.wait(time.Minute)
		if id := r.id("web"); id.Attempt != 1 || line(r.get("web")) != "Running ready; web running ready" {
			t.Errorf("attempt %d, status %s", id.Attempt, line(r.get("web")))
		}
		away.Store(false)
		r.wait(6 * time.Second)
		if got := line(r.get("web")); got != "Running ready; web running ready x1" {
			t.Error(got)
		}
		r.end()
	})
}

// A running pod costs no writes, and a change of readiness costs one, at once.
func TestWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.create(r.pod(`{spec: {containers: [{name: web, image: nginx, readinessProbe: {exec: {command: [x]}, periodSeconds: 1, failureThreshold: 1}}]}}`))
		r.wait(2 * time.Second)
		patches := func() (n int) {
			for _, a := range r.api.Actions() {
				if a.GetVerb() == "patch" && a.GetResource().Resource == "pods" {
					n++
				}
			}
			r.api.ClearActions()
			return n
		}
		if n := patches(); n > 2 {
			t.Errorf("%d writes until ready", n)
		}
		r.wait(10 * time.Minute)
		if n := patches(); n != 0 {
			t.Errorf("%d writes while nothing happened", n)
		}
		r.mu.Lock()
		r.probes["web"] = 1
		r.mu.Unlock()
		r.wait(time.Second)
		if n := patches(); n != 1 || line(r.get("web")) != "Running; web running" {
			t.Errorf("%d writes, %s", n, line(r.get("web")))
		}
		r.end()
	})
}

func TestEnvAndFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.api.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, kruntime.Object, error) {
			req := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
			return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{
				Token:               fmt.Sprintf("token at %s for %s", time.Now().Format(time.TimeOnly), req.Spec.BoundObjectRef.Name),
				ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)),
			}}, nil
		})
		r.start()
		pod := r.pod(`
metadata: {name: web, labels: {app: a}}
spec:
  hostname: h
  subdomain: s
  hostAliases: [{ip: 1.2.3.4, hostnames: [alias]}]
  securityContext: {runAsUser: 7, fsGroup: 9, sysctls: [{name: net.core.somaxconn, value: "5"}]}
  containers:
  - name: web
    image: nginx
    args: ["-x", "$(IP)", "$$(IP)"]
    ports: [{containerPort: 80, hostPort: 8080}]
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    securityContext: {capabilities: {add: [CAP_NET_ADMIN], drop: [ALL]}, readOnlyRootFilesystem: true, allowPrivilegeEscalation: false}
    volumeMounts:
    - {name: token, mountPath: /var/run/token}
    - {name: data, mountPath: /data, subPath: a/b}
    - {name: data, mountPath: /etc/hosts, subPath: hosts}
    resources: {limits: {cpu: 500m, memory: 64Mi}}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: token, projected: {sources: [{serviceAccountToken: {path: token, expirationSeconds: 600}}, {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}}
`)
		r.create(pod)
		r.wait(time.Second)
		got, ok := r.rt.Config(r.id("web"))
		if !ok {
			t.Fatalf("%s\n%v", line(r.get("web")), r.events())
		}
		ip := "10.244.0.2"
		if want := []string{"/run-nginx", "-x", ip, "$(IP)"}; !slices.Equal(got.Args, want) {
			t.Errorf("args %q", got.Args)
		}
		if want := []string{defaultPath, "FROM=image", "KUBERNETES_SERVICE_HOST=10.96.0.1", "IP=" + ip, "HOSTNAME=h"}; !slices.Equal(got.Env, want) {
			t.Errorf("env %q", got.Env)
		}
		if got.User.UID != 7 || !slices.Equal(got.User.Groups, []int64{9}) || !got.Root.ReadOnly || !got.NoNewPrivs || got.AddCaps[0] != "NET_ADMIN" || got.CPUMillis != 500 || got.MemoryBytes != 64<<20 {
			t.Errorf("%+v", got)
		}
		var mounts []string
		for _, m := range got.Mounts {
			mounts = append(mounts, fmt.Sprintf("%s=%s %v", m.Target, strings.TrimPrefix(m.Source, r.cfg.Dir), m.ReadOnly))
		}
		want := []string{
			"/var/run/token=/volatile/uid-web/token true", "/data=/pods/uid-web/volumes/data/a/b false", "/etc/hosts=/pods/uid-web/volumes/data/hosts false",
			"/etc/hostname=/pods/uid-web/etc/hostname false", "/etc/resolv.conf=/pods/uid-web/etc/resolv.conf false", "/dev/termination-log=/pods/uid-web/termination/web.0 false",
		}
		if diff := cmp.Diff(want, mounts); diff != "" {
			t.Error(diff)
		}
		read := func(path string) string {
			b, err := os.ReadFile(filepath.Join(r.cfg.Dir, path))
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		if s := read("volatile/uid-web/token/token"); s != "token at 00:00:00 for web" {
			t.Error(s)
		}
		if s := read("pods/uid-web/etc/hosts"); !strings.Contains(s, ip+"\th.s.default.svc.cluster.local\th\n") || !strings.Contains(s, "1.2.3.4\talias\n") {
			t.Error(s)
		}
		if s := read("pods/uid-web/etc/resolv.conf"); !strings.Contains(s, "nameserver 10.96.0.10\noptions ndots:5") {
			t.Error(s)
		}
		if len(r.net.ports["uid-web"]) != 1 {
			t.Errorf("host ports %v", r.net.ports)
		}
		// The token is renewed, labels follow.
		r.wait(9 * time.Minute)
		if s := read("volatile/uid-web/token/token"); s == "token at 00:00:00 for web" {
			t.Error("the token was not renewed")
		}
		if addr, err := r.agent.PodIP("default", "web"); err != nil || addr.String() != ip {
			t.Error(addr, err)
		}
		// Another pod with the host port is refused.
		r.create(r.pod(`{metadata: {name: two, uid: uid-two}, spec: {containers: [{name: a, image: b, ports: [{containerPort: 1, hostPort: 8080, hostIP: 192.0.2.10}]}]}}`))
		r.wait(time.Second)
		if got := line(r.get("two")); got != "Failed NodePorts" {
			t.Error(got)
		}
		r.end()
	})
}

func TestVolumeErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		r.create(r.pod(`
spec:
  containers: [{name: web, image: nginx, volumeMounts: [{name: disk, mountPath: /disk}]}]
  volumes: [{name: disk, persistentVolumeClaim: {claimName: x}}]
`))
		r.wait(5 * time.Second)
		if got := line(r.get("web")); got != "Pending; web ContainerCreating" {
			t.Error(got)
		}
		if !slices.ContainsFunc(r.events(), func(s string) bool {
			return strings.Contains(s, `FailedMount  MountVolume.SetUp failed for volume "disk"`)
		}) {
			t.Error(r.events())
		}
		r.net.err = network.ErrExhausted
		r.create(r.pod(`{metadata: {name: two, uid: uid-two}, spec: {containers: [{name: a, image: b}]}}`))
		r.wait(5 * time.Second)
		if got := line(r.get("two")); got != "Pending; a ContainerCreating" || !strings.Contains(strings.Join(r.events(), "\n"), "FailedCreatePodSandBox  Failed to create pod sandbox: no free pod address") {
			t.Error(got, r.events())
		}
		r.delete("web", 30)
		r.delete("two", 30)
		r.wait(time.Second)
		if r.get("web") != nil || r.get("two") != nil || r.agent.Len() != 0 {
			t.Errorf("%s, %s, %d", line(r.get("web")), line(r.get("two")), r.agent.Len())
		}
		r.end()
	})
}

// One pod makes a part of the node panic; the others do not notice.
func TestPanicIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Env = func(ns string) ([]string, error) {
			if ns == "" {
				panic("another bug")
			}
			return nil, nil
		}
		r.start()
		r.create(r.pod(`{metadata: {name: worse, uid: uid-worse}, spec: {enableServiceLinks: false, containers: [{name: a, image: b}]}}`))
		r.create(r.pod(`{metadata: {name: web}, spec: {containers: [{name: web, image: nginx}]}}`))
		r.wait(time.Second)
		if got := line(r.get("web")); got != "Running ready; web running ready" {
			t.Error(got)
		}
		r.end()
	})
}
