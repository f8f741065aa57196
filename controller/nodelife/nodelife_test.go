package nodelife

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/controller/internal/fakeapi"
)

type rig struct {
	t    *testing.T
	ctx  context.Context
	kube kubernetes.Interface
}

func newRig(t *testing.T) *rig {
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{t, ctx, kubernetes.NewForConfigOrDie(fakeapi.New().Config())}
	f := informers.NewSharedInformerFactory(r.kube, 0)
	k, err := New(Config{Client: r.kube, Informers: f})
	if err != nil {
		t.Fatal(err)
	}
	f.StartWithContext(ctx)
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.Shutdown()
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) node(name string) {
	_, err := r.kube.CoreV1().Nodes().Create(r.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}, metav1.CreateOptions{})
	r.must(err)
}

// beat renews a Lease every ten seconds for a while.
func (r *rig) beat(name string, d time.Duration) {
	api := r.kube.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
		now := metav1.NewMicroTime(time.Now().Add(-time.Hour)) // the node's clock is wrong
		l, err := api.Get(r.ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			_, err = api.Create(r.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}, metav1.CreateOptions{})
			r.must(err)
			continue
		}
		r.must(err)
		l.Spec.RenewTime = &now
		_, err = api.Update(r.ctx, l, metav1.UpdateOptions{})
		r.must(err)
	}
	synctest.Wait()
}

func (r *rig) pod(name, node string, tolerations ...corev1.Toleration) {
	_, err := r.kube.CoreV1().Pods("ns").Create(r.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: node, Tolerations: tolerations},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}, metav1.CreateOptions{})
	r.must(err)
}

func (r *rig) state(name string) string {
	p, err := r.kube.CoreV1().Pods("ns").Get(r.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	r.must(err)
	if isReady(p) {
		return "ready"
	}
	return "unready"
}

func (r *rig) expect(want ...string) {
	r.t.Helper()
	for i := 0; i < len(want); i += 2 {
		if got := r.state(want[i]); got != want[i+1] {
			r.t.Errorf("pod %s is %s, want %s", want[i], got, want[i+1])
		}
	}
}

func TestSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.node("a")
		r.node("foreign") // never has a Lease
		r.pod("p", "a")
		r.pod("d", "a", corev1.Toleration{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
		r.pod("f", "foreign")
		r.beat("a", 2*time.Minute)
		r.expect("p", "ready", "d", "ready", "f", "ready")

		time.Sleep(25 * time.Second) // 35 since the last beat
		synctest.Wait()
		r.expect("p", "ready")
		time.Sleep(12 * time.Second)
		synctest.Wait()
		r.expect("p", "unready", "d", "unready", "f", "ready")
		n, err := r.kube.CoreV1().Nodes().Get(r.ctx, "a", metav1.GetOptions{})
		r.must(err)
		if !tainted(n) || len(n.Spec.Taints) != 2 || n.Status.Conditions[0].Status != corev1.ConditionUnknown {
			t.Errorf("%+v %+v", n.Spec.Taints, n.Status.Conditions)
		}

		// It is back: the taints go, and readiness is its agent's word.
		r.beat("a", 30*time.Second)
		n, err = r.kube.CoreV1().Nodes().Get(r.ctx, "a", metav1.GetOptions{})
		r.must(err)
		if tainted(n) {
			t.Error("still tainted")
		}
		r.expect("p", "unready")

		time.Sleep(6 * time.Minute)
		synctest.Wait()
		r.expect("p", "gone", "d", "unready", "f", "ready")
	})
}

// After a restart of the server, a node that was silent before stays so until it
// is heard of.
func TestSilentAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.node("a")
		n, err := r.kube.CoreV1().Nodes().Get(r.ctx, "a", metav1.GetOptions{})
		r.must(err)
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule}}
		_, err = r.kube.CoreV1().Nodes().Update(r.ctx, n, metav1.UpdateOptions{})
		r.must(err)
		old := metav1.NewMicroTime(time.Now().Add(-time.Hour))
		_, err = r.kube.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(r.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: coordinationv1.LeaseSpec{RenewTime: &old}}, metav1.CreateOptions{})
		r.must(err)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if n, err = r.kube.CoreV1().Nodes().Get(r.ctx, "a", metav1.GetOptions{}); err != nil || !tainted(n) {
			t.Error("untainted without a sign of life", err)
		}
		r.beat("a", 20*time.Second)
		if n, err = r.kube.CoreV1().Nodes().Get(r.ctx, "a", metav1.GetOptions{}); err != nil || tainted(n) {
			t.Error("it is alive, and tainted", err)
		}
	})
}

func TestNodeDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.node("a")
		r.pod("p", "a")
		r.pod("other", "never-there")
		synctest.Wait()
		r.must(r.kube.CoreV1().Nodes().Delete(r.ctx, "a", metav1.DeleteOptions{}))
		time.Sleep(time.Second)
		synctest.Wait()
		r.expect("p", "gone", "other", "ready")
	})
}
