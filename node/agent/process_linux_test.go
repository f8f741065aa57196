package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process"
)

// local maps every image to a program of this machine.
type local struct{ program string }

func (l local) Resolve(context.Context, string, corev1.PullPolicy, [][]byte) (Image, error) {
	return Image{ID: "local:" + l.program, Entrypoint: []string{l.program}}, nil
}

var _ Network = (*network.Network)(nil)

// real is an agent with real containers on the machine's own network.
type real struct {
	*testing.T
	api   *fake.Clientset
	rt    *process.Runtime
	cfg   Config
	agent *Agent
	end   func()
}

func newReal(t *testing.T) *real {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	box, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is not installed (Debian: apt-get install busybox-static)")
	}
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := process.New(process.Config{Dir: filepath.Join(dir, "run"), Log: log, CgroupRoot: fmt.Sprintf("/agent-test-%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	r := &real{T: t, api: fake.NewSimpleClientset(), rt: rt}
	r.cfg = Config{
		NodeName: "n1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Client: r.api, Runtime: rt, Images: local{box},
		Dir: filepath.Join(dir, "agent"), Log: log,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rt.Run(ctx) }()
	r.start()
	t.Cleanup(func() {
		r.end()
		if err := Reset(context.Background(), r.cfg); err != nil {
			t.Errorf("reset: %v", err)
		}
		_ = rt.Quit(context.Background())
		cancel()
		<-done
		rt.Close()
		mounts, _ := os.ReadFile("/proc/self/mountinfo")
		if strings.Contains(string(mounts), dir) {
			t.Errorf("mounts are left in %s:\n%s", dir, mounts)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *real) start() {
	r.Helper()
	a, err := New(r.cfg)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-a.Ready()
	r.agent = a
	r.end = func() { cancel(); <-done }
}

func (r *real) create(text string) {
	r.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		r.Fatal(err)
	}
	p.Namespace, p.Spec.NodeName, p.UID = "default", "n1", "uid-"+p.UID
	if _, err := r.api.CoreV1().Pods("default").Create(r.Context(), p, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
}

// until waits for a status.
func (r *real) until(name string, what func(*corev1.Pod) bool) time.Duration {
	r.Helper()
	begin := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		p, err := r.api.CoreV1().Pods("default").Get(r.Context(), name, metav1.GetOptions{})
		if err != nil {
			p = nil
		}
		if what(p) {
			return time.Since(begin)
		}
		if time.Since(begin) > 60*time.Second {
			r.Fatalf("still %s", line(p))
		}
		<-tick.C
	}
}

func ready(p *corev1.Pod) bool { return p != nil && isReady(&p.Status) }

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestProcess(t *testing.T) {
	r := newReal(t)
	port := freePort(t)
	if _, err := r.api.CoreV1().ConfigMaps("default").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pages"}, Data: map[string]string{"index.html": "hello"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.create(fmt.Sprintf(`
metadata: {name: web, uid: web}
spec:
  terminationGracePeriodSeconds: 2
  restartPolicy: Always
  containers:
  - name: web
    image: busybox
    args: [httpd, -f, -v, -p, "127.0.0.1:%d", -h, /pages]
    readinessProbe: {httpGet: {port: %d, path: /index.html}, periodSeconds: 1}
    volumeMounts: [{name: pages, mountPath: /pages}, {name: memory, mountPath: /memory}]
  volumes: [{name: pages, configMap: {name: pages}}, {name: memory, emptyDir: {medium: Memory}}]
`, port, port))
	t.Logf("ready after %s", r.until("web", ready))

	id, err := r.agent.Container("default", "web", "web")
	if err != nil {
		t.Fatal(err)
	}
	code, out, err := r.agent.execIn(t.Context(), id, []string{r.cfg.Images.(local).program, "sh", "-c", "cat /pages/index.html; echo $HOSTNAME; echo end > /dev/termination-log"})
	if err != nil || code != 0 || !strings.HasPrefix(out, "hello") {
		t.Errorf("exec: %d %q %v", code, out, err)
	}

	// Taken over without a restart.
	pid := r.pid("web")
	r.end()
	r.start()
	if now := r.pid("web"); now != pid {
		t.Errorf("pid %d became %d", pid, now)
	}
	r.until("web", ready)

	// Killed: not ready at once, then started again.
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.until("web", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return ready(p) && s[0].RestartCount == 1 && s[0].LastTerminationState.Terminated.Message == "end\n" && s[0].LastTerminationState.Terminated.ExitCode == 137
	})

	r.create(`
metadata: {name: job, uid: job}
spec: {restartPolicy: Never, containers: [{name: work, image: busybox, args: [sh, -c, "echo done; exit 3"], terminationMessagePolicy: FallbackToLogsOnError}]}
`)
	r.until("job", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.ContainerStatuses[0].State.Terminated.Message == "done\n"
	})
	r.until("job", func(*corev1.Pod) bool { return !r.has("uid-job") }) // nothing of it is kept
	path, err := r.agent.LogPath("default", "job", "work", false)
	if text, _ := os.ReadFile(path); err != nil || !strings.Contains(string(text), " stdout F done\n") {
		t.Errorf("log %q %v", text, err)
	}

	for i := range 5 {
		r.create(fmt.Sprintf("{metadata: {name: q%d, uid: q%d}, spec: {restartPolicy: Always, containers: [{name: c, image: busybox, args: [sleep, '1000']}]}}", i, i))
		t.Logf("without a probe ready after %s", r.until(fmt.Sprintf("q%d", i), ready))
	}
	for _, name := range []string{"web", "job", "q0", "q1"} {
		p, _ := r.api.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
		now, grace := metav1.Now(), int64(1)
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
		if _, err := r.api.CoreV1().Pods("default").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.until(name, func(p *corev1.Pod) bool {
			return p == nil && !r.has("uid-"+name) && r.agent.byName("default", name) == nil
		})
		if _, err := os.Stat(r.cfg.podDir("uid-" + name)); !os.IsNotExist(err) {
			t.Errorf("files of %s are left: %v", name, err)
		}
	}
}

func (r *real) list() []runtime.Pod {
	r.Helper()
	list, err := r.rt.List(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return list
}

func (r *real) has(uid string) bool {
	for _, p := range r.list() {
		if p.Config.UID == uid {
			return true
		}
	}
	return false
}

func (r *real) pid(name string) int {
	for _, p := range r.list() {
		for _, c := range p.Containers {
			if p.Config.Name == name && c.Running() {
				return c.PID
			}
		}
	}
	r.Fatalf("%s does not run", name)
	return 0
}
