package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/door/kube"
	"github.com/fingerpost/fingerpost/view/vip/nftables"
)

// ProxyNodeConfig is that of a service proxy alone, in the place of kube-proxy.
type ProxyNodeConfig struct {
	Config
	// NodePortRanges are where node ports answer: ranges of addresses, or
	// "primary" for those of the Node object. Empty: primary where there is
	// such an object, else all addresses.
	NodePortRanges []string
	// Healthz is the address of /healthz and /livez; "": none.
	Healthz string
}

// taintGoing is set on nodes that the cluster autoscaler is about to remove.
const taintGoing = "ToBeDeletedByClusterAutoscaler"

// ProxyNode composes the service proxy alone, following the API server of
// c.Rest, with the metrics and health checks of kube-proxy.
func ProxyNode(ctx context.Context, pc ProxyNodeConfig) (*System, error) {
	c := &pc.Config
	c.Proxy, c.ProxyAlone = true, true
	s := newSystem(c.Log)
	s.eager = true
	err := s.addProxyNode(ctx, &pc)
	return s.finish(&Config{Registry: c.Registry, Log: c.Log}, err)
}

func (s *System) addProxyNode(ctx context.Context, pc *ProxyNodeConfig) error {
	c := &pc.Config
	client, err := kubernetes.NewForConfig(c.Rest)
	if err != nil {
		return err
	}
	node, err := findNode(ctx, client, c)
	if err != nil {
		return err
	}
	if node != nil && c.NodeZone == "" {
		c.NodeZone = node.Labels[corev1.LabelTopologyZone]
	}
	if c.NodeAddrs, err = pc.nodeAddresses(node); err != nil {
		return err
	}
	cat := catalog.New(nil)
	s.catalog = cat
	if _, err := s.keep(c, cat); err != nil {
		return err
	}
	mode, err := c.chooseProxy(ctx)
	if err != nil {
		return err
	}
	if err := s.settle(c, mode); err != nil {
		return err
	}
	d, err := s.proxy(ctx, c, mode)
	if err != nil {
		return err
	}
	h := d.(*handover)
	clean := h.clean
	h.clean = func() {
		if clean(); mode.kernel { // we stand in for kube-proxy, which may have left its table
			if err := nftables.Cleanup(nftables.Config{Table: kubeProxyTable}); err != nil {
				c.Log.Debug("kube-proxy's nftables tables", "error", err)
			}
		}
	}
	watch := newNodeWatch(client, c.NodeName, node)
	w := newWatched(h, c.families(), watch.eligible, c.Registry)
	s.add("virtual IPs", d.Run, nil)
	s.add("refused changes", w.again, nil)
	f := follow("virtual IPs", cat, w, c)
	s.add(f.name, f.run, nil)
	s.add("node", watch.run, nil)
	for _, e := range []struct {
		what, at string
		mux      *http.ServeMux
	}{{"health checks", pc.Healthz, healthMux(w)}, {"metrics", c.Metrics, s.proxyMux(c, w, mode.name)}} {
		if e.at == "" {
			continue
		}
		l, err := net.Listen("tcp", e.at)
		if err != nil {
			return fmt.Errorf("listen for %s on %s: %w; is kube-proxy still running here?", e.what, e.at, err)
		}
		srv := &http.Server{Handler: e.mux, ReadHeaderTimeout: 5 * time.Second}
		s.onClose(func() { _ = l.Close() })
		s.add(e.what, func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}, nil)
	}
	door, err := kube.New(kube.Config{Rest: c.Rest, Catalog: cat, Log: c.Log, Registerer: c.Registry, ClientName: "fingerpost-proxy"})
	if err != nil {
		return err
	}
	s.add("door kube", door.Run, door.Synced())
	return nil
}

// kubeProxyTable is the nftables table of kube-proxy.
const kubeProxyTable = "kube-proxy"

func healthMux(w *watched) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", w.serve(w.healthz, true))
	mux.HandleFunc("/livez", w.serve(w.livez, false))
	return mux
}

func (s *System) proxyMux(c *Config, w *watched, mode string) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/proxyMode", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(rw, mode)
	})
	mux.HandleFunc("/healthz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "ok") })
	mux.HandleFunc("/livez", w.serve(w.livez, false))
	mux.HandleFunc("/readyz", func(rw http.ResponseWriter, _ *http.Request) {
		note, err := s.isReady()
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(rw, "ok\n"+note)
	})
	for pattern, h := range s.shown {
		mux.Handle(pattern, h)
	}
	if c.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	}
	return mux
}

// families are those of the services.
func (c *Config) families() (out []string) {
	for _, p := range c.ServiceCIDRs {
		f := "IPv4"
		if p.Addr().Is6() {
			f = "IPv6"
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		out = []string{"IPv4"}
	}
	return out
}

// findNode reads the Node object; nil where there is none, or where the server
// does not answer: the proxy starts without it.
func findNode(ctx context.Context, client kubernetes.Interface, c *Config) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, rangesPatience)
	defer cancel()
	node, err := client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{})
	switch {
	case err == nil:
		return node, nil
	case apierrors.IsNotFound(err):
		c.Log.Warn("the cluster has no node of this name; give --node-name", "node", c.NodeName)
	case apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("the server does not accept the kubeconfig: %w", err)
	default:
		c.Log.Warn("the node could not be read: its zone and addresses are not known", "node", c.NodeName, "error", err)
	}
	return nil, nil
}

// nodeAddresses finds where node ports answer; none for all addresses.
func (pc *ProxyNodeConfig) nodeAddresses(node *corev1.Node) ([]netip.Addr, error) {
	if len(pc.NodePortRanges) == 0 || slices.Equal(pc.NodePortRanges, []string{"primary"}) {
		return primaryAddresses(node), nil
	}
	var ranges []netip.Prefix
	for _, s := range pc.NodePortRanges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--nodeport-addresses %q: want a range such as 192.0.2.0/24, or primary", s)
		}
		if p.Bits() == 0 {
			return nil, nil
		}
		ranges = append(ranges, p)
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of this machine: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, _ := netip.AddrFromSlice(n.IP)
		addr = addr.Unmap()
		if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("--nodeport-addresses %v: this machine has no address there", ranges)
	}
	return out, nil
}

// primaryAddresses are the first of each family of the Node object.
func primaryAddresses(node *corev1.Node) (out []netip.Addr) {
	if node == nil {
		return nil
	}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range node.Status.Addresses {
			addr, err := netip.ParseAddr(a.Address)
			if a.Type == kind && err == nil && !slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is4() == addr.Is4() }) {
				out = append(out, addr)
			}
		}
	}
	return out
}

// nodeWatch knows whether the node is to be removed.
type nodeWatch struct {
	client kubernetes.Interface
	name   string
	going  atomic.Bool
}

func newNodeWatch(client kubernetes.Interface, name string, node *corev1.Node) *nodeWatch {
	w := &nodeWatch{client: client, name: name}
	if node != nil {
		w.see(node)
	}
	return w
}

func (w *nodeWatch) eligible() bool { return !w.going.Load() }

func (w *nodeWatch) see(n *corev1.Node) {
	w.going.Store(n.DeletionTimestamp != nil || slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintGoing }))
}

func (w *nodeWatch) run(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(w.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", w.name).String()
	}))
	see := func(o any) {
		if n, ok := o.(*corev1.Node); ok {
			w.see(n)
		}
	}
	if _, err := f.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: see, UpdateFunc: func(_, n any) { see(n) }, DeleteFunc: func(any) { w.going.Store(true) },
	}); err != nil {
		return err
	}
	f.Start(ctx.Done())
	<-ctx.Done()
	f.Shutdown()
	return nil
}

// CleanupProxy removes the rules of every mode, and those of kube-proxy's
// nftables mode.
func CleanupProxy(c Config) error {
	if err := c.Default(); err != nil {
		return err
	}
	var errs []error
	for _, m := range proxyModes(&c) {
		if m.cleanup != nil && m.probe() == nil {
			errs = append(errs, m.cleanup())
		}
	}
	if nftables.Probe(nftables.Config{}) == nil {
		errs = append(errs, nftables.Cleanup(nftables.Config{Table: kubeProxyTable}))
	}
	return errors.Join(errs...)
}
