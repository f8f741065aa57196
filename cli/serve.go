package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"

	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/internal/observe"
	"github.com/fingerpost/fingerpost/server"
)

// serveFlags are the flags of dev, server and node as they are typed.
type serveFlags struct {
	cfg          server.Config
	serviceCIDRs []string
	nodePorts    string
	dnsAddresses []string
	noDNS        bool
	noProxy      bool
	nodeAddrs    []string
	dns          dnsFlags
	pods         podFlags
	join         joinFlags
	logLevel     string
	logFormat    string
}

func (f *serveFlags) common(fs *pflag.FlagSet, logLevel string) {
	fs.StringVar(&f.cfg.NodeName, "node-name", "", "name of this machine (default its host name)")
	fs.StringVar(&f.cfg.Metrics, "metrics-address", "127.0.0.1:9464", "address of /metrics, /healthz and /readyz (\"\" for none)")
	fs.BoolVar(&f.cfg.Profiling, "profiling", false, "serve /debug/pprof on --metrics-address")
	fs.StringVar(&f.logLevel, "log-level", logLevel, "debug, info, warn or error")
	fs.StringVar(&f.logFormat, "log-format", "text", "text or json")
}

func (f *serveFlags) server(fs *pflag.FlagSet) {
	fs.StringVar(&f.cfg.DataDir, "data-dir", DataDir(), "directory of the state, the certificates and admin.kubeconfig")
	fs.StringVar(&f.cfg.Listen, "listen", "127.0.0.1:6443", "address of the API")
	fs.StringVar(&f.cfg.Advertise, "advertise-address", "", "address at which others reach the API (default that of --listen)")
	fs.StringSliceVar(&f.cfg.CertNames, "cert-name", nil, "further name or address of the API's certificate")
	fs.StringSliceVar(&f.serviceCIDRs, "service-cidr", nil, "range of the ClusterIPs; one of each family for dual stack (default 10.96.0.0/16 as root, else 127.96.0.0/16)")
	fs.StringVar(&f.nodePorts, "node-port-range", "30000-32767", "range of the node ports")
	fs.StringSliceVar(&f.cfg.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an external etcd (default an embedded one in --data-dir)")
	fs.StringVar(&f.cfg.EtcdCA, "etcd-cafile", "", "CA of the external etcd, PEM")
	fs.StringVar(&f.cfg.EtcdCert, "etcd-certfile", "", "client certificate for the external etcd, PEM")
	fs.StringVar(&f.cfg.EtcdKey, "etcd-keyfile", "", "key of the client certificate, PEM")
	fs.BoolVar(&f.cfg.UnsafeNoSync, "unsafe-no-fsync", false, "do not sync the embedded etcd to disk: faster, and a power failure loses writes")
}

func (f *serveFlags) node(fs *pflag.FlagSet) {
	fs.StringVar(&f.cfg.NodeZone, "zone", "", "zone of this machine, as in the label topology.kubernetes.io/zone")
	fs.StringSliceVar(&f.dnsAddresses, "dns-address", []string{"127.0.0.1:8053"}, "address of the DNS server, UDP and TCP")
	fs.StringVar(&f.cfg.DNSZone, "cluster-domain", "cluster.local", "zone of the cluster's names")
	fs.StringSliceVar(&f.cfg.Upstreams, "dns-upstream", nil, "DNS server for all other names, ip[:port] or tls://ip[:port][#name] (default those of /etc/resolv.conf)")
	f.dns.add(fs, &f.cfg)
	fs.BoolVar(&f.noDNS, "no-dns", false, "no DNS server")
	fs.BoolVar(&f.noProxy, "no-proxy", false, "no virtual IPs")
	addVIPFlags(fs, &f.cfg)
	fs.StringSliceVar(&f.nodeAddrs, "node-address", []string{"127.0.0.1"}, "address of this machine on which node ports answer")
}

// complete turns what was typed into a configuration.
func (f *serveFlags) complete(a *App) (server.Config, error) {
	c := f.cfg
	log, err := observe.Logger(a.Err, f.logFormat, f.logLevel)
	if err != nil {
		return c, exitWith(ExitUsage, "%w", err)
	}
	c.Log = log
	klog.SetSlogLogger(observe.Chatty(log))
	slog.SetDefault(log)
	c.Registry = prometheus.NewRegistry()
	c.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, s := range f.serviceCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return c, exitWith(ExitUsage, "--service-cidr %q: want a range such as 10.96.0.0/16", s)
		}
		c.ServiceCIDRs = append(c.ServiceCIDRs, p)
	}
	for _, s := range f.nodeAddrs {
		p, err := netip.ParseAddr(s)
		if err != nil {
			return c, exitWith(ExitUsage, "--node-address %q: want an IP address", s)
		}
		c.NodeAddrs = append(c.NodeAddrs, p)
	}
	if f.nodePorts != "" {
		if c.NodePorts, err = portRange(f.nodePorts); err != nil {
			return c, exitWith(ExitUsage, "--node-port-range %q: %w", f.nodePorts, err)
		}
	}
	if !f.noDNS {
		c.DNSListen = f.dnsAddresses
	}
	c.Proxy = !f.noProxy
	if err := f.dns.complete(&c, a.Err); err != nil {
		return c, exitWith(ExitUsage, "%w", err)
	}
	if err := errors.Join(checkServe(&c), checkVIP(&c)); err != nil {
		return c, exitWith(ExitUsage, "%w", err)
	}
	return c, c.Default()
}

// checkServe finds what cannot mean anything before something is opened or
// written because of it.
func checkServe(c *server.Config) error {
	for _, f := range []struct {
		name  string
		addrs []string
	}{{"listen", []string{c.Listen}}, {"metrics-address", []string{c.Metrics}}, {"dns-address", c.DNSListen}, {"dns-tls-address", c.DNSTLS}, {"dns-https-address", c.DNSHTTPS}} {
		for _, a := range f.addrs {
			_, port, err := net.SplitHostPort(a)
			if _, perr := strconv.ParseUint(port, 10, 16); a != "" && (err != nil || perr != nil) {
				return fmt.Errorf("--%s %q: want an address with a port, such as 127.0.0.1:6443", f.name, a)
			}
		}
	}
	if a := c.Advertise; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			return fmt.Errorf("--advertise-address %q: want an IP address", a)
		}
	}
	if n := c.NodeName; n != "" {
		if e := validation.IsDNS1123Subdomain(n); len(e) > 0 {
			return fmt.Errorf("--node-name %q: %s", n, strings.Join(e, ", "))
		}
	}
	if (c.EtcdCert == "") != (c.EtcdKey == "") {
		return errors.New("--etcd-certfile and --etcd-keyfile must be given together")
	}
	if r := c.ServiceCIDRs; len(r) > 2 || len(r) == 2 && r[0].Addr().Is4() == r[1].Addr().Is4() {
		return fmt.Errorf("--service-cidr %s: want one range, or one of each family", joinPrefixes(r))
	}
	return nil
}

// privileged says whether routes can be added, so that any range of addresses
// can be made local.
func privileged() bool { return os.Geteuid() == 0 && kernel.CanAddRoutes() }

func portRange(s string) ([2]int, error) {
	lo, hi, ok := strings.Cut(s, "-")
	from, err1 := strconv.Atoi(lo)
	to, err2 := strconv.Atoi(hi)
	if !ok || err1 != nil || err2 != nil || from < 1 || to > 65535 || from > to {
		return [2]int{}, fmt.Errorf("want FIRST-LAST within 1-65535, such as 30000-32767")
	}
	return [2]int{from, to}, nil
}

// serve runs a composition until it is told to stop; up is called when
// everything is ready.
func serve(ctx context.Context, c server.Config, compose func(context.Context, server.Config) (*server.System, error), up func(time.Duration)) error {
	began := time.Now()
	s, err := compose(ctx, c)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-s.Ready():
			up(time.Since(began))
		case <-ctx.Done():
		}
	}()
	return s.Run(ctx)
}

func (a *App) devCmd() *cobra.Command {
	var f serveFlags
	var gw gatewayFlags
	var noGateway bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the whole system in this process: API, store, controllers, DNS, virtual IPs, gateway",
		Long: `Run the whole system in this process: the Kubernetes API on an embedded etcd,
the controllers, cluster DNS, virtual IPs and the gateway. Everything listens on
this machine only. The state is kept in --data-dir: stop it and start it again, and
nothing is lost.

Without root, ClusterIPs come from 127.96.0.0/16, which any process on Linux
may use; ports below 1024 need root, or
'sysctl net.ipv4.ip_unprivileged_port_start=80'.
With root they come from 10.96.0.0/16, made local by one route on lo.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.complete(a)
			if err != nil {
				return err
			}
			c.DefaultServer(privileged())
			if !cmd.Flags().Changed("state-dir") {
				c.StateDir = c.DataDir
			}
			if err := f.pods.complete(&c, c.DataDir, privileged()); err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			c.Pods.End, c.ProxyEnd = true, true
			if devGateway(&c.Gateway, cmd.Flags().Changed, privileged()); noGateway {
				c.Gateway.HTTP, c.Gateway.HTTPS = nil, nil
			}
			err = errors.Join(checkListen("gateway-http", c.Gateway.HTTP), checkListen("gateway-https", c.Gateway.HTTPS))
			if err == nil {
				err = gw.complete(a, &c.Gateway)
			}
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			return serve(cmd.Context(), c, server.Dev, func(d time.Duration) { a.welcome(c, d) })
		},
	}
	f.common(cmd.Flags(), "warn")
	f.server(cmd.Flags())
	f.node(cmd.Flags())
	f.pods.add(cmd.Flags())
	cmd.Flags().StringSliceVar(&f.cfg.Gateway.HTTP, "gateway-http", nil, "address of the gateway (default 127.0.0.1:80 as root, else 127.0.0.1:8080; another one if it is taken)")
	cmd.Flags().StringSliceVar(&f.cfg.Gateway.HTTPS, "gateway-https", nil, "its address for HTTPS (default 127.0.0.1:443 as root, else 127.0.0.1:8443; another one if it is taken)")
	cmd.Flags().BoolVar(&noGateway, "no-gateway", false, "no gateway")
	gw.add(cmd.Flags(), &f.cfg.Gateway, "gateway-")
	// Processes of this machine listen on 127.0.0.1, and pods are to reach them:
	// that is not for packets that are only translated.
	mode := cmd.Flags().Lookup("proxy-mode")
	mode.DefValue = server.ProxyUserspace
	f.cfg.ProxyMode = server.ProxyUserspace
	return cmd
}

// welcome says what runs where and what to try next.
func (a *App) welcome(c server.Config, took time.Duration) {
	dns := "off"
	if len(c.DNSListen) > 0 {
		dns = strings.Join(c.DNSListen, ", ")
	}
	pods, tryPods := "none (they need root)", ""
	if c.Pods.Enabled {
		pods = joinPrefixes(c.Pods.CIDRs)
		tryPods = `  fingerpost kubectl create deployment hello --image=nginx
  fingerpost kubectl expose deployment hello --port=80
  curl http://$(fingerpost resolve hello A -o name)/
`
	} else if privileged() {
		pods = "none (--no-pods)"
	}
	way := "off"
	if g := &c.Gateway; len(g.HTTP)+len(g.HTTPS) > 0 {
		var urls []string
		for _, x := range g.HTTP {
			urls = append(urls, "http://"+x)
		}
		for _, x := range g.HTTPS {
			urls = append(urls, "https://"+x)
		}
		way = strings.Join(urls, ", ")
	}
	host, port, _ := strings.Cut(firstOr(c.DNSListen, "127.0.0.1:8053"), ":")
	fmt.Fprintf(a.Out, `
Fingerpost is ready after %.1f s.

  API         https://%s   (kubeconfig: %s)
  DNS         %s, zone %s
  ClusterIPs  %s
  gateway     %s
  pods        %s
  state       %s

Try in another terminal:
%s
  fingerpost run --name web --port 0 --replicas 2 -- python3 -m http.server --bind 127.0.0.1 '$PORT'
  fingerpost get
  fingerpost resolve web
  fingerpost explain web
  dig @%s -p %s web.default.svc.%s
  fingerpost kubectl get services,endpointslices
  fingerpost watch
%s
Stop with Ctrl-C; nothing is lost.
`, took.Seconds(), c.Listen, adminKubeconfig(c.DataDir), dns, c.DNSZone, joinPrefixes(c.ServiceCIDRs), way, pods, c.DataDir, pathHint(), host, port, c.DNSZone, tryPods)
}

// pathHint says how to make "fingerpost" be this program, when it is not.
func pathHint() string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	if found, err := exec.LookPath("fingerpost"); err == nil && found == self {
		return ""
	}
	return "\n  export PATH=" + filepath.Dir(self) + ":$PATH"
}

func firstOr(s []string, otherwise string) string {
	if len(s) > 0 {
		return s[0]
	}
	return otherwise
}

func joinPrefixes(ps []netip.Prefix) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.String()
	}
	return strings.Join(s, ", ")
}

func (a *App) serverCmd() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the API, the store and the controllers; nodes run DNS and virtual IPs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.complete(a)
			if err != nil {
				return err
			}
			c.DefaultServer(privileged())
			return serve(cmd.Context(), c, server.Server, func(d time.Duration) {
				fmt.Fprintf(a.Err, "fingerpost server is ready after %.1f s on https://%s\n", d.Seconds(), c.Listen)
			})
		},
	}
	f.common(cmd.Flags(), "info")
	f.server(cmd.Flags())
	f.cfg.DNSZone = "cluster.local"
	return cmd
}

func (a *App) nodeCmd() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run DNS, virtual IPs and pods on this machine, following a server",
		Long: `Run DNS and virtual IPs on this machine, following the API server of the
kubeconfig: Fingerpost's, or that of any Kubernetes cluster.

With --server and --token, as 'fingerpost token create' prints them, the machine
becomes a node of that server: it gets credentials of its own, which it keeps in
--state-dir (the next start needs no flags), and runs the pods that are bound to
it. Pods need root. They go on when this process stops, and the next one takes
them over; 'fingerpost node reset' ends and removes them.

When the server is gone, names and virtual IPs go on answering from the last state, marked stale;
the last state is kept in --state-dir, so that this holds for a restart too.

On SIGTERM the node says at /readyz that it stops, goes on answering for
--dns-lameduck, and then stops. SIGHUP makes it read --config again; it does so
by itself when the file changes.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.complete(a)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("dns-lameduck") {
				c.Lameduck = nodeLameduck
			}
			if err := f.follow(cmd.Context(), a, &c); err != nil {
				return err
			}
			return serve(cmd.Context(), c, server.Node, func(d time.Duration) {
				fmt.Fprintf(a.Err, "fingerpost node is ready after %.1f s, following %s\n", d.Seconds(), c.Rest.Host)
			})
		},
	}
	f.common(cmd.Flags(), "info")
	f.node(cmd.Flags())
	f.join.add(cmd.Flags())
	f.pods.add(cmd.Flags())
	cmd.AddCommand(a.nodeResetCmd())
	cmd.Flags().StringSliceVar(&f.serviceCIDRs, "service-cidr", nil, "range of the ClusterIPs, made local on this machine (default that of the server)")
	return cmd
}
