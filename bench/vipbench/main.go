//go:build linux

// Command vipbench measures the service proxy beside kube-proxy, both fed by the
// same API server. Everything runs in a network namespace of its own, which
// needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fingerpost/fingerpost/bench/rig"
)

type bench struct {
	fingerpost, kubeProxy string
	sizes                 string
	endpoints             int
	changes               int
	span                  time.Duration
	only                  string

	dir, kubeconfig string
	rest            *rest.Config
	client          kubernetes.Interface
}

// inside is set in the environment of the process that is in the namespace.
const inside = "VIPBENCH_INSIDE"

func main() {
	var b bench
	flag.StringVar(&b.fingerpost, "fingerpost", "bin/fingerpost", "the binary")
	flag.StringVar(&b.kubeProxy, "kube-proxy", "", "the peer's binary; \"\" leaves it out")
	flag.StringVar(&b.sizes, "services", "1000,10000", "numbers of services")
	flag.IntVar(&b.endpoints, "endpoints", 10, "endpoints of each")
	flag.IntVar(&b.changes, "changes", 50, "changes of endpoints to time")
	flag.DurationVar(&b.span, "span", 3*time.Second, "time of one measurement of the data path")
	flag.StringVar(&b.only, "only", "", "measure proxies whose name has this in it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := b.run
	if os.Getenv(inside) == "" {
		f = enter
	}
	if err := f(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "vipbench:", err)
		stop()
		os.Exit(1)
	}
}

// enter runs this program again in a network namespace and a control group of
// its own: eBPF programs are attached to that, and nobody else meets them.
func enter(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	group, err := newGroup()
	if err != nil {
		return err
	}
	defer group.remove()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, append(os.Environ(), inside+"="+group.path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM,
		UseCgroupFD: group.dir != nil, CgroupFD: group.fd(),
	}
	return cmd.Run()
}

func (b *bench) run(ctx context.Context) error {
	if err := enterGroup(ctx, os.Getenv(inside)); err != nil {
		return err
	}
	for _, args := range []string{
		"link set lo up", "addr add " + nodeIP + "/32 dev lo", "route add local 198.51.100.0/24 dev lo", "route add default dev lo src " + nodeIP,
	} {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "vipbench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	backends, err := startBackends()
	if err != nil {
		return err
	}
	defer backends.close()
	server, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = server.Stop() }()
	var rows []row
	have := 0
	for _, s := range strings.Split(b.sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < probes || n > 60000 {
			return fmt.Errorf("-services %q: want numbers from %d to 60000", b.sizes, probes)
		}
		if err := b.fill(ctx, have, n); err != nil {
			return err
		}
		have = max(have, n)
		for _, p := range b.proxies() {
			if !strings.Contains(p.name, b.only) {
				continue
			}
			r, err := b.measure(ctx, p, n, backends)
			if err != nil {
				return fmt.Errorf("%s, %d services: %w", p.name, n, err)
			}
			fmt.Fprintf(os.Stderr, "%+v\n", r)
			rows = append(rows, r)
		}
	}
	return show(rows)
}

// proxy is one that is measured.
type proxy struct {
	name, binary string
	args         []string
	cleanup      []string
}

func (b *bench) proxies() []proxy {
	ours := func(mode string) proxy {
		return proxy{"fingerpost " + mode, b.fingerpost,
			[]string{"proxy-node", "--kubeconfig", b.kubeconfig, "--node-name", node, "--proxy-mode", mode, "--cluster-cidr", podCIDR,
				"--healthz-bind-address", "127.0.0.1:10256", "--metrics-bind-address", "127.0.0.1:10249"},
			[]string{"proxy-node", "--cleanup"}}
	}
	out := []proxy{ours("nftables")}
	if strings.HasPrefix(os.Getenv(inside), "/") {
		out = append(out, ours("ebpf"))
	}
	if b.kubeProxy != "" {
		out = append(out, proxy{"kube-proxy nftables", b.kubeProxy,
			[]string{"--kubeconfig", b.kubeconfig, "--hostname-override", node, "--proxy-mode", "nftables", "--cluster-cidr", podCIDR,
				"--healthz-bind-address", "127.0.0.1:10256", "--metrics-bind-address", "127.0.0.1:10249", "--conntrack-max-per-core", "0", "--iptables-min-sync-period", "1ms",
				"--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0"},
			[]string{"--cleanup"}})
	}
	return out
}

func (b *bench) startServer(ctx context.Context) (*rig.Program, error) {
	p, err := rig.Run(b.dir, b.fingerpost, "server", "--data-dir", b.dir, "--listen", "127.0.0.1:6443", "--metrics-address", "127.0.0.1:9460",
		"--service-cidr", serviceCIDR, "--unsafe-no-fsync", "--node-name", "api")
	if err != nil {
		return nil, err
	}
	b.kubeconfig = filepath.Join(b.dir, "admin.kubeconfig")
	for deadline := time.Now().Add(time.Minute); ; {
		if b.rest, err = clientcmd.BuildConfigFromFlags("", b.kubeconfig); err == nil {
			b.rest.QPS = -1
			if b.client, err = kubernetes.NewForConfig(b.rest); err == nil {
				// It is there when ClusterIPs can be had.
				if _, err = b.client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{}); err == nil {
					return p, b.makeNode(ctx)
				}
			}
		}
		if time.Now().After(deadline) {
			_ = p.Stop()
			return nil, fmt.Errorf("the API server does not start: %w", err)
		}
		if err := rig.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// row is what is shown of one proxy at one size.
type row struct {
	name               string
	services           int
	first, firstCPU    time.Duration
	change, p99        time.Duration
	changes            int
	cpu                time.Duration
	rssMB              int64
	connects, rps, thr float64 // ratios to a direct connection
}

// measure runs a proxy.
func (b *bench) measure(ctx context.Context, p proxy, n int, back *backends) (r row, err error) {
	r = row{name: p.name, services: n}
	began := time.Now()
	prog, err := rig.Run(b.dir, p.binary, p.args...)
	if err != nil {
		return r, err
	}
	defer func() {
		err = errors.Join(err, prog.Stop())
		if out, cerr := exec.Command(p.binary, p.cleanup...).CombinedOutput(); cerr != nil {
			fmt.Fprintf(os.Stderr, "%s %v: %v: %s\n", p.binary, p.cleanup, cerr, lastLine(out))
		}
	}()
	for i := range probes {
		if _, err := await(ctx, virtual(probe(i, n)), "", 5*time.Minute); err != nil {
			return r, fmt.Errorf("the first sync: %w", err)
		}
	}
	r.first = time.Since(began)
	if r.firstCPU, err = wholeCPU(p.binary, p.args[0]); err != nil {
		return r, err
	}
	if err := b.settle(ctx, prog); err != nil {
		return r, err
	}
	cpu, err := wholeCPU(p.binary, p.args[0])
	if err != nil {
		return r, err
	}
	var took []time.Duration
	start := time.Now()
	for i := 0; i < b.changes && (i < 5 || time.Since(start) < 30*time.Second); i++ {
		d, err := b.change(ctx, probe(i%probes, n))
		if err != nil {
			return r, err
		}
		took = append(took, d)
	}
	if err := b.settle(ctx, prog); err != nil {
		return r, err
	}
	after, err := wholeCPU(p.binary, p.args[0])
	if err != nil {
		return r, err
	}
	slices.Sort(took)
	r.change, r.p99, r.changes, r.cpu = took[len(took)/2], took[len(took)*99/100], len(took), (after-cpu)/time.Duration(len(took))
	m, err := prog.Memory()
	if err != nil {
		return r, err
	}
	r.rssMB = int64(m.Total >> 20)
	at := virtual(quiet)
	direct := direct(back)
	for _, x := range []struct {
		to   *float64
		rate func(context.Context, string, time.Duration) (float64, error)
	}{{&r.connects, connectRate}, {&r.rps, requestRate}, {&r.thr, throughput}} {
		// In turn, so that what else happens on the machine meets both.
		var d, v float64
		for range 3 {
			one, err := x.rate(ctx, direct, b.span/6)
			if err != nil {
				return r, fmt.Errorf("direct: %w", err)
			}
			two, err := x.rate(ctx, at, b.span/6)
			if err != nil {
				return r, fmt.Errorf("through the virtual IP: %w", err)
			}
			d, v = d+one, v+two
		}
		*x.to = v / d
	}
	return r, nil
}

// settle waits until a proxy has nothing to do.
func (b *bench) settle(ctx context.Context, p *rig.Program) error {
	last, err := p.CPU()
	for still := 0; err == nil && still < 3; {
		if err := rig.Sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		var now time.Duration
		if now, err = p.CPU(); now-last <= 20*time.Millisecond {
			still++
		} else {
			still = 0
		}
		last = now
	}
	return err
}

// wholeCPU is the CPU time of a child of ours, with that of its own children
// that have ended: kube-proxy works through the program nft.
func wholeCPU(binary, firstArg string) (time.Duration, error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return 0, err
	}
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, pid := range strings.Fields(string(b)) {
			cmd, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			if !strings.HasPrefix(string(cmd), binary+"\x00"+firstArg+"\x00") {
				continue
			}
			stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
			if err != nil {
				return 0, err
			}
			// utime, stime, cutime and cstime of proc_pid_stat(5), in hundredths.
			f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			var sum int64
			for _, x := range f[11:15] {
				n, err := strconv.ParseInt(x, 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n
			}
			return time.Duration(sum) * 10 * time.Millisecond, nil
		}
	}
	return 0, fmt.Errorf("%s does not run", binary)
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

func show(rows []row) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "proxy\tservices\tfirst sync\tits CPU\tchange p50\tp99\tof\tCPU/change\tRSS\tconnect\treq/s\tthroughput\t")
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%d\t%.2f s\t%.2f s\t%s\t%s\t%d\t%s\t%d MB\t%.2f\t%.2f\t%.2f\t\n", r.name, r.services, r.first.Seconds(), r.firstCPU.Seconds(),
			ms(r.change), ms(r.p99), r.changes, ms(r.cpu), r.rssMB, r.connects, r.rps, r.thr)
	}
	return w.Flush()
}
