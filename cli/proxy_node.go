package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/fingerpost/fingerpost/internal/observe"
	"github.com/fingerpost/fingerpost/server"
)

func (a *App) proxyNodeCmd() *cobra.Command {
	var c server.ProxyNodeConfig
	var pods, services []string
	var logLevel, logFormat string
	var cleanup bool
	cmd := &cobra.Command{
		Use:   "proxy-node",
		Short: "Run only virtual IPs on this machine, in the place of kube-proxy",
		Long: `Run only virtual IPs on this machine, following any Kubernetes API server, in the
place of kube-proxy: the same behaviour, metric names (on --metrics-bind-address,
with /proxyMode) and health checks (/healthz and /livez on
--healthz-bind-address). Services that name another proxy in the label
service.kubernetes.io/service-proxy-name are left to it.

Stop kube-proxy first. Its rules serve until ours do, and are then removed; no
connection is lost. Rules stay when this process stops, and the next one takes
them over; 'fingerpost proxy-node --cleanup' removes them.`,
		Example: `  fingerpost proxy-node --kubeconfig /var/lib/kube-proxy/kubeconfig.conf --cluster-cidr 10.244.0.0/16`,
		Args:    usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := observe.Logger(a.Err, logFormat, logLevel)
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			c.Log = log
			klog.SetSlogLogger(observe.Chatty(log))
			slog.SetDefault(log)
			if c.ServiceCIDRs, err = prefixes("--service-cidr", services); err == nil {
				c.Pods.CIDRs, err = prefixes("--cluster-cidr", pods)
			}
			if err == nil {
				err = checkVIP(&c.Config)
			}
			if err == nil {
				err = checkServe(&c.Config)
			}
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			if cleanup {
				return server.CleanupProxy(c.Config)
			}
			if c.Rest, err = a.restConfig(); err != nil {
				return err
			}
			c.Registry = prometheus.NewRegistry()
			c.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			if err := c.Default(); err != nil {
				return err
			}
			return serve(cmd.Context(), c.Config, func(ctx context.Context, cfg server.Config) (*server.System, error) {
				c.Config = cfg
				return server.ProxyNode(ctx, c)
			}, func(d time.Duration) {
				fmt.Fprintf(a.Err, "fingerpost proxy-node is ready after %.1f s, following %s\n", d.Seconds(), c.Rest.Host)
			})
		},
	}
	f := cmd.Flags()
	addVIPFlags(f, &c.Config)
	f.StringVar(&c.NodeName, "node-name", "", "name of this machine's Node object (default the host name)")
	f.StringVar(&c.NodeZone, "zone", "", "zone of this machine (default that of the Node object)")
	f.StringSliceVar(&pods, "cluster-cidr", nil, "range of the pods; what comes from elsewhere to a ClusterIP is masqueraded")
	f.StringSliceVar(&services, "service-cidr", nil, "range of the ClusterIPs (default those of the server)")
	f.StringSliceVar(&c.NodePortRanges, "nodeport-addresses", nil, "ranges of the addresses at which node ports answer, or primary (default primary)")
	f.StringVar(&c.Healthz, "healthz-bind-address", "0.0.0.0:10256", "address of /healthz and /livez (\"\" for none)")
	f.StringVar(&c.Metrics, "metrics-bind-address", "127.0.0.1:10249", "address of /metrics, /proxyMode and /readyz (\"\" for none)")
	f.StringVar(&c.StateDir, "state-dir", "", "directory of the last state, for a start without the server (\"\" for none)")
	f.BoolVar(&c.Profiling, "profiling", false, "serve /debug/pprof on --metrics-bind-address")
	f.BoolVar(&cleanup, "cleanup", false, "remove the rules of every mode, and kube-proxy's, and exit")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "hostname-override" { // kube-proxy's word
			name = "node-name"
		}
		return pflag.NormalizedName(name)
	})
	return cmd
}

func prefixes(flag string, from []string) (out []netip.Prefix, err error) {
	for _, s := range from {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s %q: want a range such as 10.96.0.0/16", flag, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
