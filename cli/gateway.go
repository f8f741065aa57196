package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/fingerpost/fingerpost/internal/observe"
	"github.com/fingerpost/fingerpost/server"
	accesslog "github.com/fingerpost/fingerpost/view/gateway/observe"
)

// gatewayFlags are the flags of the gateway as they are typed.
type gatewayFlags struct {
	prefix           string
	proxied, trusted []string
	accessLog        string
	accessFormat     string
	sample           uint64
}

func (f *gatewayFlags) add(fs *pflag.FlagSet, g *server.GatewayConfig, prefix string) {
	f.prefix = prefix
	fs.StringSliceVar(&f.proxied, prefix+"proxy-protocol-from", nil, "range of load balancers that begin connections with a PROXY protocol header")
	fs.StringSliceVar(&f.trusted, prefix+"trusted-proxies", nil, "range of proxies whose X-Forwarded-* fields are believed")
	fs.StringSliceVar(&g.Ingress.Classes, prefix+"class", []string{"nginx", "fingerpost"}, "ingress class that is this gateway's")
	fs.BoolVar(&g.Ingress.OnlyWithClass, prefix+"only-with-class", false, "leave Ingresses without a class to others")
	fs.StringVar(&g.Ingress.DefaultService, prefix+"default-backend", "", "NAMESPACE/NAME of the Service for what no rule matches, \"-\" for none (default kube-system/default-http-backend, where it exists)")
	fs.StringVar(&g.Ingress.DefaultCertificate, prefix+"default-certificate", "", "NAMESPACE/NAME of the Secret for hosts without a certificate (default a self-signed one)")
	fs.BoolVar(&g.Ingress.AllowExternalName, prefix+"allow-external-name", false, "let Ingresses lead to Services of type ExternalName: to any host that their owner names")
	fs.BoolVar(&g.Ingress.AllowCrossNamespace, prefix+"allow-cross-namespace", false, "let annotations name Secrets and ConfigMaps of other namespaces")
	fs.StringSliceVar(&g.Publish, prefix+"publish-address", nil, "address of the gateway for the status of Ingresses (default those it listens at)")
	fs.StringVar(&g.AffinityKey, prefix+"affinity-key", "", "file with the key of affinity cookies, the same for gateways that share clients (default one made in --state-dir)")
	fs.StringVar(&g.HSTS, prefix+"hsts", "", "value of Strict-Transport-Security in answers over https, such as max-age=31536000 (default none)")
	fs.StringVar(&f.accessLog, prefix+"access-log", "", "file of the access log, - for stdout (default none)")
	fs.StringVar(&f.accessFormat, prefix+"access-log-format", "combined", "combined (with what ingress-nginx adds), plain or json")
	fs.Uint64Var(&f.sample, prefix+"access-log-sample", 1, "log one of so many successful requests; failed ones are always logged")
	fs.DurationVar(&g.Timeouts.Drain, prefix+"drain", 30*time.Second, "time for requests under way when the gateway stops")
	fs.IntVar(&g.Limits.Connections, prefix+"max-connections", 65536, "connections of clients at a time")
	fs.BoolVar(&g.Trace, prefix+"trace", false, "give requests without one a traceparent (W3C)")
}

// complete reads what was typed. The log file is opened.
func (f *gatewayFlags) complete(a *App, g *server.GatewayConfig) (err error) {
	if g.Proxied, err = prefixes("--"+f.prefix+"proxy-protocol-from", f.proxied); err != nil {
		return err
	}
	if g.Trusted, err = prefixes("--"+f.prefix+"trusted-proxies", f.trusted); err != nil {
		return err
	}
	for _, x := range []struct{ flag, value string }{{"default-backend", g.Ingress.DefaultService}, {"default-certificate", g.Ingress.DefaultCertificate}} {
		if ns, name, ok := strings.Cut(x.value, "/"); x.value != "" && x.value != "-" && (!ok || ns == "" || name == "") {
			return fmt.Errorf("--%s%s %q: want NAMESPACE/NAME", f.prefix, x.flag, x.value)
		}
	}
	for _, p := range g.Publish {
		if p == "" || strings.ContainsAny(p, " :/") && !isIP(p) {
			return fmt.Errorf("--%spublish-address %q: want an IP address or a host name", f.prefix, p)
		}
	}
	switch {
	case g.Timeouts.Drain < 0:
		return fmt.Errorf("--%sdrain %s: want a time that is not negative", f.prefix, g.Timeouts.Drain)
	case g.Timeouts.Drain == 0: // which is the engine's word for the default
		g.Timeouts.Drain = time.Nanosecond
	}
	if g.Limits.Connections < 1 {
		return fmt.Errorf("--%smax-connections %d: want a number above 0", f.prefix, g.Limits.Connections)
	}
	if f.accessLog == "" {
		return nil
	}
	l := &accesslog.LogConfig{Sample: f.sample, Writer: a.Out}
	switch f.accessFormat {
	case "combined":
	case "plain":
		l.Format = accesslog.Plain
	case "json":
		l.Format = accesslog.JSON
	default:
		return fmt.Errorf("--%saccess-log-format %q: want combined, plain or json", f.prefix, f.accessFormat)
	}
	if f.accessLog != "-" {
		file, err := os.OpenFile(f.accessLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("--%saccess-log: %w", f.prefix, err)
		}
		l.Writer = file
	}
	g.AccessLog = l
	return nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func checkListen(flag string, addrs []string) error {
	for _, a := range addrs {
		host, port, err := net.SplitHostPort(a)
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host != "" && !isIP(host) {
			return fmt.Errorf("--%s %q: want an address with a port, such as 127.0.0.1:80 or :80", flag, a)
		}
	}
	return nil
}

// devGateway are the addresses of the gateway of dev: the well-known ports where
// that is allowed and nobody has them, else others.
func devGateway(g *server.GatewayConfig, changed func(string) bool, privileged bool) {
	ports, other := [2]string{"8080", "8443"}, [2]string{"18080", "18443"}
	if privileged {
		ports, other = [2]string{"80", "443"}, ports
	}
	g.Other = map[string]string{}
	for i, x := range []struct {
		flag string
		at   *[]string
	}{{"gateway-http", &g.HTTP}, {"gateway-https", &g.HTTPS}} {
		if !changed(x.flag) {
			*x.at = []string{"127.0.0.1:" + ports[i]}
			g.Other["127.0.0.1:"+ports[i]] = "127.0.0.1:" + other[i]
		}
	}
}

func (a *App) gatewayCmd() *cobra.Command {
	var c server.Config
	var f gatewayFlags
	var logLevel, logFormat string
	cmd := &cobra.Command{
		Use:   "gateway",
		Short: "Run the gateway on this machine: HTTP from outside, routed by Ingresses",
		Long: `Run the gateway on this machine, following the API server of a kubeconfig, which
may be that of any Kubernetes cluster: HTTP/1.1 and HTTP/2 from outside, with and
without TLS, routed by Ingress objects straight to live endpoints. Routes,
certificates and endpoints change without a reload.

Without the API server everything goes on as it was last. With --state-dir that
holds for a start too: 'gateway routes' and the metric
fingerpost_ingress_stale_seconds tell that the routes may be old.

On a server of our own, the ClusterRole fingerpost:gateway has the rights that it
needs.`,
		Example: `  fingerpost gateway --kubeconfig gateway.conf --http :80 --https :443 --publish-address 192.0.2.10
  fingerpost gateway routes
  fingerpost gateway explain http://shop.example.com/cart`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := observe.Logger(a.Err, logFormat, logLevel)
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			c.Log = log
			klog.SetSlogLogger(observe.Chatty(log))
			slog.SetDefault(log)
			if len(c.Gateway.HTTP)+len(c.Gateway.HTTPS) == 0 {
				err = errors.New("the gateway has no address to listen at: give --http or --https")
			}
			err = errors.Join(err, checkListen("http", c.Gateway.HTTP), checkListen("https", c.Gateway.HTTPS), checkServe(&c))
			if err == nil {
				err = f.complete(a, &c.Gateway)
			}
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			if c.Rest, err = a.restConfig(); err != nil {
				return err
			}
			c.Registry = prometheus.NewRegistry()
			c.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			if err := c.Default(); err != nil {
				return err
			}
			return serve(cmd.Context(), c, server.Gateway, func(d time.Duration) {
				fmt.Fprintf(a.Err, "fingerpost gateway is ready after %.1f s, on %s, following %s\n", d.Seconds(),
					strings.Join(append(c.Gateway.HTTP, c.Gateway.HTTPS...), ", "), c.Rest.Host)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&c.Gateway.HTTP, "http", []string{":80"}, "address for HTTP, and HTTP/2 without TLS")
	fs.StringSliceVar(&c.Gateway.HTTPS, "https", []string{":443"}, "address for HTTPS")
	fs.Uint16Var(&c.Gateway.HTTPSPort, "https-port", 0, "port to which clients are redirected (default that of --https)")
	f.add(fs, &c.Gateway, "")
	fs.StringVar(&c.NodeName, "node-name", "", "name of this machine's Node object (default the host name)")
	fs.StringVar(&c.NodeZone, "zone", "", "zone of this machine, to prefer near endpoints")
	fs.StringVar(&c.Metrics, "metrics-address", "127.0.0.1:9464", "address of /metrics, /healthz and /readyz, and of 'gateway routes|explain' (\"\" for none)")
	fs.StringVar(&c.StateDir, "state-dir", "", "directory of the last endpoints and routes, with the Secrets that they need, for a start without the server (\"\" for none)")
	fs.DurationVar(&c.Lameduck, "lameduck", 0, "time to go on after being told to stop, with /readyz saying so")
	fs.BoolVar(&c.Profiling, "profiling", false, "serve /debug/pprof on --metrics-address")
	fs.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	fs.StringVar(&logFormat, "log-format", "text", "text or json")
	cmd.AddCommand(a.gatewayRoutesCmd(), a.gatewayExplainCmd())
	return cmd
}
