//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is machines that run pods. The first has the server as well.
type cluster struct {
	machines []*machine
	children []*child // dev, and node of the others
	bare     []string // what each machine had before it had pods
	dir      string
	bin      string
	env      []string
	client   kubernetes.Interface
	next     atomic.Int64
	gone     sync.Once
}

// clusters are those that most tests share, each in namespaces of its own: the
// first has one node, the second has two.
type clusters struct {
	once [3]sync.Once
	all  [3]*cluster
	err  [3]error
}

var podClusters clusters

// shared gives the cluster with so many nodes.
func (s *clusters) shared(t testing.TB, nodes int) *cluster {
	t.Helper()
	needMachines(t)
	bin := tools.bin(t)
	s.once[nodes].Do(func() { s.all[nodes], s.err[nodes] = newCluster(bin, environ(t, tools.dir), nodes) })
	if s.err[nodes] != nil {
		t.Fatal(s.err[nodes])
	}
	return s.all[nodes]
}

func (s *clusters) stop() {
	var wg sync.WaitGroup
	for _, c := range s.all {
		if c != nil {
			wg.Go(c.stop)
		}
	}
	wg.Wait()
}

func needMachines(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("pods, and the machines that these tests make for them, need root")
	}
	for _, p := range []string{"unshare", "ip", "busybox", "curl", "nslookup"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (hack/deps.sh installs it)", p)
		}
	}
}

// newPods is a cluster of the test's own.
func newPods(t testing.TB, nodes int, flags ...string) *cluster {
	t.Helper()
	needMachines(t)
	c, err := newCluster(tools.bin(t), environ(t, tools.dir), nodes, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			for _, p := range c.children {
				t.Logf("log of %s:\n%s", p.name, tail(p.text(), 60))
			}
		}
	})
	return c
}

const serverURL = "https://192.168.99.1:6443"

func newCluster(bin string, env []string, nodes int, flags ...string) (_ *cluster, err error) {
	c := &cluster{bin: bin, env: env}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp(tools.dir, "cluster-"); err != nil {
		return nil, err
	}
	for i := range nodes {
		m, err := boot(bin, fmt.Sprintf("node-%d", i+1), fmt.Sprintf("192.168.99.%d", i+1))
		if err != nil {
			return nil, err
		}
		c.machines = append(c.machines, m)
	}
	if err := c.cable(); err != nil {
		return nil, err
	}
	for i, m := range c.machines {
		before, err := m.settled()
		if err != nil {
			return nil, err
		}
		c.bare = append(c.bare, before)
		if err := c.command(i, env, filepath.Join(bin, "fingerpost"), "image", "map", "e2e/web", filepath.Join(bin, "web"), "--data-dir", c.data(i)); err != nil {
			return nil, err
		}
	}
	if _, err := c.serve(bin, env, flags...); err != nil {
		return nil, err
	}
	cfg, err := c.rest()
	if err != nil {
		return nil, err
	}
	if c.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, err
	}
	for _, m := range c.machines[1:] {
		if err := c.join(bin, env, m); err != nil {
			return nil, err
		}
	}
	return c, poll(func() error {
		list, err := c.client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for i := range list.Items {
			if nodeReady(&list.Items[i]) {
				ready++
			}
		}
		return unless(ready == nodes, "%d of %d nodes are ready\n%s", ready, nodes, tail(c.children[0].text(), 30))
	})
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}) && len(n.Spec.Taints) == 0
}

// cable connects the machines; one that is alone has its cable in nothing.
func (c *cluster) cable() error {
	first := fmt.Sprint(c.machines[0].first)
	peer := []string{"name", "nowhere", "netns", first}
	if len(c.machines) > 1 {
		peer = []string{"name", "eth0", "netns", fmt.Sprint(c.machines[1].first)}
	}
	// Made in the namespaces: this machine never sees them.
	cmd := exec.Command("ip", append([]string{"link", "add", "eth0", "netns", first, "type", "veth", "peer"}, peer...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("e2e: %s: %w\n%s", cmd, err, out)
	}
	for i, m := range c.machines {
		line := "set -e; ip addr add " + m.addr + "/24 dev eth0; ip link set eth0 up; ip link set nowhere up 2>/dev/null || :; ip route add default via 192.168.99.254"
		if err := c.command(i, os.Environ(), "/bin/sh", "-c", line); err != nil {
			return err
		}
	}
	return nil
}

// command runs one on a machine, outside of any test.
func (c *cluster) command(i int, env []string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	p, err := c.machines[i].spawn(filepath.Base(args[0]), cmd)
	if err != nil {
		return err
	}
	if <-p.done; p.err != nil {
		return fmt.Errorf("e2e: on %s: %s: %w\n%s", c.machines[i].name, strings.Join(args, " "), p.err, p.text())
	}
	return nil
}

// serve starts dev on the first machine.
func (c *cluster) serve(bin string, env []string, flags ...string) (*child, error) {
	m := c.machines[0]
	args := append([]string{"dev", "--data-dir", c.data(0), "--node-name", m.name, "--listen", m.addr + ":6443", "--advertise-address", m.addr,
		"--node-address", m.addr, "--unsafe-no-fsync"}, flags...)
	return c.run(0, bin, env, args...)
}

func (c *cluster) run(i int, bin string, env []string, args ...string) (*child, error) {
	cmd := exec.Command(filepath.Join(bin, "fingerpost"), args...)
	cmd.Env = env
	p, err := c.machines[i].spawn(args[0]+"-"+c.machines[i].name, cmd)
	if err != nil {
		return nil, err
	}
	if len(c.children) == i {
		c.children = append(c.children, p)
	}
	c.children[i] = p
	return p, p.waitFor("is ready")
}

// join makes a machine a node, as its administrator would: with the line that
// the server's administrator gives him.
func (c *cluster) join(bin string, env []string, m *machine) error {
	create := exec.Command(filepath.Join(bin, "fingerpost"), "token", "create", "--kubeconfig", c.kubeconfig())
	create.Env = env
	p, err := c.machines[0].spawn("token", create)
	if err != nil {
		return err
	}
	if <-p.done; p.err != nil {
		return fmt.Errorf("e2e: token create: %w\n%s", p.err, p.text())
	}
	line := strings.Fields(p.text())
	if len(line) < 8 || line[1] != "node" || line[3] != serverURL {
		return fmt.Errorf("e2e: token create printed %q", p.text())
	}
	i := slices.Index(c.machines, m)
	_, err = c.run(i, bin, env, append(line[1:], "--node-name", m.name, "--node-address", m.addr, "--state-dir", c.data(i))...)
	return err
}

func (c *cluster) stop() {
	c.gone.Do(func() {
		for i, p := range slices.Backward(c.children) {
			p.stop()
			if i > 0 { // its pods would go on, and cgroups are not of the machine
				_ = c.command(i, c.env, filepath.Join(c.bin, "fingerpost"), "node", "reset", "--state-dir", c.data(i))
			}
		}
		for _, m := range c.machines {
			m.halt()
		}
	})
}

func (c *cluster) data(i int) string  { return filepath.Join(c.dir, fmt.Sprintf("data-%d", i+1)) }
func (c *cluster) kubeconfig() string { return filepath.Join(c.data(0), "admin.kubeconfig") }
func (c *cluster) server() *machine   { return c.machines[0] }
func (c *cluster) nodes() (all []string) {
	for _, m := range c.machines {
		all = append(all, m.name)
	}
	return all
}

// rest talks to the API as the administrator, from the first machine.
func (c *cluster) rest() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig())
	if err != nil {
		return nil, err
	}
	cfg.Dial, cfg.QPS = c.server().dial, -1
	return cfg, nil
}

// kubectl is the real one, on the first machine.
func (c *cluster) kubectl(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(filepath.Join(tools.bin(t), "kubectl"), args...)
	cmd.Env, cmd.Dir = environ(t, c.dir, "KUBECONFIG="+c.kubeconfig()), c.dir
	return cmd
}

// try runs kubectl to its end.
func (c *cluster) try(t testing.TB, args ...string) result {
	t.Helper()
	return c.server().finish(t, c.kubectl(t, args...))
}

// must is try that wants it to succeed.
func (c *cluster) must(t testing.TB, args ...string) string {
	t.Helper()
	r := c.try(t, args...)
	if r.code != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// fingerpost runs a command of ours on a machine.
func (c *cluster) fingerpost(t testing.TB, i int, args ...string) result {
	t.Helper()
	cmd := exec.Command(filepath.Join(tools.bin(t), "fingerpost"), args...)
	cmd.Env = environ(t, c.dir, "KUBECONFIG="+c.kubeconfig(), "FINGERPOST_DATA="+c.data(i))
	return c.machines[i].finish(t, cmd)
}

func (c *cluster) apply(t testing.TB, ns, manifest string) {
	t.Helper()
	cmd := c.kubectl(t, "apply", "-n", ns, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if r := c.server().finish(t, cmd); r.code != 0 {
		t.Fatalf("kubectl apply: exit %d\n%s%s\n%s", r.code, r.out, r.err, manifest)
	}
}

// namespace makes one for the test.
func (c *cluster) namespace(t testing.TB, prefix string) string {
	t.Helper()
	ns := fmt.Sprintf("%s-%d", prefix, c.next.Add(1))
	c.makeNamespace(t, ns)
	return ns
}

func (c *cluster) makeNamespace(t testing.TB, ns string) {
	t.Helper()
	if _, err := c.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace's service account", func() error {
		_, err := c.client.CoreV1().ServiceAccounts(ns).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		r := c.try(t, "get", "pods,events", "-n", ns, "-o", "wide")
		t.Logf("in namespace %s:\n%s%s", ns, r.out, r.err)
	})
}

// pods lists those of a selector that nobody is removing, by name.
func (c *cluster) pods(t testing.TB, ns, selector string) []corev1.Pod {
	t.Helper()
	list, err := c.client.CoreV1().Pods(ns).List(context.Background(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// ready waits until so many pods of a selector are.
func (c *cluster) ready(t testing.TB, ns, selector string, n int) []corev1.Pod {
	t.Helper()
	var list []corev1.Pod
	eventually(t, fmt.Sprintf("%d ready pods of %s", n, selector), func() error {
		list = c.pods(t, ns, selector)
		good := 0
		for i := range list {
			if podReady(&list[i]) {
				good++
			}
		}
		return unless(good == n && len(list) == n, "%d of %d are ready", good, len(list))
	})
	return list
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// pod waits until a pod is as wanted.
func (c *cluster) pod(t testing.TB, ns, name, what string, ok func(p *corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, fmt.Sprintf("pod %s: %s", name, what), func() (err error) {
		if pod, err = c.client.CoreV1().Pods(ns).Get(context.Background(), name, metav1.GetOptions{}); err != nil {
			return err
		}
		return unless(ok(pod), "phase %s, %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
	})
	return pod
}

// event waits for one with this reason and these words.
func (c *cluster) event(t testing.TB, ns, object, reason, words string) {
	t.Helper()
	eventually(t, "event "+reason+" of "+object, func() error {
		list, err := c.client.CoreV1().Events(ns).List(context.Background(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + object})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Message, words) {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return fmt.Errorf("there is only:\n%s", strings.Join(seen, "\n"))
	})
}

// clusterIP is a Service's virtual IP.
func (c *cluster) clusterIP(t testing.TB, ns, service string) string {
	t.Helper()
	s, err := c.client.CoreV1().Services(ns).Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.Spec.ClusterIP, "10.96.") {
		t.Fatalf("service %s/%s has ClusterIP %q", ns, service, s.Spec.ClusterIP)
	}
	return s.Spec.ClusterIP
}

// answers waits until exactly these answer at a URL.
func (m *machine) answers(t testing.TB, url string, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, url+" from "+m.name, func() error {
		seen := map[string]int{}
		for range 10*len(want) + 5 {
			code, body := m.fetch(url)
			if code != http.StatusOK {
				return fmt.Errorf("%d %s", code, body)
			}
			name, _, _ := strings.Cut(strings.TrimSpace(body), " ")
			seen[name]++
		}
		got := make([]string, 0, len(seen))
		for name := range seen {
			got = append(got, name)
		}
		slices.Sort(got)
		return unless(slices.Equal(got, want), "answers of %v, want %v", seen, want)
	})
}

// ask asks the cluster DNS, from a machine.
func (m *machine) ask(name string, kind uint16) (rcode string, data []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := m.dial(ctx, "udp", "10.96.0.10:53")
	if err != nil {
		return "", nil, err
	}
	defer conn.Close()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	a, _, err := new(dns.Client).ExchangeWithConn(q, &dns.Conn{Conn: conn})
	if err != nil {
		return "", nil, err
	}
	for _, rr := range a.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return dns.RcodeToString[a.Rcode], data, nil
}

// resolves waits until a name has exactly this data.
func (m *machine) resolves(t testing.TB, name string, kind uint16, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, name+" "+dns.TypeToString[kind]+" from "+m.name, func() error {
		rcode, data, err := m.ask(name, kind)
		if err != nil {
			return err
		}
		return unless(slices.Equal(data, want), "%s %q, want %q", rcode, data, want)
	})
}

func ips(pods []corev1.Pod) (all []string) {
	for i := range pods {
		all = append(all, pods[i].Status.PodIP)
	}
	return all
}

func podNames(pods []corev1.Pod) (all []string) {
	for i := range pods {
		all = append(all, pods[i].Name)
	}
	return all
}
