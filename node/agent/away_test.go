package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/fingerpost/fingerpost/node/runtime/runtimetest"
)

// away makes an API that can be away.
func (r *rig) away() *atomic.Bool {
	away := &atomic.Bool{}
	refused := errors.New("connection refused")
	r.api.PrependReactor("*", "*", func(clienttesting.Action) (bool, kruntime.Object, error) { return away.Load(), nil, refused })
	r.api.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) { return away.Load(), nil, refused })
	return away
}

// seen gives a pod as the agent sees it.
func (r *rig) seen(name string) *corev1.Pod {
	for _, p := range r.agent.Pods() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// TestAway: an agent that is started while the API is away goes on with the
// pods of the one before it, again and again, and does what was missed when it
// is back.
func TestAway(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Dir = dir
		away := r.away()
		for _, o := range []kruntime.Object{
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "settings"}, Data: map[string]string{"a": "b"}},
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hidden"}, Data: map[string][]byte{"k": []byte("v")}},
		} {
			if err := r.api.Tracker().Add(o); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		r.create(r.pod(`
spec:
  volumes: [{name: v, projected: {sources: [{configMap: {name: settings}}, {secret: {name: hidden}}]}}]
  containers:
  - {name: c, image: i, envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: hidden}}], volumeMounts: [{name: v, mountPath: /v}],
     readinessProbe: {periodSeconds: 1, failureThreshold: 1, exec: {command: [x]}}}
`))
		for _, name := range []string{"gone", "going"} {
			r.create(r.pod("metadata: {name: " + name + ", uid: uid-" + name + "}\nspec: {containers: [{name: " + name + ", image: i}]}"))
		}
		r.wait(5 * time.Second)
		addr := r.get("web").Status.PodIP
		if got := line(r.get("web")); got != "Running ready; c running ready" || addr == "" {
			t.Fatalf("at first: %s, address %q", got, addr)
		}
		r.end()

		// One agent after the other finds the API away.
		away.Store(true)
		for i := range 3 {
			r.start()
			r.wait(4 * time.Second)
			select {
			case <-r.agent.Ready():
			default:
				t.Fatal("not ready without the API")
			}
			if got, want := line(r.seen("web")), "Running ready; c running ready"+strings.Repeat(" x"+string(rune('0'+i)), min(i, 1)); got != want {
				t.Fatalf("taken over: %s, want %s", got, want)
			}
			if got := r.seen("web").Status.PodIP; got != addr {
				t.Fatalf("the address is %s, and was %s", got, addr)
			}
			r.set("c", 1)
			r.wait(2 * time.Second)
			if got := line(r.seen("web")); !strings.HasPrefix(got, "Running; c running") {
				t.Fatalf("not ready: %s", got)
			}
			r.set("c", 0)
			r.rt.Exit(r.id("c"), 3, 0)
			r.wait(time.Minute) // back-off
			if got := r.id("c").Attempt; got != i+1 {
				t.Fatalf("run %d, want %d: %s", got, i+1, line(r.seen("web")))
			}
			cfg, _ := r.rt.Config(r.id("c"))
			for _, want := range []string{"a=b", "k=v"} {
				if !slices.Contains(cfg.Env, want) {
					t.Errorf("run %d has no %s: %v", i+1, want, cfg.Env)
				}
			}
			if i < 2 {
				r.end()
			}
		}

		// Meanwhile one pod is deleted, one is to go, and one is new.
		pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
		if err := r.api.Tracker().Delete(pods, "default", "gone"); err != nil {
			t.Fatal(err)
		}
		obj, err := r.api.Tracker().Get(pods, "default", "going")
		if err != nil {
			t.Fatal(err)
		}
		going, grace := obj.(*corev1.Pod).DeepCopy(), int64(1)
		going.DeletionTimestamp, going.DeletionGracePeriodSeconds = &metav1.Time{Time: time.Now()}, &grace
		fresh := r.pod("metadata: {name: fresh, uid: uid-fresh}\nspec: {containers: [{name: fresh, image: i}]}")
		if err := errors.Join(r.api.Tracker().Update(pods, going, "default"), r.api.Tracker().Add(fresh)); err != nil {
			t.Fatal(err)
		}
		away.Store(false)
		r.wait(time.Minute)
		for name, want := range map[string]string{
			"web": "Running ready; c running ready x3", "gone": "gone", "going": "gone", "fresh": "Running ready; fresh running ready",
		} {
			if got := line(r.get(name)); got != want {
				t.Errorf("%s with the API back: %s, want %s", name, got, want)
			}
		}
		for _, uid := range []string{"uid-gone", "uid-going"} {
			if _, err := os.Stat(filepath.Join(dir, "pods", uid)); !os.IsNotExist(err) {
				t.Errorf("of %s is left: %v", uid, err)
			}
		}
		if list, _ := r.rt.List(t.Context()); len(list) != 2 {
			t.Errorf("the runtime has %d pods", len(list))
		}
		node, err := r.api.CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
		if err != nil || node.Spec.PodCIDR == "" {
			t.Errorf("the node: %v %v", node, err)
		}
		r.end()
	})
}

// set makes commands in a container end with a code.
func (r *rig) set(container string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probes[container] = code
}

// TestAwayHalf: an API that knows the node and does not list its pods is away,
// too.
func TestAwayHalf(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Dir = dir
		half := &atomic.Bool{}
		r.api.PrependReactor("list", "pods", func(clienttesting.Action) (bool, kruntime.Object, error) {
			return half.Load(), nil, errors.New("too busy")
		})
		r.start()
		r.create(r.pod("spec: {containers: [{name: c, image: i}]}"))
		r.wait(5 * time.Second)
		r.end()
		half.Store(true)
		r.start()
		r.wait(4 * time.Second)
		if got := line(r.seen("web")); got != "Running ready; c running ready" {
			t.Errorf("with half of an API: %s", got)
		}
		half.Store(false)
		r.wait(2 * time.Minute)
		if got := line(r.get("web")); got != "Running ready; c running ready" {
			t.Errorf("after that: %s", got)
		}
		r.end()
	})
}

// TestAwayKeptBad: files that are damaged, or another node's, are nobody's.
func TestAwayKeptBad(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Dir = dir
		away := r.away()
		r.start()
		r.create(r.pod("spec: {containers: [{name: c, image: i}]}"))
		r.wait(5 * time.Second)
		r.end()
		for uid, text := range map[string]string{"broken": "{", "empty": "", "other": `{"metadata":{"uid":"another"},"spec":{"nodeName":"n1"}}`, "far": `{"metadata":{"uid":"far"},"spec":{"nodeName":"n2"}}`} {
			if err := errors.Join(os.MkdirAll(filepath.Join(dir, "pods", uid), 0o755), os.WriteFile(r.cfg.keptPod(uid), []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		away.Store(true)
		r.start()
		r.wait(4 * time.Second)
		if got := r.agent.Pods(); len(got) != 1 || line(got[0]) != "Running ready; c running ready" {
			t.Errorf("%d pods: %v", len(got), got)
		}
		r.end()
		if err := os.WriteFile(r.cfg.keptNode(), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.wait(time.Minute)
		if n := r.agent.Len(); n != 0 {
			t.Errorf("%d pods without a node", n)
		}
		away.Store(false)
		r.wait(time.Minute)
		if got := line(r.get("web")); got != "Running ready; c running ready" {
			t.Errorf("with the API back: %s", got)
		}
		for _, uid := range []string{"broken", "empty", "other", "far"} {
			if _, err := os.Stat(filepath.Join(dir, "pods", uid)); !os.IsNotExist(err) {
				t.Errorf("of %s is left: %v", uid, err)
			}
		}
		r.end()
	})
}

// TestAwayAfterReboot: the machine is started anew while the API is away: what
// needs no secret runs again.
func TestAwayAfterReboot(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Dir = dir
		away := r.away()
		r.start()
		r.create(r.pod("spec: {containers: [{name: c, image: i}]}"))
		r.wait(5 * time.Second)
		r.end()
		r.rt = runtimetest.NewFake()
		r.cfg.Runtime = r.rt
		r.net.pods = map[string]netip.Addr{}
		away.Store(true)
		r.start()
		r.wait(time.Minute)
		if got := line(r.seen("web")); got != "Running ready; c running ready x1" {
			t.Errorf("without the API: %s", got)
		}
		addr := r.seen("web").Status.PodIP
		away.Store(false)
		r.wait(time.Minute)
		if got := r.get("web"); line(got) != "Running ready; c running ready x1" || got.Status.PodIP != addr {
			t.Errorf("with the API back: %s at %s, and it has %s", line(got), got.Status.PodIP, addr)
		}
		r.end()
	})
}
