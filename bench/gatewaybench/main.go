//go:build linux

// Command gatewaybench measures the gateway beside Debian's nginx and haproxy:
// the proxy on one core, the load and the endpoints on the other. It needs
// nginx, haproxy, wrk, h2load and taskset.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	span        time.Duration
	rounds      int
	only        string
	idleConns   int
	settle      time.Duration
	routes      int
	downloadMiB int
	churnSpan   time.Duration
	profileDir  string
	bare        bool
	verbose     bool

	dir     string
	places  int
	peers   []peer
	backend string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch arg := os.Args[min(1, len(os.Args)-1)]; arg {
	case "backend":
		stop() // it ends with the signal
		err = runBackend(os.Args[2:])
	case "serve":
		err = runServe(ctx, os.Args[2:])
	default:
		err = run(ctx, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatewaybench:", err)
		stop()
		os.Exit(1)
	}
}

// pinned is set in the environment of the process that is on the load's core.
const pinned = "GATEWAYBENCH_PINNED"

func run(ctx context.Context, args []string) error {
	if os.Getenv(pinned) == "" {
		return pin(ctx, args)
	}
	b := &bench{}
	f := flag.NewFlagSet("gatewaybench", flag.ExitOnError)
	quick := f.Bool("quick", false, "shorter and once, for a first look")
	out := f.String("json", "", "also write the rows to this file")
	names := f.String("peers", "fingerpost,nginx,haproxy", "proxies to measure")
	f.DurationVar(&b.span, "span", 4*time.Second, "time of one measurement")
	f.IntVar(&b.rounds, "rounds", 3, "measurements of each load; the median counts")
	f.StringVar(&b.only, "only", "", "cases whose name has one of these in it, separated by |; churn is one")
	f.IntVar(&b.idleConns, "idle", 10000, "idle connections")
	f.IntVar(&b.routes, "routes", 10000, "hosts in the large routing table")
	f.DurationVar(&b.churnSpan, "churn", time.Minute, "time of the changes under load; 0: none")
	f.StringVar(&b.profileDir, "pprof", "", "write CPU profiles of fingerpost's gateway to this directory")
	f.BoolVar(&b.bare, "bare", false, "nginx and haproxy do not tell endpoints about the client (X-Forwarded-For and the like), other than ours")
	f.BoolVar(&b.verbose, "v", false, "say each measurement on stderr")
	if err := f.Parse(args); err != nil {
		return err
	}
	b.settle, b.downloadMiB = 5*time.Second, 1024
	if *quick {
		b.span, b.rounds, b.settle, b.churnSpan = 2*time.Second, 1, 2*time.Second, min(b.churnSpan, 10*time.Second)
	}
	for _, n := range strings.Split(*names, ",") {
		switch n {
		case ours:
			b.peers = append(b.peers, &own{log: map[bool]string{true: "debug", false: "warn"}[b.verbose]})
		case "nginx":
			b.peers = append(b.peers, &nginx{})
		case "haproxy":
			b.peers = append(b.peers, &haproxy{})
		default:
			return fmt.Errorf("-peers %s: there are fingerpost, nginx and haproxy", n)
		}
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	back, err := b.startBackend(ctx, b.backend)
	if err != nil {
		return err
	}
	defer back.stop()
	var rows []row
	for _, part := range []func(context.Context) ([]row, error){b.runLoads, b.runIdle, b.runRoutes, b.runChurn} {
		more, err := part(ctx)
		rows = append(rows, more...)
		if err != nil {
			_ = show(os.Stdout, rows, b.peers)
			return err
		}
	}
	if *out != "" {
		if err := writeJSON(*out, rows); err != nil {
			return err
		}
	}
	return show(os.Stdout, rows, b.peers)
}

// pin runs this program again on the load's core.
func pin(ctx context.Context, args []string) error {
	for _, tool := range []string{"taskset", "nginx", "haproxy", "wrk", "h2load"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: hack/deps.sh bench installs what is needed", tool)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", loadCore, self}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, append(os.Environ(), pinned+"=1")
	return cmd.Run()
}

func (b *bench) prepare(ctx context.Context) error {
	// Two files for each of 4,000 connections, one for each idle one, and some.
	need := uint64(max(8000, b.idleConns) + 2000)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	// Set here, it holds for the children, too.
	limit.Cur = limit.Max
	if limit.Max < need {
		limit = syscall.Rlimit{Cur: need, Max: need}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("open %d files: %w; raise ulimit -n, or lower -idle", need, err)
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "gatewaybench-"); err != nil {
		return err
	}
	for i := range certificates {
		if err := makeCertificate(pairFile(b.dir, i), i); err != nil {
			return err
		}
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	b.backend = ports[0]
	return ctx.Err()
}

func (b *bench) startBackend(ctx context.Context, addr string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := begin(b.dir, loadCore, "backend", nil, append([]string{self, "backend", "-listen", addr}, args...)...)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, addr)
}

// place gives a proxy that is about to start a directory and free ports.
func (b *bench) place(name string) (place, error) {
	b.places++
	at := place{bare: b.bare, dir: filepath.Join(b.dir, fmt.Sprintf("%s-%d", name, b.places))}
	if err := os.Mkdir(at.dir, 0o755); err != nil { //nolint:gosec // nginx's worker reads it as nobody
		return at, err
	}
	for i := range certificates {
		if err := os.Link(pairFile(b.dir, i), pairFile(at.dir, i)); err != nil {
			return at, err
		}
	}
	ports, err := freePorts(2)
	if err != nil {
		return at, err
	}
	at.http, at.https = ports[0], ports[1]
	return at, nil
}

func (b *bench) wanted(name string) bool {
	return b.only == "" || slices.ContainsFunc(strings.Split(b.only, "|"), func(s string) bool { return strings.Contains(name, s) })
}

func (b *bench) logf(format string, args ...any) {
	if b.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
