//go:build linux

// Command dnsbench measures the cluster DNS beside CoreDNS, knotd and nsd, and
// beside a UDP echo, which is the limit. The server has core 0, the generator
// core 1. Servers of Kubernetes' names are fed by the same API server, those of
// static zones by a zone file with the same names.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/bench/rig"
)

type bench struct {
	fingerpost, coredns, echoSource string
	world                           world
	span                            time.Duration
	only                            string
	window                          int

	dir, kubeconfig string
}

func main() {
	var b bench
	flag.StringVar(&b.fingerpost, "fingerpost", "bin/fingerpost", "the binary")
	flag.StringVar(&b.coredns, "coredns", "", "the peer's binary; \"\" leaves it out")
	flag.StringVar(&b.echoSource, "echo", "bench/dnsbench/echo.c", "source of the echo")
	flag.IntVar(&b.world.namespaces, "namespaces", 100, "namespaces, at most 100")
	flag.IntVar(&b.world.services, "services", 100, "services in each, at most 100")
	flag.IntVar(&b.world.endpoints, "endpoints", 10, "endpoints of each")
	flag.DurationVar(&b.span, "span", 5*time.Second, "time of one measurement")
	flag.StringVar(&b.only, "only", "", "measure servers whose name has this in it")
	flag.IntVar(&b.window, "window", 256, "questions under way at saturation")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "dnsbench:", err)
		stop()
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "dnsbench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, path := range []*string{&b.fingerpost, &b.coredns, &b.echoSource} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	if err := b.world.zoneFile(filepath.Join(b.dir, "zone")); err != nil {
		return err
	}
	qs, err := b.world.questions(100_000)
	if err != nil {
		return err
	}
	api := filepath.Join(b.dir, "api")
	if err := os.Mkdir(api, 0o700); err != nil {
		return err
	}
	s, err := rig.Fingerpost(b.fingerpost, "--no-dns", "--no-proxy")(ctx, api)
	if err != nil {
		return err
	}
	defer s.Stop()
	b.kubeconfig = filepath.Join(api, "admin.kubeconfig")
	began := time.Now()
	if err := b.fill(ctx, s.Rest); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d services with %d endpoints each: loaded in %s\n", b.world.namespaces*b.world.services, b.world.endpoints, time.Since(began).Round(time.Second))
	if err := s.Settle(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := pin(1); err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(out, "| server\t| answers/s\t| CPU-s/M\t| p50 ms\t| p99 ms\t| 20k/s: CPU-s/M\t| 100k/s: p99 ms\t| RSS MiB idle\t| loaded\t| wrong\t| lost\t|")
	fmt.Fprintln(out, "| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	for _, s := range b.servers() {
		if strings.Contains(s.name, b.only) {
			if err := b.measure(ctx, s, qs, out); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return out.Flush()
}

// measure writes the line of one server.
func (b *bench) measure(ctx context.Context, s server, qs []question, out *tabwriter.Writer) error {
	p, to, err := b.up(ctx, s)
	if err != nil {
		return err
	}
	defer p.Stop()
	if err := rig.Sleep(ctx, 3*time.Second); err != nil { // what its start left to do
		return err
	}
	idle, err := p.Memory()
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s answers at %s\n", s.name, to)
	wrong, lost := 0, 0
	run := func(l load) (*result, float64, error) {
		l.flows, l.echo = 16, s.echo
		before, err := p.CPU()
		if err != nil {
			return nil, 0, err
		}
		r, err := generate(to, qs, l)
		if err != nil {
			return nil, 0, err
		}
		after, err := p.CPU()
		if r.wrong > 0 {
			fmt.Fprintf(os.Stderr, "%s: %d wrong answers, such as %s\n", s.name, r.wrong, r.example)
		}
		wrong += r.wrong
		return r, (after - before).Seconds() / float64(r.answered) * 1e6, err
	}
	if _, _, err := run(load{window: 64, span: time.Second}); err != nil { // warm
		return err
	}
	full, fullCPU, err := run(load{window: b.window, span: b.span})
	if err != nil {
		return err
	}
	slow, slowCPU, err := run(load{rate: 20_000, span: b.span})
	if err != nil {
		return err
	}
	fast, _, err := run(load{rate: 100_000, span: b.span})
	if err != nil {
		return err
	}
	lost = full.lost + slow.lost + fast.lost
	busy, err := p.Memory()
	if err != nil {
		return err
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Fprintf(out, "| %s\t| %.0fk\t| %.2f\t| %.2f\t| %.2f\t| %.1f\t| %.2f\t| %d\t| %d\t| %d\t| %d\t|\n", s.name,
		float64(full.answered)/full.elapsed.Seconds()/1000, fullCPU, ms(full.at(0.5)), ms(full.at(0.99)), slowCPU, ms(fast.at(0.99)),
		idle.Total>>20, busy.Total>>20, wrong, lost)
	return nil
}

// fill makes the services.
func (b *bench) fill(ctx context.Context, cfg *rest.Config) error {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.ContentType = -1, "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	for i := range b.world.namespaces {
		if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: b.world.namespace(i)}}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= b.world.namespaces*b.world.services {
					return
				}
				ns, svc := i/b.world.services, i%b.world.services
				if _, err := client.CoreV1().Services(b.world.namespace(ns)).Create(ctx, b.world.service(ns, svc), metav1.CreateOptions{}); err != nil {
					cancel(err)
				}
				if _, err := client.DiscoveryV1().EndpointSlices(b.world.namespace(ns)).Create(ctx, b.world.slice(ns, svc), metav1.CreateOptions{}); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
