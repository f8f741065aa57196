package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/controller"
	"github.com/fingerpost/fingerpost/controller/housekeeping"
	"github.com/fingerpost/fingerpost/controller/instance"
	"github.com/fingerpost/fingerpost/door/kube"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/internal/observe"
	"github.com/fingerpost/fingerpost/store"
)

// Dev composes everything in one process.
func Dev(ctx context.Context, c Config) (*System, error) {
	s := newSystem(c.Log)
	api, err := s.addServer(ctx, &c)
	if err == nil {
		c.Rest = api.Rest
		err = s.addNode(ctx, &c)
	}
	return s.finish(&c, err)
}

// Server composes store, API and controllers.
func Server(ctx context.Context, c Config) (*System, error) {
	s := newSystem(c.Log)
	_, err := s.addServer(ctx, &c)
	return s.finish(&c, err)
}

// Node composes catalog and views, following the API server of c.Rest.
func Node(ctx context.Context, c Config) (*System, error) {
	s := newSystem(c.Log)
	s.eager = true
	return s.finish(&c, s.addNode(ctx, &c))
}

func (s *System) finish(c *Config, err error) (*System, error) {
	if err == nil && c.Metrics != "" {
		var e *observe.Endpoint
		if e, err = observe.Listen(c.Metrics, c.Registry, s.isReady, c.Profiling, s.shown); err == nil {
			// First: whoever asks whether we live is answered while the rest starts.
			s.parts = slices.Insert(s.parts, 0, part{name: "metrics", run: e.Run})
		}
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// isReady says whether every part has started, and how fresh the catalog is: a
// node that lost its server goes on answering, so it stays ready.
func (s *System) isReady() (string, error) {
	select {
	case <-s.ready:
	default:
		if name := s.waiting.Load(); name != nil {
			return "", errors.New("starting: waiting for " + *name)
		}
		return "", errors.New("starting")
	}
	if s.stopping.Load() {
		return "", errors.New("stopping")
	}
	if s.catalog == nil {
		return "", nil
	}
	if f := s.catalog.Snapshot().Freshness(); f.Stale() {
		return "stale since " + f.StaleSince.UTC().Format(time.RFC3339) + ": the API server does not answer; the last state is served\n", nil
	}
	return "", nil
}

// addServer adds the store, the API server and the controllers.
func (s *System) addServer(ctx context.Context, c *Config) (*apiserver.Server, error) {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; is another server running? Choose another address with --listen", c.Listen, err)
	}
	s.onClose(func() { _ = listener.Close() })
	advertise, err := c.advertise(listener.Addr())
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w; choose another one with --data-dir", err)
	}
	st, err := store.Open(ctx, store.Config{
		Dir: c.DataDir, Endpoints: c.EtcdEndpoints, CAFile: c.EtcdCA, CertFile: c.EtcdCert, KeyFile: c.EtcdKey,
		UnsafeNoSync: c.UnsafeNoSync, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	s.onClose(st.Close)
	names, addrs := c.certSubjects(listener.Addr(), advertise)
	pki, err := apiserver.LoadPKI(filepath.Join(c.DataDir, "pki"), names, addrs, time.Now())
	if err != nil {
		return nil, err
	}
	c.pki = pki
	// The API server takes heartbeats before there is a client of it to look up
	// an Instance with: the client is filled in below, before anything is served.
	var reader atomic.Pointer[client.Client]
	live, err := instance.NewLiveness(instance.LivenessConfig{
		Get: func(ctx context.Context, namespace, name string) (*v1alpha1.Instance, error) {
			return reader.Load().Instances(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		Registerer: c.Registry,
	})
	if err != nil {
		return nil, err
	}
	ap, err := netip.ParseAddrPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	self := netip.AddrPortFrom(advertise, ap.Port())
	lead := newLead(self.String(), st.Embedded)
	beats, err := newRelay(lead, live, pki)
	if err != nil {
		return nil, err
	}
	api, err := apiserver.New(apiserver.Config{
		Listener: listener, Store: st, PKI: pki, ServiceCIDRs: c.ServiceCIDRs, NodePorts: c.NodePorts,
		Advertise: advertise, NodeName: c.NodeName, Liveness: beats, Transform: controller.Trim(), Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := writeKubeconfig(filepath.Join(c.DataDir, "admin.kubeconfig"), listener.Addr(), pki); err != nil {
		return nil, err
	}
	s.add("api server", api.Run, api.Ready())
	s.add("election", func(ctx context.Context) error { return lead.run(ctx, api.Client) }, nil)

	in, err := client.New(api.Rest)
	if err != nil {
		return nil, err
	}
	reader.Store(in)
	if err := s.addControllers(ctx, c, api, in, live, lead); err != nil {
		return nil, err
	}
	keeping, err := housekeeping.New(housekeeping.Config{Rest: api.Rest, Client: api.Client, CA: pki.CACert, Log: c.Log})
	if err != nil {
		return nil, err
	}
	s.add("housekeeping", lead.whenLeading(keeping.Run), nil)
	if err := s.addWorkloads(ctx, c, api, in, lead); err != nil {
		return nil, err
	}
	r := &registration{client: api.Client, instances: in, ip: c.ServiceCIDRs[0].Addr().Next(), addr: self, node: c.NodeName, log: c.Log}
	for _, p := range c.ServiceCIDRs {
		if !p.Addr().IsLoopback() { // those are for a machine without root, which has no port 53 either
			r.dns = append(r.dns, ClusterDNS(p))
		}
	}
	s.add("registration of the API server", r.run, nil)
	return api, nil
}

// addNode adds the catalog and the views.
func (s *System) addNode(ctx context.Context, c *Config) error {
	cat := catalog.New(nil)
	s.catalog = cat
	s.lameduck = c.Lameduck
	loaded, err := s.keep(c, cat)
	if err != nil {
		return err
	}
	if c.Pods.Enabled && len(c.ServiceCIDRs) == 0 {
		if c.ServiceCIDRs, err = c.rangesNow(ctx); err != nil {
			return err
		}
	}
	var mode *proxyMode
	if c.Proxy {
		if mode, err = c.chooseProxy(ctx); err != nil {
			return err
		}
	}
	if err := s.settle(c, mode); err != nil {
		return err
	}
	if c.Pods.Enabled && len(c.DNSListen) > 0 { // where pods ask
		for _, r := range c.ServiceCIDRs {
			c.DNSListen = append(c.DNSListen, netip.AddrPortFrom(ClusterDNS(r), 53).String())
		}
	}
	var views []part
	if len(c.DNSListen) > 0 {
		d, err := s.dns(c)
		if err != nil {
			return err
		}
		views = append(views, part{name: "dns", run: d.Run}, follow("dns", cat, d, c))
	}
	if c.Proxy {
		p, err := s.proxy(ctx, c, mode)
		if err != nil {
			return err
		}
		views = append(views, part{name: "virtual IPs", run: p.Run}, follow("virtual IPs", cat, p, c))
	}
	for _, v := range views {
		s.add(v.name, v.run, nil)
	}
	if len(c.Gateway.HTTP)+len(c.Gateway.HTTPS) > 0 {
		if err := s.addGateway(c, cat); err != nil {
			return err
		}
	}
	// The door comes last: it starts when the API server answers, and stops
	// first, so that views keep the last state to the end.
	door, err := kube.New(kube.Config{Rest: c.Rest, Catalog: cat, Log: c.Log, Registerer: c.Registry, ClientName: "fingerpost-node"})
	if err != nil {
		return err
	}
	ready := s.orPatience(door.Synced(), loaded)
	if !c.Pods.Enabled {
		s.add("door kube", door.Run, ready)
		return nil
	}
	// Pods that run are cared for whether the API answers or not.
	s.add("door kube", door.Run, nil)
	if err := s.addPods(c, cat, door.Synced()); err != nil {
		return err
	}
	s.add("first answer of the API server", func(ctx context.Context) error { <-ctx.Done(); return nil }, ready)
	return nil
}

func follow(name string, cat *catalog.Catalog, v catalog.View, c *Config) part {
	return part{name: name + " follow the catalog", run: func(ctx context.Context) error {
		return catalog.Follow(ctx, cat, v, func(err error) { c.Log.Warn("a view could not show everything", "view", name, "error", err) })
	}}
}

// makeLocal makes every address of the service ranges one of this machine.
func (s *System) makeLocal(ranges []netip.Prefix) error {
	for _, p := range ranges {
		if p.Addr().IsLoopback() {
			continue // every address of it can be listened on already
		}
		if err := kernel.AddLocalRange(p); err != nil {
			return err
		}
		s.onClose(func() { _ = kernel.RemoveLocalRange(p) })
	}
	return nil
}

// learnRanges asks the server for its service ranges until it answers.
func (s *System) learnRanges(ctx context.Context, c *Config) error {
	client, err := kubernetes.NewForConfig(c.Rest)
	if err != nil {
		return err
	}
	kept := c.keptRanges()
	if err := s.makeLocal(kept); err != nil {
		return err
	}
	for wait := time.Duration(0); ; wait = time.Second {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		ranges, err := serviceRanges(ctx, client)
		if err != nil {
			c.Log.Warn("the server does not tell its service ranges; it is asked again (or give --service-cidr)", "error", err)
			continue
		}
		c.keepRanges(ranges)
		if err := s.makeLocal(slices.DeleteFunc(ranges, func(p netip.Prefix) bool { return slices.Contains(kept, p) })); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
}

// rangesNow are the service ranges of the server, or, when it is away, those it
// had the last time.
func (c *Config) rangesNow(ctx context.Context) ([]netip.Prefix, error) {
	client, err := kubernetes.NewForConfig(c.Rest)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, rangesPatience)
	defer cancel()
	ranges, err := serviceRanges(ctx, client)
	if err == nil {
		c.keepRanges(ranges)
		return ranges, nil
	}
	if kept := c.keptRanges(); len(kept) > 0 {
		return kept, nil
	}
	return nil, fmt.Errorf("ask the server for its service ranges: %w; start it first, or give --service-cidr", err)
}

// rangesPatience is how long a node waits for a server that it knows already.
const rangesPatience = 10 * time.Second

func serviceRanges(ctx context.Context, client kubernetes.Interface) ([]netip.Prefix, error) {
	list, err := client.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var ranges []netip.Prefix
	for i := range list.Items {
		for _, cidr := range list.Items[i].Spec.CIDRs {
			if p, err := netip.ParsePrefix(cidr); err == nil {
				ranges = append(ranges, p)
			}
		}
	}
	return ranges, nil
}

// certSubjects are the names and addresses at which the API answers.
func (c *Config) certSubjects(l net.Addr, advertise netip.Addr) ([]string, []netip.Addr) {
	names := []string{"localhost", c.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.DNSZone}
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), advertise, c.ServiceCIDRs[0].Addr().Next()}
	if ap, err := netip.ParseAddrPort(l.String()); err == nil && !ap.Addr().IsUnspecified() {
		addrs = append(addrs, ap.Addr().Unmap())
	}
	for _, n := range c.CertNames {
		if a, err := netip.ParseAddr(n); err == nil {
			addrs = append(addrs, a)
		} else {
			names = append(names, n)
		}
	}
	return names, addrs
}

func writeKubeconfig(path string, l net.Addr, pki *apiserver.PKI) error {
	host, port, err := net.SplitHostPort(l.String())
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	const name = "fingerpost"
	k := clientcmdapi.NewConfig()
	k.Clusters[name] = &clientcmdapi.Cluster{Server: "https://" + net.JoinHostPort(host, port), CertificateAuthorityData: pki.CACert}
	k.AuthInfos["fingerpost-admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: pki.Admin.Cert, ClientKeyData: pki.Admin.Key}
	k.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: "fingerpost-admin", Namespace: "default"}
	k.CurrentContext = name
	data, err := clientcmd.Write(*k)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write the administrator's kubeconfig: %w", err)
	}
	return os.Rename(tmp, path)
}
