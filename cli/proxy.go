package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/proxy"
)

type proxyFlags struct {
	address       string
	port          int
	unixSocket    string
	acceptHosts   string
	acceptPaths   string
	rejectPaths   string
	rejectMethods string
	disableFilter bool
	apiPrefix     string
	www           string
	wwwPrefix     string
	keepAlive     time.Duration
}

func (a *App) proxyCmd() *cobra.Command {
	var f proxyFlags
	c := &cobra.Command{
		Use:   "proxy",
		Short: "Serve the API on a local port, with your credentials, as kubectl proxy does",
		Long: `Serve the API on a local port: what comes in goes to the server with your
credentials, so that local programs need none. Requests with another Host header
than --accept-hosts get 403, which keeps web pages from reaching the API through
the browser of this machine.

The flags are those of kubectl proxy.`,
		Example: `  fingerpost proxy --port 8001
  fingerpost proxy --address 0.0.0.0 --accept-hosts '^.*$'   # anybody who gets here has your rights
  fingerpost proxy --unix-socket /tmp/api.sock`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("port") && f.unixSocket != "" {
				return exitWith(ExitUsage, "--unix-socket and --port exclude each other")
			}
			conn, err := a.restConfig()
			if err != nil {
				return err
			}
			return a.proxy(cmd.Context(), &f, conn)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.address, "address", "127.0.0.1", "IP address to serve on")
	fl.IntVarP(&f.port, "port", "p", 8001, "port to serve on; 0 takes a free one")
	fl.StringVarP(&f.unixSocket, "unix-socket", "u", "", "unix socket to serve on instead")
	fl.StringVar(&f.acceptHosts, "accept-hosts", proxy.DefaultHostAcceptRE, "regular expressions of the hosts to accept, comma separated")
	fl.StringVar(&f.acceptPaths, "accept-paths", proxy.DefaultPathAcceptRE, "regular expressions of the paths to accept, comma separated")
	fl.StringVar(&f.rejectPaths, "reject-paths", proxy.DefaultPathRejectRE, "regular expressions of the paths to reject even if accepted, comma separated")
	fl.StringVar(&f.rejectMethods, "reject-methods", proxy.DefaultMethodRejectRE, "regular expressions of the methods to reject, comma separated")
	fl.BoolVar(&f.disableFilter, "disable-filter", false, "accept everything: dangerous on a port that others can reach")
	fl.StringVar(&f.apiPrefix, "api-prefix", "/", "path under which the API is served")
	fl.StringVarP(&f.www, "www", "w", "", "also serve the files of this directory")
	fl.StringVarP(&f.wwwPrefix, "www-prefix", "P", "/static/", "path under which the files are served")
	fl.DurationVar(&f.keepAlive, "keepalive", 0, "keep-alive period of connections to the server; 0: off")
	return c
}

// filter is kubectl's own, so that it lets through exactly the same requests.
func (f *proxyFlags) filter() (*proxy.FilterServer, error) {
	if f.disableFilter {
		return nil, nil
	}
	s := &proxy.FilterServer{}
	for _, l := range []struct {
		flag, value string
		to          *[]*regexp.Regexp
	}{
		{"accept-hosts", f.acceptHosts, &s.AcceptHosts}, {"accept-paths", f.acceptPaths, &s.AcceptPaths},
		{"reject-paths", f.rejectPaths, &s.RejectPaths}, {"reject-methods", f.rejectMethods, &s.RejectMethods},
	} {
		list, err := proxy.MakeRegexpArray(l.value)
		if err != nil {
			return nil, fmt.Errorf("--%s %q: %w", l.flag, l.value, err)
		}
		*l.to = list
	}
	return s, nil
}

func (a *App) proxy(ctx context.Context, f *proxyFlags, conn *rest.Config) error {
	filter, err := f.filter()
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	if f.www != "" {
		if st, err := os.Stat(f.www); err != nil || !st.IsDir() {
			return exitWith(ExitUsage, "--www %s: want a directory", f.www)
		}
	}
	if filter == nil && f.unixSocket == "" {
		fmt.Fprintln(a.Err, "The filter is off: any web page open on a machine that reaches this port can use the API with your rights.")
	}
	s, err := proxy.NewServer(f.www, slashed(f.apiPrefix), slashed(f.wwwPrefix), filter, conn, f.keepAlive, false)
	if err != nil {
		return exitWith(ExitUsage, "proxy to %s: %w", conn.Host, err)
	}
	var l net.Listener
	if f.unixSocket != "" {
		l, err = s.ListenUnix(f.unixSocket)
	} else {
		l, err = net.Listen("tcp", net.JoinHostPort(f.address, fmt.Sprint(f.port)))
	}
	if err != nil {
		return exitWith(ExitError, "proxy: %w\nChoose another with --port or --address.", err)
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if _, err := fmt.Fprintf(a.Out, "Starting to serve on %s\n", l.Addr()); err != nil {
		return err
	}
	err = s.ServeOnListener(l)
	if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func slashed(prefix string) string { return strings.TrimSuffix(prefix, "/") + "/" }
