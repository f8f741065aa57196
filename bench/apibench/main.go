// Command apibench measures Fingerpost beside kube-apiserver and etcd: starts,
// memory, writes, heartbeats, and how long a change takes to be seen. It starts
// and stops all servers itself, on the loopback, in a temporary directory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// beat is how often an instance sends its heartbeat.
const beat = 5 * time.Second

// bench is one run.
type bench struct {
	report
	fingerpost, apiserver, etcd string
	parts                       []string

	services, creates, clients int
	starts                     int
	rest                       time.Duration
	instances, changes         int
	span                       time.Duration
	profiles                   string

	dir string
}

func main() {
	b := bench{report: report{verbose: os.Stderr}}
	var parts, out, tmp string
	flag.StringVar(&b.fingerpost, "fingerpost", "bin/fingerpost", "the binary")
	flag.StringVar(&b.apiserver, "kube-apiserver", "", "the peer's binary; \"\" measures Fingerpost alone")
	flag.StringVar(&b.etcd, "etcd", "", "the peer's store")
	flag.StringVar(&parts, "parts", strings.Join(allParts[:4], ","), "what to measure; of "+strings.Join(allParts, ","))
	flag.IntVar(&b.services, "services", 10_000, "Services to load; each has 10 endpoints")
	flag.IntVar(&b.creates, "creates", 2_000, "creates to measure")
	flag.IntVar(&b.clients, "clients", 16, "clients that create")
	flag.IntVar(&b.starts, "starts", 5, "starts of each kind")
	flag.DurationVar(&b.rest, "rest", 10*time.Second, "wait before memory is read")
	flag.IntVar(&b.instances, "instances", 10_000, "instances that send heartbeats every 5 s")
	flag.DurationVar(&b.span, "span", 20*time.Second, "time to send heartbeats")
	flag.IntVar(&b.changes, "changes", 300, "changes of each kind whose way is measured")
	flag.StringVar(&b.profiles, "profile", "", "directory for CPU profiles of the servers under load; the numbers suffer")
	flag.StringVar(&out, "o", "", "file for the results as JSON")
	flag.StringVar(&tmp, "tmp", "", "directory for the data, on a disk (default $TMPDIR)")
	bare := flag.String("bare", "", "used by itself: serve a constant answer at this address")
	flag.Parse()
	if *bare != "" {
		fmt.Fprintln(os.Stderr, serveBare(*bare))
		os.Exit(1)
	}
	b.parts = strings.Split(parts, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, tmp, out); err != nil {
		fmt.Fprintln(os.Stderr, "apibench:", err)
		stop()
		os.Exit(1)
	}
}

// allParts in their order; the last is left out unless it is asked for.
var allParts = []string{"start", "create", "latency", "heartbeat", "instances"}

func (b *bench) wants(part string) bool { return slices.Contains(b.parts, part) }

func (b *bench) run(ctx context.Context, tmp, out string) (err error) {
	for _, p := range b.parts {
		if !slices.Contains(allParts, p) {
			return fmt.Errorf("-parts %q: want some of %s", p, strings.Join(allParts, ","))
		}
	}
	for _, p := range []*string{&b.fingerpost, &b.apiserver, &b.etcd} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if b.dir, err = os.MkdirTemp(tmp, "fingerpost-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	began := time.Now()
	if err := b.machine(b.dir); err != nil {
		return err
	}
	type system struct {
		who   side
		start rig.StartFunc
	}
	var flags []string
	if b.profiles != "" {
		flags = append(flags, "--profiling")
	}
	systems := []system{{ours, rig.Fingerpost(b.fingerpost, flags...)}}
	if b.apiserver != "" {
		systems = append(systems, system{peer, rig.Kubernetes(b.apiserver, b.etcd)})
	}
	for _, s := range systems {
		if b.wants("start") {
			if err := b.starting(ctx, s.who, s.start); err != nil {
				return err
			}
		}
		if b.wants("create") || b.wants("latency") {
			if err := b.loaded(ctx, s.who, s.start); err != nil {
				return err
			}
		}
	}
	if b.wants("heartbeat") {
		var other rig.StartFunc
		if b.apiserver != "" {
			other = systems[1].start
		}
		if err := b.beating(ctx, systems[0].start, other); err != nil {
			return err
		}
	}
	if b.wants("instances") {
		if err := b.manyInstances(ctx, systems[0].start); err != nil {
			return err
		}
	}
	b.Took = time.Since(began).Round(time.Second).String()
	b.table(os.Stdout)
	if out != "" {
		return b.writeJSON(out)
	}
	return nil
}

// loaded fills a server and measures it on the way and in the end.
func (b *bench) loaded(ctx context.Context, who side, start rig.StartFunc) error {
	dir, err := os.MkdirTemp(b.dir, "load")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := start(ctx, dir)
	if err != nil {
		return err
	}
	err = b.creation(ctx, who, s)
	if err == nil {
		err = b.size(ctx, who, s, b.sizePart("Services"))
	}
	if err == nil && b.wants("latency") {
		err = b.latency(ctx, who, s)
	}
	if stop := s.Stop(); err == nil {
		err = stop
	}
	if err == nil {
		err = b.sizeAgain(ctx, who, start, dir, b.sizePart("Services"))
	}
	return err
}
