//go:build linux

// Command nodebench measures a node that runs pods: how soon they are ready,
// what many of them cost, and how soon a change of readiness is everywhere. It
// makes a machine of its own for that (namespaces of network, mounts and
// processes), so it needs root and touches nothing else. The node is a process
// of its own that joined; what it costs does not have the server in it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// insideFlag marks the process that is on the machine.
const insideFlag = "-inside"

type bench struct {
	fingerpost string
	dir        string
	pods       int
	starts     int
	flips      int
	rest       time.Duration
	only       string
	profiles   string
	inside     bool

	node   *process
	server *process
	table  [][4]string
}

func main() {
	var b bench
	flag.StringVar(&b.fingerpost, "fingerpost", "bin/fingerpost", "the binary")
	flag.IntVar(&b.pods, "pods", 200, "pods on the node, at most 240")
	flag.IntVar(&b.starts, "starts", 100, "pods to time")
	flag.IntVar(&b.flips, "flips", 200, "changes of readiness to time")
	flag.DurationVar(&b.rest, "rest", 20*time.Second, "how long to watch the node at rest")
	flag.StringVar(&b.only, "only", "", "one part: start, many or changes")
	flag.StringVar(&b.profiles, "pprof", "", "directory for profiles of a full node's CPU and heap; they cost some CPU themselves")
	flag.BoolVar(&b.inside, insideFlag[1:], false, "used by nodebench itself")
	flag.StringVar(&b.dir, "dir", "", "used by nodebench itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := b.outside
	if b.inside {
		f = b.run
	}
	if err := f(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "nodebench:", err)
		stop()
		os.Exit(1)
	}
}

// outside starts this program again as the first process of a machine: when it
// ends, everything there does.
func (b *bench) outside(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("machines are made by root only")
	}
	dir, err := os.MkdirTemp("", "nodebench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary, err := filepath.Abs(b.fingerpost)
	if err != nil {
		return err
	}
	args := append(slices.Clone(os.Args[1:]), insideFlag, "-dir", dir, "-fingerpost", binary)
	if b.profiles != "" {
		if err := os.MkdirAll(b.profiles, 0o755); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setpgid:    true, // an interrupt is passed on once
	}
	return cmd.Run()
}

// run measures, on the machine.
func (b *bench) run(ctx context.Context) error {
	if err := settle(b.dir); err != nil {
		return err
	}
	c, err := b.start(ctx)
	if err != nil {
		return err
	}
	known := false
	for _, part := range []struct {
		name string
		run  func(context.Context, *cluster) error
	}{{"start", b.starting}, {"many", b.many}, {"changes", b.changes}} {
		if b.only != "" && b.only != part.name {
			continue
		}
		known = true
		if err := part.run(ctx, c); err != nil {
			return errors.Join(err, b.server.died(), b.node.died())
		}
	}
	if !known {
		return fmt.Errorf("there is no part %q: use start, many or changes", b.only)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| what\t| measured\t| target\t| met\t|\n| ---\t| ---:\t| ---:\t| ---\t|")
	for _, r := range b.table {
		fmt.Fprintf(w, "| %s\t| %s\t| %s\t| %s\t|\n", r[0], r[1], r[2], r[3])
	}
	return w.Flush()
}

// say adds a row. The target is an upper bound; 0: there is none.
func (b *bench) say(what string, value float64, unit string, target float64) {
	row := [4]string{what, fmt.Sprintf("%.3g %s", value, unit)}
	if value >= 100 {
		row[1] = fmt.Sprintf("%.0f %s", value, unit)
	}
	if target > 0 {
		row[2], row[3] = fmt.Sprintf("≤ %g %s", target, unit), "yes"
		if value > target {
			row[3] = "**no**"
		}
	}
	b.table = append(b.table, row)
	fmt.Fprintf(os.Stderr, "%s: %s\n", row[0], row[1])
}

// times adds rows for the median and the 99th percentile.
func (b *bench) times(what string, all []time.Duration, p50, p99 float64) {
	slices.Sort(all)
	at := func(q float64) float64 { return all[min(int(q*float64(len(all))), len(all)-1)].Seconds() * 1000 }
	b.say(what+": p50", at(0.5), "ms", p50)
	b.say(what+": p99", at(0.99), "ms", p99)
}
