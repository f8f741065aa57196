package agent

import (
	"fmt"
	"os"
	"testing"
	"time"
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

func TestTmpAPI(t *testing.T) {
	rc, err := clientcmd.BuildConfigFromFlags("", "/tmp/n3dev/admin.kubeconfig")
	if err != nil { t.Fatal(err) }
	rc.QPS = -1
	rc.ContentType = "application/vnd.kubernetes.protobuf"
	c := kubernetes.NewForConfigOrDie(rc)
	r := newReal(t)
	r.end()
	r.cfg.Client = c
	r.start()
	ctx := context.Background()
	until := func(name string, what func(*corev1.Pod) bool) time.Duration {
		b := time.Now()
		for {
			p, err := c.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
			if err != nil { p = nil }
			if what(p) { return time.Since(b) }
			if time.Since(b) > 10*time.Second {
				y, _ := yaml.Marshal(p.Status)
				ev, _ := c.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
				for _, e := range ev.Items { fmt.Println(e.Reason, e.Message, e.Count) }
				t.Fatalf("%s\n%s", line(p), y)
			}
			time.Sleep(2*time.Millisecond)
		}
	}
	mk := func(name, spec string) {
		p := &corev1.Pod{}
		if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil { t.Fatal(err) }
		p.Name = name
		p.Spec.NodeName = "n1"
		if _, err := c.CoreV1().Pods("default").Create(ctx, p, metav1.CreateOptions{}); err != nil { t.Fatal(err) }
	}
	n, err := c.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
	if err != nil { t.Fatal(err) }
	y, _ := yaml.Marshal(n.Status)
	fmt.Println(string(y))
	for i := range 4 {
		name := fmt.Sprintf("a%d", i)
		mk(name, "{terminationGracePeriodSeconds: 1, containers: [{name: c, image: busybox, args: [sleep, '1000']}]}")
		fmt.Println("ready after", until(name, ready))
	}
	mk("job", "{restartPolicy: Never, containers: [{name: c, image: busybox, args: [sh, -c, 'ls /var/run/secrets/kubernetes.io/serviceaccount; exit 3']}]}")
	fmt.Println("failed after", until("job", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed }))
	time.Sleep(300*time.Millisecond)
	path, err := r.agent.LogPath("default", "job", "c", false)
	b, _ := os.ReadFile(path)
	fmt.Println(path, err, string(b))
	mk("crash", "{containers: [{name: c, image: busybox, args: [sh, -c, 'exit 3']}]}")
	until("crash", func(p *corev1.Pod) bool { s := p.Status.ContainerStatuses; return len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff" })
	mk("noimg", "{containers: [{name: c, image: busybox, args: [nonono]}], volumes: [{name: x, configMap: {name: gone}}]}")
	time.Sleep(700*time.Millisecond)
	for _, name := range []string{"a0", "a1", "job", "crash", "noimg"} {
		if err := c.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{}); err != nil { t.Error(err) }
		fmt.Println("gone after", name, until(name, func(p *corev1.Pod) bool { return p == nil }))
	}
	p, _ := c.CoreV1().Pods("default").Get(ctx, "a2", metav1.GetOptions{})
	y, _ = yaml.Marshal(p.Status)
	fmt.Println(string(y))
	ev, _ := c.CoreV1().Events("default").List(ctx, metav1.ListOptions{})
	for _, e := range ev.Items { fmt.Println(e.InvolvedObject.Name, e.Type, e.Reason, e.Message, e.Count) }
	if err := c.CoreV1().Pods("default").DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil { t.Error(err) }
	until("a2", func(p *corev1.Pod) bool { return p == nil })
}
