//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// served is our gateway with routes and endpoints that are told on the standard
// input: the engine is what the real one runs.
type served struct {
	engine *gateway.Engine
	cat    *catalog.Catalog
	sub    *catalog.Subscription
	certs  string // directory
	now    setup
}

func runServe(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	plain := f.String("http", "", "address")
	secure := f.String("https", "", "address")
	s := &served{cat: catalog.New(nil)}
	var level slog.Level
	f.TextVar(&level, "log", slog.LevelWarn, "level of what is said")
	f.StringVar(&s.certs, "certs", ".", "directory of the certificates")
	if err := f.Parse(args); err != nil {
		return err
	}
	s.sub = s.cat.Subscribe()
	var err error
	s.engine, err = gateway.New(gateway.Config{
		Listeners:  []gateway.Listener{{Addr: *plain}, {Addr: *secure, TLS: true}},
		Timeouts:   gateway.Timeouts{Idle: time.Hour},
		Log:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ended <- s.engine.Run(ctx) }()
	go tune(ctx)
	go s.obey(ctx, cancel)
	return <-ended
}

// obey does what it is told, until nobody is there to tell.
func (s *served) obey(ctx context.Context, end func()) {
	defer end()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var x order
		var d done
		err := json.Unmarshal(in.Bytes(), &x)
		switch {
		case err != nil:
		case x.Profile != "":
			err = profileTo(ctx, x.Profile, time.Duration(x.Seconds*float64(time.Second)))
		case x.Setup != nil:
			d.Applied, d.Routed, err = s.change(ctx, *x.Setup)
		}
		if err != nil {
			d.Problem = err.Error()
		}
		b, err := json.Marshal(d)
		if err != nil {
			return
		}
		if _, err := os.Stdout.Write(append(b, '\n')); err != nil {
			return
		}
	}
}

func profileTo(ctx context.Context, file string, d time.Duration) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(err, f.Close())
	}
	err = sleep(ctx, d)
	pprof.StopCPUProfile()
	return errors.Join(err, f.Close())
}

func key(name string) catalog.Key { return catalog.Key{Namespace: "bench", Name: name} }

func serviceName(i int) string { return fmt.Sprintf("svc-%05d", i) }

// change puts a setup in force, and says how long that took: services and
// endpoints, and routes.
func (s *served) change(ctx context.Context, to setup) (applied, routed time.Duration, err error) {
	u, err := s.update(&to)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	s.cat.Update(func(t *catalog.Txn) { err = s.endpoints(t, &to) })
	if err != nil {
		return 0, 0, err
	}
	b := s.sub.TryNext()
	if b.Snapshot != nil {
		if err := s.engine.Apply(ctx, b); err != nil {
			return 0, 0, err
		}
	}
	applied = time.Since(began)
	if u != nil {
		s.engine.SetRoutes(*u)
	}
	s.now = to
	return applied, time.Since(began) - applied, nil
}

// endpoints writes what differs to the catalog.
func (s *served) endpoints(t *catalog.Txn, to *setup) error {
	t.SetFreshness(catalog.Freshness{Synced: true})
	put := func(name string, addrs []string) error {
		t.PutService(&catalog.Service{Key: key(name), Type: catalog.ClusterIP, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}})
		var all []catalog.Endpoint
		for _, a := range addrs {
			ap, err := netip.ParseAddrPort(a)
			if err != nil {
				return err
			}
			all = append(all, catalog.Endpoint{
				Addr: ap.Addr(), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: ap.Port()}}, Ready: true, Serving: true, Weight: 100,
			})
		}
		t.PutEndpoints(key(name), all)
		return nil
	}
	if err := put("web", to.Web); err != nil {
		return err
	}
	if err := put("sockets", to.WS); err != nil {
		return err
	}
	if to.Moved > 0 {
		if err := put("moved", []string{to.Other}); err != nil {
			return err
		}
	}
	if s.now.Routes == to.Routes && slices.Equal(s.now.Web, to.Web) {
		return nil
	}
	for i := range to.Routes {
		if err := put(serviceName(i), to.Web); err != nil {
			return err
		}
	}
	return nil
}

// update is what differs in routes and certificates; nil: nothing.
func (s *served) update(to *setup) (*route.Update, error) {
	first := s.now.Web == nil
	u := &route.Update{Hosts: map[string]*route.Host{}}
	if first || to.Cert != s.now.Cert {
		b, err := os.ReadFile(pairFile(s.certs, to.Cert))
		if err != nil {
			return nil, err
		}
		chain, err := tls.X509KeyPair(bytes.Clone(b), b)
		if err != nil {
			return nil, err
		}
		u.Certificates = map[string]*route.Certificate{
			"bench": {Origin: route.Origin{Kind: "Secret", Namespace: "bench", Name: "bench"}, Hosts: []string{"bench.example.com", "*.example.com"}, Chain: &chain},
		}
		u.Global = &route.Global{Certificate: &chain}
	}
	if first {
		u.Hosts[""] = host("", rule("/", "web"), rule("/ws", "sockets"))
	}
	if to.Routes != s.now.Routes {
		for i := range to.Routes {
			u.Hosts[routeHost(i)] = host(routeHost(i), rule("/", serviceName(i)))
		}
	}
	if to.Moved != s.now.Moved {
		u.Hosts[routeHost(to.Moved)] = host(routeHost(to.Moved), rule("/", "moved"))
	}
	if len(u.Hosts) == 0 && u.Global == nil {
		return nil, nil
	}
	return u, nil
}

func host(name string, rules ...route.Rule) *route.Host {
	return &route.Host{Name: name, Rules: rules, TLS: true}
}

func rule(path, service string) route.Rule {
	return route.Rule{
		Origin:   route.Origin{Kind: "Ingress", Namespace: "bench", Name: service},
		Path:     route.Path{Kind: route.Prefix, Value: path},
		Backends: []route.Backend{{Service: key(service), Port: "http"}},
		Policy:   &route.Policy{},
	}
}
