package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/node/agent"
	"github.com/fingerpost/fingerpost/node/image"
	"github.com/fingerpost/fingerpost/node/image/builtin"
	"github.com/fingerpost/fingerpost/node/join"
	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
	"github.com/fingerpost/fingerpost/node/runtime/process"
	"github.com/fingerpost/fingerpost/node/stream"
	"github.com/fingerpost/fingerpost/view/env"
)

// Pods says how this machine runs pods.
type Pods struct {
	Enabled bool
	// CIDRs are the ranges of the pods of all nodes; default 10.244.0.0/16.
	CIDRs []netip.Prefix
	// Dir is where images, volumes, logs and the state of pods are.
	Dir string
	// Address of the node's own port, for logs and exec. Port 0 takes any.
	StreamPort uint16
	// Identity of a node that joined; nil where the server is in this process.
	Identity *join.Identity
	// End lets pods end with this process. Else they go on, and the next
	// process takes them over.
	End bool
}

// ClusterDNS is the address of the DNS that pods ask: the tenth of a range for
// services, where people look for it.
func ClusterDNS(services netip.Prefix) netip.Addr {
	a := services.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// NodeAddress is where other nodes reach this one: what it was told, or the
// machine's own first address, or loopback on a machine that is alone.
func (c *Config) NodeAddress() netip.Addr {
	for _, a := range c.NodeAddrs {
		if !a.IsLoopback() {
			return a
		}
	}
	if a, err := machineAddress(); err == nil {
		return a
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// podsNode is what runs pods here.
type podsNode struct {
	cfg    agent.Config
	agent  *agent.Agent
	rt     *process.Runtime
	stream *stream.Server
	c      *Config
	synced <-chan struct{} // the services are known
}

// addPods adds the agent and its port.
func (s *System) addPods(c *Config, cat *catalog.Catalog, synced <-chan struct{}) error {
	p, err := newPods(c, cat)
	if err != nil {
		return err
	}
	p.synced = synced
	s.onClose(p.rt.Close)
	s.add("containers", p.rt.Run, nil)
	s.add("pods", p.run, nil)
	s.add("port of the node", p.stream.Run, nil)
	if id := c.Pods.Identity; id != nil {
		s.add("certificates of this node", id.Run, nil)
	}
	return nil
}

func newPods(c *Config, cat *catalog.Catalog) (*podsNode, error) {
	addr := c.NodeAddress()
	cfg, rt, err := agentConfig(c)
	if err != nil {
		return nil, err
	}
	rc := rest.CopyConfig(c.Rest)
	rc.QPS, rc.ContentType, rc.UserAgent = -1, "application/vnd.kubernetes.protobuf", "fingerpost-agent"
	rc.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	if cfg.Client, err = kubernetes.NewForConfig(rc); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, c.Pods.StreamPort).String())
	if err != nil && c.Pods.StreamPort != 0 { // a kubelet, or another node of ours
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	}
	if err != nil {
		return nil, fmt.Errorf("listen for logs and exec of pods: %w", err)
	}
	cfg.StreamPort = int32(l.Addr().(*net.TCPAddr).Port)
	cfg.Addresses = []netip.Addr{addr}
	cfg.Env = func(namespace string) ([]string, error) {
		snap := cat.Snapshot()
		if f := snap.Freshness(); !f.Synced && !f.Stale() { // from disk will do
			return nil, errors.New("the services are not known yet")
		}
		return env.Vars(snap, namespace), nil
	}
	cfg.Called = func(namespace string, addrs []netip.Addr) func() bool { return called(cat, namespace, addrs) }
	p := &podsNode{cfg: cfg, rt: rt, c: c}
	if p.agent, err = agent.New(cfg); err != nil {
		_ = l.Close()
		return nil, err
	}
	certificate, cas := c.streamIdentity(addr)
	if p.stream, err = stream.New(stream.Config{
		Listener: l, Certificate: certificate, ClientCA: cas,
		Users: []string{apiserver.UserKubeletClient}, Groups: []string{"system:masters"},
		Pods: podFinder{p.agent, rt}, Streamer: rt, Log: c.Log,
	}); err != nil {
		_ = l.Close()
		return nil, err
	}
	return p, nil
}

// agentConfig is what is known without the server.
func agentConfig(c *Config) (agent.Config, *process.Runtime, error) {
	dir := c.Pods.Dir
	rt, err := process.New(process.Config{
		Dir: filepath.Join(dir, "run"), Log: c.Log,
		Hide: []string{filepath.Join(dir, "agent"), filepath.Dir(dir)}, // keys and secrets
	})
	if err != nil {
		return agent.Config{}, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return agent.Config{}, nil, err
	}
	store, err := image.Open(image.Config{Dir: filepath.Join(dir, "images"), BuiltIn: builtin.Images(self), Log: c.Log})
	if err != nil {
		return agent.Config{}, nil, err
	}
	var ask []netip.Addr
	for _, r := range c.ServiceCIDRs {
		ask = append(ask, ClusterDNS(r))
	}
	return agent.Config{
		NodeName: c.NodeName, Zone: c.NodeZone, Runtime: rt, Images: images{store},
		Network: func(ranges []netip.Prefix) (agent.Network, error) {
			return network.New(network.Config{Dir: filepath.Join(dir, "network"), PodCIDRs: ranges, ClusterCIDRs: c.Pods.CIDRs, Log: c.Log})
		},
		ClusterCIDRs: c.Pods.CIDRs, Dir: filepath.Join(dir, "agent"), ClusterDNS: ask, ClusterDomain: c.DNSZone, ResolvConf: c.ResolvConf,
		Log: c.Log, Registerer: c.Registry,
	}, rt, nil
}

// run runs the agent. A machine that cannot have pods keeps the rest of what
// runs in this process.
func (p *podsNode) run(ctx context.Context) error {
	select { // containers of new pods want to know the services
	case <-p.synced:
	case <-time.After(keptPatience):
	case <-ctx.Done():
	}
	err := p.agent.Run(ctx)
	if ctx.Err() == nil && err != nil {
		p.c.Log.Error("this machine runs no pods; everything else goes on", "error", err)
		<-ctx.Done()
		return nil
	}
	if p.c.Pods.End {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
		defer cancel()
		return agent.Reset(ctx, p.cfg)
	}
	return nil
}

// called finds the services that know an address of a pod. The answer is
// whether one of them still sends there.
func called(cat *catalog.Catalog, namespace string, addrs []netip.Addr) func() bool {
	sends := func(e *catalog.Entry) (sends, knows bool) {
		for i := range e.Endpoints {
			if p := &e.Endpoints[i]; slices.Contains(addrs, p.Addr) {
				knows, sends = true, sends || p.Ready && !p.Terminating
			}
		}
		return sends, knows
	}
	var keys []catalog.Key
	for e := range cat.Snapshot().All() {
		if e.Service.Namespace != namespace {
			continue
		}
		if _, knows := sends(e); knows {
			keys = append(keys, e.Service.Key)
		}
	}
	if keys == nil {
		return nil
	}
	return func() bool {
		snap := cat.Snapshot()
		return slices.ContainsFunc(keys, func(k catalog.Key) bool {
			e := snap.Get(k)
			if e == nil {
				return false
			}
			yes, _ := sends(e)
			return yes
		})
	}
}

// endPatience is how long pods may take to end with the process.
const endPatience = 15 * time.Second

// ResetPods removes everything of the pods of this machine, and the rules of
// virtual IPs that a node of it left for the next one to take over.
func ResetPods(ctx context.Context, c Config) error {
	if err := c.Default(); err != nil {
		return err
	}
	cfg, rt, err := agentConfig(&c)
	if err != nil {
		return err
	}
	defer rt.Close()
	return errors.Join(agent.Reset(ctx, cfg), c.resetProxy())
}

// resetProxy removes the rules of the modes that nodes of the state directory
// used last. Those of other programs, or of other directories, stay.
func (c *Config) resetProxy() error {
	files, err := filepath.Glob(filepath.Join(c.StateDir, "nodes", "*", "proxy-mode"))
	errs := []error{err}
	for _, f := range files {
		text, err := os.ReadFile(f)
		last := strings.TrimSpace(string(text))
		modes := proxyModes(c)
		beside := ""
		if i := slices.IndexFunc(modes, func(m proxyMode) bool { return m.name == last }); i >= 0 {
			beside = modes[i].beside
		}
		for _, m := range modes {
			if m.cleanup != nil && (m.name == last || m.name == beside) && m.probe() == nil {
				err = errors.Join(err, m.cleanup())
			}
		}
		if err == nil {
			err = os.Remove(f)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// streamIdentity is the certificate of the node's port, and who may come there.
func (c *Config) streamIdentity(addr netip.Addr) (func() (*tls.Certificate, error), *x509.CertPool) {
	if id := c.Pods.Identity; id != nil {
		return func() (*tls.Certificate, error) { return id.GetCertificate(nil) }, id.ClientCAs()
	}
	own := &issued{issue: func(now time.Time) (apiserver.KeyPair, error) {
		return c.pki.NodeServing(c.NodeName, []netip.Addr{addr}, now)
	}}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.pki.CACert)
	return func() (*tls.Certificate, error) { return own.get(nil) }, pool
}

// images is the store of images as the agent wants it.
type images struct{ store *image.Store }

// Resolve implements agent.Images.
func (i images) Resolve(ctx context.Context, ref string, policy corev1.PullPolicy, auths [][]byte) (agent.Image, error) {
	have := map[string]bool{}
	if all, err := i.store.List(); err == nil {
		for _, x := range all {
			have[x.ID] = true
		}
	}
	x, err := i.store.Resolve(ctx, ref, image.PullPolicy(policy), image.Auth{DockerConfigs: auths})
	switch {
	case errors.Is(err, image.ErrInvalidName):
		return agent.Image{}, fmt.Errorf("%w: %w", agent.ErrImageName, err)
	case errors.Is(err, image.ErrNotFound):
		return agent.Image{}, fmt.Errorf("%w: %w", agent.ErrImageMissing, err)
	case err != nil:
		return agent.Image{}, err
	}
	return agent.Image{
		ID: x.ID, Layers: x.Layers, Entrypoint: x.Entrypoint, Cmd: x.Cmd, Env: x.Env, WorkDir: x.WorkDir, User: x.User,
		StopSignal: x.StopSignal, Pulled: x.Source == image.Pulled && !have[x.ID],
	}, nil
}

// podFinder finds pods for streams.
type podFinder struct {
	agent *agent.Agent
	rt    *process.Runtime
}

func (f podFinder) List() []*corev1.Pod { return f.agent.Pods() }

func (f podFinder) pod(namespace, name, uid string) (*corev1.Pod, error) {
	for _, p := range f.agent.Pods() {
		if p.Namespace == namespace && p.Name == name && (uid == "" || string(p.UID) == uid) {
			return p, nil
		}
	}
	return nil, fmt.Errorf("pod %s/%s: %w", namespace, name, stream.ErrNotFound)
}

// Container implements stream.Pods.
func (f podFinder) Container(namespace, name, uid, container string, previous bool) (stream.Container, error) {
	if _, err := f.pod(namespace, name, uid); err != nil {
		return stream.Container{}, err
	}
	path, err := f.agent.LogPath(namespace, name, container, previous)
	if err != nil {
		return stream.Container{}, err
	}
	id, err := f.agent.Container(namespace, name, container)
	if err != nil {
		return stream.Container{}, err
	}
	return stream.Container{ID: id, LogPath: path, Running: func() bool { return !previous && f.running(id) }}, nil
}

// running says whether this run of a container has not ended.
func (f podFinder) running(id runtime.ContainerID) bool {
	all, err := f.rt.List(context.Background())
	if err != nil {
		return false
	}
	for i := range all {
		for j := range all[i].Containers {
			if c := &all[i].Containers[j]; c.ID == id {
				return c.Running()
			}
		}
	}
	return false
}

// Dial implements stream.Pods.
func (f podFinder) Dial(ctx context.Context, namespace, name, uid string, port uint16) (net.Conn, error) {
	p, err := f.pod(namespace, name, uid)
	if err != nil {
		return nil, err
	}
	number := strconv.Itoa(int(port))
	var d net.Dialer
	dial := d.DialContext
	if !p.Spec.HostNetwork {
		ns, err := f.agent.NetNS(string(p.UID))
		if err != nil {
			return nil, err
		}
		dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return kernel.DialIn(ctx, ns, network, address)
		}
	}
	conn, err := dial(ctx, "tcp4", "127.0.0.1:"+number)
	if err != nil {
		if v6, err6 := dial(ctx, "tcp6", "[::1]:"+number); err6 == nil {
			return v6, nil
		}
	}
	return conn, err
}
