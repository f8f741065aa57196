package dns

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// world is a catalog with a server that follows it, changed by commands:
//
//	service NS/NAME [clusterip=IP[,IP]] [headless] [publish-not-ready] [external=NAME] [ports=[NAME:]PORT[/PROTO],…]
//	endpoint NS/NAME ADDR [host=LABEL] [ports=NAME:PORT[/PROTO],…] [out|terminating] [node=N] [local] [weight=N]
//	endpoints NS/NAME COUNT [ports=…]   10.1.0.100 and following
//	remove NS/NAME ADDR, delete NS/NAME, namespace NAME, no-namespace NAME
//	synced, not-synced, stale
//	pods MODE, record LINE, no-records
type world struct {
	catalog *catalog.Catalog
	sub     *catalog.Subscription
	server  *Server
	now     time.Time
	eps     map[catalog.Key][]catalog.Endpoint
	records []string
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), eps: map[catalog.Key][]catalog.Endpoint{}}
	cfg.Now = func() time.Time { return w.now }
	cfg.Node = "here"
	if cfg.UpstreamTimeout == 0 {
		cfg.UpstreamTimeout = time.Minute
	}
	var err error
	if w.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	w.catalog = catalog.New(cfg.Now)
	w.sub = w.catalog.Subscribe()
	t.Cleanup(w.sub.Close)
	w.must(t, "synced")
	return w
}

// calm asks upstreams once, however long the answer takes.
func (w *world) calm(t testing.TB) {
	t.Helper()
	cfg := w.server.forwardConfig(&w.server.cfg)
	cfg.Hedge = time.Minute
	if err := w.server.forward.Reload(cfg); err != nil {
		t.Fatal(err)
	}
}

func (w *world) must(t testing.TB, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if err := w.do(strings.Fields(c)); err != nil {
			t.Fatalf("%s: %v", c, err)
		}
	}
}

func (w *world) do(words []string) (err error) {
	switch words[0] {
	case "pods":
		set := w.server.cfg.Settings()
		set.Pods, set.Records = PodMode(words[1]), w.records
		return w.server.Reload(set)
	case "record":
		all := append(slices.Clone(w.records), strings.Join(words[1:], " "))
		if err := w.server.SetRecords(all); err != nil {
			return err
		}
		w.records = all
		return nil
	case "no-records":
		w.records = nil
		return w.server.SetRecords(nil)
	}
	w.catalog.Update(func(tx *catalog.Txn) { err = w.change(tx, words) })
	if err != nil {
		return err
	}
	return w.server.Apply(context.Background(), w.sub.TryNext())
}

func (w *world) change(tx *catalog.Txn, words []string) error {
	switch words[0] {
	case "synced":
		tx.SetFreshness(catalog.Freshness{Synced: true})
		return nil
	case "not-synced":
		tx.SetFreshness(catalog.Freshness{})
		return nil
	case "stale":
		tx.SetFreshness(catalog.Freshness{Synced: true, StaleSince: w.now})
		return nil
	case "namespace":
		tx.PutNamespace(words[1])
		return nil
	case "no-namespace":
		tx.DeleteNamespace(words[1])
		return nil
	}
	ns, name, _ := strings.Cut(words[1], "/")
	k := catalog.Key{Namespace: ns, Name: name}
	switch words[0] {
	case "delete":
		tx.DeleteService(k)
		return nil
	case "service":
		s, err := parseService(k, words[2:])
		tx.PutService(s)
		return err
	case "endpoint":
		ep, err := parseEndpoint(words[2:])
		if err != nil {
			return err
		}
		// The same address may be there with other ports or names.
		w.eps[k] = append(slices.DeleteFunc(slices.Clone(w.eps[k]), func(o catalog.Endpoint) bool {
			return o.Addr == ep.Addr && o.Hostname == ep.Hostname && slices.Equal(o.Ports, ep.Ports)
		}), ep)
	case "endpoints":
		n, err := strconv.Atoi(words[2])
		if err != nil {
			return err
		}
		for i := range n {
			ep, err := parseEndpoint(append([]string{fmt.Sprintf("10.1.%d.%d", i/100, 100+i%100)}, words[3:]...))
			if err != nil {
				return err
			}
			w.eps[k] = append(w.eps[k], ep)
		}
	case "remove":
		w.eps[k] = slices.DeleteFunc(slices.Clone(w.eps[k]), func(o catalog.Endpoint) bool { return o.Addr.String() == words[2] })
	default:
		return fmt.Errorf("unknown command")
	}
	tx.PutEndpoints(k, slices.Clone(w.eps[k]))
	return nil
}

func parseService(k catalog.Key, words []string) (*catalog.Service, error) {
	s := &catalog.Service{Key: k, Type: catalog.ClusterIP}
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "clusterip":
			for ip := range strings.SplitSeq(value, ",") {
				s.ClusterIPs = append(s.ClusterIPs, netip.MustParseAddr(ip))
			}
		case "headless":
			s.Headless = true
		case "publish-not-ready":
			s.PublishNotReady = true
		case "external":
			s.Type, s.ExternalName = catalog.ExternalName, value
		case "ports":
			eps, err := parsePorts(value)
			if err != nil {
				return nil, err
			}
			for _, p := range eps {
				s.Ports = append(s.Ports, catalog.Port{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
			}
		default:
			return nil, fmt.Errorf("unknown word %q", word)
		}
	}
	return s, nil
}

func parseEndpoint(words []string) (catalog.Endpoint, error) {
	ep := catalog.Endpoint{Addr: netip.MustParseAddr(words[0]), Ready: true, Serving: true, Weight: 100}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "host":
			ep.Hostname = value
		case "ports":
			ep.Ports, err = parsePorts(value)
		case "out":
			ep.Ready, ep.Serving = false, false
			ep.Health = catalog.Health{State: catalog.Failing, By: "probe http", Reason: "status 503"}
		case "terminating":
			ep.Ready, ep.Terminating = false, true
		case "node":
			ep.Node = value
		case "local":
			ep.Local = true
		case "weight":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 16)
			ep.Weight = uint16(n)
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return ep, err
		}
	}
	return ep, nil
}

func parsePorts(s string) ([]catalog.EndpointPort, error) {
	var all []catalog.EndpointPort
	for p := range strings.SplitSeq(s, ",") {
		p, proto, _ := strings.Cut(p, "/")
		if proto == "" {
			proto = "TCP"
		}
		name, number, ok := strings.Cut(p, ":")
		if !ok {
			name, number = "", p
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, err
		}
		all = append(all, catalog.EndpointPort{Name: name, Protocol: catalog.Protocol(proto), Port: uint16(n)})
	}
	return all, nil
}

// dump writes everything that answers come from, in an order of its own.
func (x *index) dump() []string {
	var all []string
	x.services.all(func(k string, p **entry) {
		e := *p
		all = append(all, fmt.Sprintf("service %s %+v kind=%d a=%x aaaa=%x vips=%v ports=%+v hosts=%+v v4=%x v6=%x target=%q",
			text(k), *e.owner, e.kind, e.a, e.aaaa, e.vips, e.ports, e.hosts, e.v4, e.v6, e.target))
	})
	x.spaces.all(func(k string, s *space) { all = append(all, fmt.Sprintf("namespace %s %+v", text(k), *s)) })
	x.ips.all(func(ip [16]byte, o *owned) {
		owners := map[string]bool{}
		for ; o != nil; o = o.next {
			owners[o.owner.name] = true
		}
		all = append(all, fmt.Sprintf("address %s %q", netip.AddrFrom16(ip).Unmap(), slices.Sorted(maps.Keys(owners))))
	})
	all = append(all, fmt.Sprint("synced ", x.synced.Load()))
	slices.Sort(all)
	return all
}
