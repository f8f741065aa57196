//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// address of the machine.
const address = "192.0.2.1"

// settle makes this process's namespaces a machine with a network card.
func settle(dir string) error {
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.53\n"), 0o644); err != nil {
		return err
	}
	for _, m := range []struct {
		from, to, kind string
		flags          uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"proc", "/proc", "proc", 0}, {"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", "/var/lib", "tmpfs", 0}, {resolv, "/etc/resolv.conf", "", syscall.MS_BIND},
	} {
		if err := syscall.Mount(m.from, m.to, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "nowhere"})); err != nil {
		return err
	}
	for _, name := range []string{"eth0", "nowhere"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name != "eth0" {
			continue
		}
		addr, err := netlink.ParseAddr(address + "/24")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		gw := net.IPv4(192, 0, 2, 254)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw}); err != nil {
			return err
		}
	}
	return nil
}

// process is a part of the system.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func (b *bench) spawn(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(b.fingerpost, args...), log: filepath.Join(b.dir, name+".log"), done: make(chan struct{})}
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(b.dir, "server", "admin.kubeconfig"))
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// died says why a process ended; nil if it runs.
func (p *process) died() error {
	select {
	case <-p.done:
		text, _ := os.ReadFile(p.log)
		return fmt.Errorf("%s ended: %s; it said:\n%s", p.cmd, p.cmd.ProcessState, text[max(0, len(text)-2000):])
	default:
		return nil
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
}

// says waits for a word in the log.
func (p *process) says(ctx context.Context, word string) error {
	return wait(ctx, 30*time.Second, func() error {
		if err := p.died(); err != nil {
			return err
		}
		if text, _ := os.ReadFile(p.log); !strings.Contains(string(text), word) {
			return fmt.Errorf("%s does not say %q", p.cmd, word)
		}
		return nil
	})
}

// wait tries until it works.
func wait(ctx context.Context, most time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// cost is what processes have used and use.
type cost struct {
	cpu            time.Duration
	rss, anonymous float64 // MB
}

func usage(pid int) (c cost, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return c, err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, n := range f[11:13] {
		ticks, err := strconv.Atoi(n)
		if err != nil {
			return c, err
		}
		c.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if name, rest, _ := strings.Cut(line, ":"); name == "VmRSS" || name == "RssAnon" {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			if name == "VmRSS" {
				c.rss = float64(kb) * 1024 / 1e6
			} else {
				c.anonymous = float64(kb) * 1024 / 1e6
			}
		}
	}
	return c, err
}

// keeper finds the process that has the containers.
func keeper() (int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		text, _ := os.ReadFile(path)
		if strings.HasPrefix(string(text), "fingerpost-keeper") {
			return strconv.Atoi(strings.Split(path, "/")[2])
		}
	}
	return 0, errors.Join(errors.New("there is no keeper"), err)
}

// cluster is what the parts work with.
type cluster struct {
	client kubernetes.Interface
}

// start starts the server and a node that joins it.
func (b *bench) start(ctx context.Context) (*cluster, error) {
	var err error
	data := filepath.Join(b.dir, "server")
	if b.server, err = b.spawn("server", "server", "--data-dir", data, "--listen", address+":6443", "--advertise-address", address, "--metrics-address", ""); err != nil {
		return nil, err
	}
	if err := b.server.says(ctx, "is ready"); err != nil {
		return nil, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(data, "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	cfg.QPS = -1
	cfg.ContentType, cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	token, err := b.spawn("token", "token", "create")
	if err != nil {
		return nil, err
	}
	<-token.done
	line, err := os.ReadFile(token.log)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(string(line))
	if len(words) < 2 || words[1] != "node" {
		return nil, fmt.Errorf("token create: %s", line)
	}
	shell, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("the pods run busybox (busybox-static): %w", err)
	}
	mapped, err := b.spawn("map", "image", "map", "bench/busybox", shell, "--data-dir", b.nodeDir())
	if err != nil {
		return nil, err
	}
	<-mapped.done
	if err := b.startNode(ctx, words[2:]...); err != nil {
		return nil, err
	}
	return &cluster{client}, wait(ctx, 30*time.Second, func() error {
		n, err := client.CoreV1().Nodes().Get(ctx, "bench", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && len(n.Spec.Taints) == 0 {
				_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
				return err
			}
		}
		return errors.New("the node does not become ready")
	})
}

func (b *bench) nodeDir() string { return filepath.Join(b.dir, "node") }

func (b *bench) startNode(ctx context.Context, more ...string) (err error) {
	if b.profiles != "" {
		more = append(more, "--profiling")
	}
	b.node, err = b.spawn("node", append([]string{"node", "--node-name", "bench", "--node-address", address, "--state-dir", b.nodeDir(), "--log-level", "warn"}, more...)...)
	if err != nil {
		return err
	}
	return b.node.says(ctx, "is ready")
}

// profile writes what a node's CPU does in some time, and its heap after that.
func (b *bench) profile(ctx context.Context, name string, span time.Duration) error {
	for _, p := range []struct{ kind, query string }{{"profile", "seconds=" + strconv.Itoa(int(span.Seconds()))}, {"heap", "gc=1"}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9464/debug/pprof/"+p.kind+"?"+p.query, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profiles, name+"."+p.kind), data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
