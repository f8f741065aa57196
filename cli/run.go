package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/door/process"
	"github.com/fingerpost/fingerpost/door/process/claim"
	"github.com/fingerpost/fingerpost/internal/observe"
)

// runFlags are the flags of run as they are typed.
type runFlags struct {
	name        string
	ports       []string
	servicePort int32
	ready       checkFlags
	live        checkFlags
	replicas    int
	restart     string
	stopTimeout time.Duration
	drain       time.Duration
	ttl         time.Duration
	dir         string
	env         []string
	noEnv       bool
	logLevel    string
	place       placeFlags
}

// placeFlags say where an instance is and how much it takes.
type placeFlags struct {
	address  string
	node     string
	zone     string
	hostname string
	weight   int32
	meta     map[string]string
}

// checkFlags are those of one check.
type checkFlags struct {
	check    string
	interval time.Duration
	timeout  time.Duration
	rise     int
	fall     int
}

func (a *App) runCmd() *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run --name NAME --port PORT [flags] -- COMMAND [ARG...]",
		Short: "Run a process, keep it running, and register it while it is well",
		Long: `Run a process as an endpoint of a service, which is created when it does not
exist. The process is registered, checked, started again when it ends, and
drained and deregistered before it is stopped (Ctrl-C; once more to be abrupt).

Ports: --port 8080, or --port http=8080 --port admin=9090. A port 0 is a free
one, which the process is told in $PORT (the first) and $PORT_NAME; in the
command itself, {port} and {port.NAME} are replaced (and $PORT, where the shell
has not done so). Replicas need port 0. The service has the same ports; to
clients the first one can be another (--service-port 80), as only root may
listen on small numbers.

Checks: http:/path, http:PORT/path, https:..., tcp, tcp:PORT, grpc,
grpc:SERVICE, exec:COMMAND LINE, none. The ready check decides whether traffic
goes to the process; it is tcp on the first TCP port if not given. The live
check restarts it.

The address that is registered is 127.0.0.1 when the API server is on this
machine only, else the one from which this machine reaches the API server; the
process must listen there, or on all addresses.

Exit code: that of the process with --restart=never (or on-failure and it ended
well: 0), 128 + n if signal n killed it; 0 when stopped.`,
		Example: `  fingerpost run --name web --port 8080 -- ./web -listen :8080
  fingerpost run --name web --port 0 --replicas 3 --service-port 80 \
      --ready http:/healthz -- ./web -listen 127.0.0.1:{port}
  fingerpost run --name db --port 5432 --ready 'exec:pg_isready' --restart on-failure -- postgres -D data`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd.Context(), &f, args) },
	}
	fl := c.Flags()
	fl.SetInterspersed(false) // what follows the command is the command's
	fl.StringVar(&f.name, "name", "", "name of the service")
	fl.StringArrayVar(&f.ports, "port", nil, "port the process listens on: [NAME=]NUMBER[/udp]; 0 takes a free one; may be repeated")
	fl.Int32Var(&f.servicePort, "service-port", 0, "first port of the service, if it is to differ (default the process's; 8080 for a free one)")
	fl.IntVar(&f.replicas, "replicas", 1, "how many of it to run")
	f.ready.add(c, "ready", "decides whether it gets traffic (default tcp, if it has a TCP port)", 2)
	f.live.add(c, "live", "restarts it (default none)", 3)
	fl.StringVar(&f.restart, "restart", "always", "when it ends by itself: always, on-failure or never start it again")
	fl.DurationVar(&f.stopTimeout, "stop-timeout", 10*time.Second, "time between SIGTERM and SIGKILL")
	fl.DurationVar(&f.drain, "drain", 700*time.Millisecond, "time for clients to go elsewhere before SIGTERM")
	fl.DurationVar(&f.ttl, "ttl", 15*time.Second, "time after which the endpoint is taken out when this program dies; it renews three times as often")
	fl.StringVar(&f.dir, "dir", "", "working directory of the process")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "KEY=VALUE for the process; may be repeated")
	fl.BoolVar(&f.noEnv, "no-service-env", false, "do not give it the variables of the services (WEB_SERVICE_HOST ...)")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	f.place.add(c)
	_ = c.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"always", "on-failure", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// usage gives errors in the arguments their exit code.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return exitWith(ExitUsage, "%w\nSee '%s --help'.", err, c.CommandPath())
		}
		return nil
	}
}

func (f *checkFlags) add(c *cobra.Command, name, what string, fall int) {
	fl := c.Flags()
	fl.StringVar(&f.check, name, "", "check that "+what)
	fl.DurationVar(&f.interval, name+"-interval", time.Second, "time between two "+name+" checks")
	fl.DurationVar(&f.timeout, name+"-timeout", time.Second, "time a "+name+" check may take")
	fl.IntVar(&f.rise, name+"-rise", 1, "successes in a row to pass the "+name+" check")
	fl.IntVar(&f.fall, name+"-fall", fall, "failures in a row to fail the "+name+" check")
}

func (f *checkFlags) parse() (process.Check, error) {
	if f.check == "" {
		return process.Check{}, nil
	}
	c, err := process.ParseCheck(f.check)
	c.Interval, c.Timeout, c.Rise, c.Fall = f.interval, f.timeout, f.rise, f.fall
	return c, err
}

func (f *placeFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.address, "address", "", "IP address at which clients reach it")
	fl.StringVar(&f.node, "node", "", "name of the machine it is on (default this one's host name for run and for loopback addresses)")
	fl.StringVar(&f.zone, "zone", "", "zone it is in")
	fl.StringVar(&f.hostname, "hostname", "", "its DNS host name in a headless service; {n} is the replica's number")
	fl.Int32Var(&f.weight, "weight", 100, "its share of the traffic; 0 takes no new traffic")
	fl.StringToStringVar(&f.meta, "meta", nil, "KEY=VALUE metadata; may be repeated")
}

// config turns what was typed into what the supervisor takes.
func (f *runFlags) config(command []string) (process.Config, error) {
	cfg := process.Config{
		Service: f.name, Command: command, Dir: f.dir, Replicas: f.replicas, ServicePort: f.servicePort,
		Restart: process.Restart(f.restart), StopTimeout: f.stopTimeout, DrainDelay: f.drain, TTL: f.ttl,
		NodeName: f.place.node, Zone: f.place.zone, Metadata: f.place.meta, Hostname: f.place.hostname, Weight: &f.place.weight,
	}
	if f.drain == 0 {
		cfg.DrainDelay = -1 // zero would mean the default
	}
	switch {
	case f.name == "":
		return cfg, errors.New("--name is missing: the service that the process belongs to")
	case len(f.ports) == 0:
		return cfg, errors.New("--port is missing: the port that the process listens on; 0 for a free one")
	case len(command) == 0:
		return cfg, errors.New("no command to run: put it after --")
	}
	for _, e := range f.env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" {
			return cfg, fmt.Errorf("--env %q: want KEY=VALUE", e)
		}
	}
	cfg.Env = append(os.Environ(), f.env...)
	tcp := false
	for _, s := range f.ports {
		p, err := process.ParsePort(s)
		if err != nil {
			return cfg, fmt.Errorf("--port: %w", err)
		}
		tcp = tcp || p.Protocol == corev1.ProtocolTCP
		cfg.Ports = append(cfg.Ports, p)
	}
	if f.ready.check == "" && tcp {
		f.ready.check = "tcp" // until it listens, calls would fail
	}
	var err error
	if cfg.Ready, err = f.ready.parse(); err != nil {
		return cfg, fmt.Errorf("--ready: %w", err)
	}
	if cfg.Live, err = f.live.parse(); err != nil {
		return cfg, fmt.Errorf("--live: %w", err)
	}
	if f.place.address != "" {
		if cfg.Address, err = parseAddress(f.place.address); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

func parseAddress(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("--address %q: want the IP address at which clients reach it", s)
	}
	return ip.Unmap(), nil
}

func (a *App) run(ctx context.Context, f *runFlags, command []string) error {
	cfg, err := f.config(command)
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	if cfg.Log, err = observe.Logger(a.Err, "text", f.logLevel); err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	conn, err := a.restConfig()
	if err != nil {
		return err
	}
	if cfg.Client, err = instances(conn); err != nil {
		return err
	}
	if !cfg.Address.IsValid() {
		if cfg.Address, err = process.LocalAddress(ctx, conn.Host); err != nil {
			return exitWith(ExitUsage, "%w", err)
		}
	}
	cfg.Namespace, cfg.Stdout, cfg.Stderr = a.ns(), a.Out, a.Err
	if !f.noEnv {
		vars, err := newServiceEnv(conn, cfg.Namespace, cfg.Log)
		if err != nil {
			return err
		}
		cfg.ServiceEnv = vars.get
	}
	s, err := process.New(cfg)
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	// A closed terminal is a reason to stop like any other.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	over := make(chan struct{})
	defer close(over)
	go hurry(ctx, over, s)
	var end *process.ExitError
	if err = s.Run(ctx); errors.As(err, &end) {
		return exitWith(end.Code, "%s", end.How)
	}
	return err
}

// hurry makes a second interrupt an abrupt stop.
func hurry(ctx context.Context, over <-chan struct{}, s *process.Supervisor) {
	select {
	case <-ctx.Done():
	case <-over:
		return
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case <-again:
		s.Kill()
	case <-over:
	}
}

// instances is the client of Instances for registrants: without a rate limit,
// as a heartbeat that queues is late.
func instances(conn *rest.Config) (claim.Client, error) {
	c, err := instanceClient(conn)
	if err != nil {
		return nil, err
	}
	return claim.On(c), nil
}

func instanceClient(conn *rest.Config) (*client.Client, error) {
	conn = rest.CopyConfig(conn)
	conn.QPS = -1
	c, err := client.New(conn)
	if err != nil {
		return nil, exitWith(ExitError, "%w", err)
	}
	return c, nil
}

// instanceRef names one registered endpoint, "web 10.0.0.1:80", for people.
func instanceRef(in *v1alpha1.Instance) string {
	if len(in.Spec.Ports) == 0 {
		return in.Spec.Service + " " + in.Spec.Address
	}
	at := in.Spec.Address
	if ip, err := netip.ParseAddr(at); err == nil {
		at = netip.AddrPortFrom(ip, uint16(in.Spec.Ports[0].Port)).String()
	}
	return in.Spec.Service + " " + at
}
