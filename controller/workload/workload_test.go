package workload

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/store"
)

type rig struct {
	t    testing.TB
	kube kubernetes.Interface
	work *Controllers
}

// serve runs a real API server and the controllers of workloads.
func serve(t testing.TB) *rig {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	pki, err := apiserver.LoadPKI(filepath.Join(dir, "pki"), []string{"localhost"}, []netip.Addr{lo}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(apiserver.Config{
		Listener: l, Store: st, PKI: pki, NodeName: "here", Log: slog.New(slog.DiscardHandler),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/20")}, NodePorts: [2]int{30000, 32767}, Advertise: lo,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	wctx, wcancel := context.WithCancel(ctx)
	sink := record.NewBroadcaster(record.WithContext(wctx))
	sink.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: s.Client.CoreV1().Events("")})
	work, err := New(Config{Rest: s.Rest, Client: s.Client, Events: func(c string) record.EventRecorder {
		return sink.NewRecorder(scheme.Scheme, corev1.EventSource{Component: c})
	}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := work.Run(wctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		wcancel()
		wg.Wait()
		sink.Shutdown()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	r := &rig{t, s.Client, work}
	_, err = r.kube.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	r.must(err)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) node(name string) {
	n, err := r.kube.CoreV1().Nodes().Create(r.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}}}, metav1.CreateOptions{})
	r.must(err)
	n.Status.Allocatable = corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("110")}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	_, err = r.kube.CoreV1().Nodes().UpdateStatus(r.t.Context(), n, metav1.UpdateOptions{})
	r.must(err)
}

// until waits for pods of an app: how many on each node, sorted as in "a:2 b:2".
func (r *rig) until(app, want string) {
	r.t.Helper()
	got := ""
	if err := wait.PollUntilContextTimeout(r.t.Context(), 5*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := r.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return false, err
		}
		count := map[string]int{}
		for i := range list.Items {
			count[list.Items[i].Spec.NodeName]++
		}
		var parts []string
		for _, n := range []string{"", "a", "b"} {
			if count[n] > 0 {
				parts = append(parts, fmt.Sprintf("%s:%d", n, count[n]))
			}
		}
		got = strings.Join(parts, " ")
		return got == want, nil
	}); err != nil {
		r.t.Fatalf("pods of %s are %q, want %q", app, got, want)
	}
}

func template(app string, policy corev1.RestartPolicy) (metav1.LabelSelector, corev1.PodTemplateSpec) {
	l := map[string]string{"app": app}
	return metav1.LabelSelector{MatchLabels: l}, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{RestartPolicy: policy, Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
}

func TestWorkloads(t *testing.T) {
	r := serve(t)
	ctx := t.Context()
	r.node("a")
	r.node("b")
	select {
	case <-r.work.Started():
		t.Fatal("the controllers run, and there is no workload")
	default:
	}
	four, two, one := int32(4), int32(2), int32(1)
	sel, tmpl := template("web", corev1.RestartPolicyAlways)
	_, err := r.kube.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Replicas: &four, Selector: &sel, Template: tmpl}}, metav1.CreateOptions{})
	r.must(err)
	r.until("web", "a:2 b:2")
	<-r.work.Started()

	sel, tmpl = template("agent", corev1.RestartPolicyAlways)
	_, err = r.kube.AppsV1().DaemonSets("default").Create(ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "agent"}, Spec: appsv1.DaemonSetSpec{Selector: &sel, Template: tmpl}}, metav1.CreateOptions{})
	r.must(err)
	sel, tmpl = template("db", corev1.RestartPolicyAlways)
	_, err = r.kube.AppsV1().StatefulSets("default").Create(ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{Replicas: &two, ServiceName: "db", PodManagementPolicy: appsv1.ParallelPodManagement, Selector: &sel, Template: tmpl}}, metav1.CreateOptions{})
	r.must(err)
	_, tmpl = template("old", corev1.RestartPolicyAlways)
	_, err = r.kube.CoreV1().ReplicationControllers("default").Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "old"}, Spec: corev1.ReplicationControllerSpec{Replicas: &two, Template: &tmpl}}, metav1.CreateOptions{})
	r.must(err)
	_, tmpl = template("once", corev1.RestartPolicyNever)
	_, err = r.kube.BatchV1().Jobs("default").Create(ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "once"}, Spec: batchv1.JobSpec{Completions: &one, Template: tmpl}}, metav1.CreateOptions{})
	r.must(err)
	r.until("agent", "a:1 b:1")
	r.until("db", "a:1 b:1")
	r.until("old", "a:1 b:1")
	p, err := r.kube.CoreV1().Pods("default").Get(ctx, "db-0", metav1.GetOptions{})
	if err != nil || p.Spec.Hostname != "db-0" || p.Spec.Subdomain != "db" {
		t.Errorf("a pod of a StatefulSet: %+v, %v", p.Spec.Hostname, err)
	}

	// The job's pod ends, and so does the job.
	if err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := r.kube.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=once"})
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			p := &list.Items[i]
			if p.Spec.NodeName != "" && p.Status.Phase == corev1.PodPending {
				p.Status.Phase = corev1.PodSucceeded
				if _, err := r.kube.CoreV1().Pods("default").UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
					continue
				}
			}
		}
		j, err := r.kube.BatchV1().Jobs("default").Get(ctx, "once", metav1.GetOptions{})
		return err == nil && j.Status.Succeeded == 1, err
	}); err != nil {
		t.Errorf("the job does not end: %v", err)
	}
}

func TestUnschedulable(t *testing.T) {
	r := serve(t)
	ctx := t.Context()
	r.node("a")
	_, tmpl := template("big", corev1.RestartPolicyAlways)
	tmpl.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"memory": resource.MustParse("3Gi")}
	for i := range 2 {
		_, err := r.kube.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("big-", i), Labels: tmpl.Labels}, Spec: tmpl.Spec}, metav1.CreateOptions{})
		r.must(err)
		r.until("big", []string{"a:1", ":1 a:1"}[i])
	}
	var got corev1.PodCondition
	if err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		p, err := r.kube.CoreV1().Pods("default").Get(ctx, "big-1", metav1.GetOptions{})
		if err != nil || len(p.Status.Conditions) == 0 {
			return false, err
		}
		got = p.Status.Conditions[0]
		return true, nil
	}); err != nil {
		t.Fatal("no condition", err)
	}
	const why = "0/1 nodes are available: 1 Insufficient memory."
	if got.Type != corev1.PodScheduled || got.Reason != corev1.PodReasonUnschedulable || got.Message != why {
		t.Errorf("%+v", got)
	}
	if err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (bool, error) {
		list, err := r.kube.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedScheduling"})
		return err == nil && len(list.Items) == 1 && list.Items[0].Message == why && list.Items[0].InvolvedObject.Name == "big-1", err
	}); err != nil {
		t.Error("no Event", err)
	}
	// Room is made by a pod that goes, and by a node that comes.
	var now int64
	r.must(r.kube.CoreV1().Pods("default").Delete(ctx, "big-0", metav1.DeleteOptions{GracePeriodSeconds: &now}))
	r.until("big", "a:1")
	_, err := r.kube.CoreV1().Pods("default").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "big-2", Labels: tmpl.Labels}, Spec: tmpl.Spec}, metav1.CreateOptions{})
	r.must(err)
	r.until("big", ":1 a:1")
	r.node("b")
	r.until("big", "a:1 b:1")
}

// BenchmarkScheduled is the time from asking for a pod to reading its node from
// a watch.
func BenchmarkScheduled(b *testing.B) {
	r := serve(b)
	r.node("a")
	r.node("b")
	ctx := b.Context()
	_, tmpl := template("x", corev1.RestartPolicyAlways)
	pods := r.kube.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{})
	r.must(err)
	defer w.Stop()
	run := func(name string) {
		_, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: tmpl.Spec}, metav1.CreateOptions{})
		r.must(err)
		for e := range w.ResultChan() {
			if p, ok := e.Object.(*corev1.Pod); ok && p.Name == name && p.Spec.NodeName != "" {
				break
			}
		}
		var now int64
		r.must(pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	}
	run("first") // starts the controllers
	for i := 0; b.Loop(); i++ {
		run(fmt.Sprint("p-", i))
	}
}
