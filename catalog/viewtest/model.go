package viewtest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// truth is what there is, as plain maps: the other side of every comparison.
type truth struct {
	services  map[catalog.Key]*catalog.Service
	endpoints map[catalog.Key]map[netip.Addr]catalog.Endpoint
}

// asDoor gives a service's endpoints as a door hands them to the catalog:
// sorted, and ready although they are not when the service wants that.
func (tr truth) asDoor(k catalog.Key) []catalog.Endpoint {
	var eps []catalog.Endpoint
	for _, e := range tr.endpoints[k] {
		if s := tr.services[k]; s != nil && s.PublishNotReady {
			e.Ready = true
		}
		eps = append(eps, e)
	}
	slices.SortFunc(eps, func(a, b catalog.Endpoint) int { return a.Addr.Compare(b.Addr) })
	return eps
}

// reach is the rule of this package, written to be read.
func (tr truth) reach(can abilities, k catalog.Key, port string, proto catalog.Protocol) []string {
	s := tr.services[k]
	if s == nil || s.Headless && !can.headless {
		return nil
	}
	p := servicePort(s, port, proto)
	if p == nil {
		return nil
	}
	var ready, leaving []string
	for _, e := range tr.endpoints[k] {
		number, serves := e.Port(p.Name, p.Protocol)
		if !serves || e.Weight == 0 || e.Local && e.Node != Node {
			continue
		}
		at := netip.AddrPortFrom(e.Addr, number).String()
		switch {
		case e.Ready || s.PublishNotReady:
			ready = append(ready, at)
		case e.Terminating && e.Serving:
			leaving = append(leaving, at)
		}
	}
	if len(ready) == 0 && can.fallback {
		ready = leaving
	}
	slices.Sort(ready)
	return slices.Compact(ready)
}

// servicePort finds a service's port by name, else by number.
func servicePort(s *catalog.Service, port string, proto catalog.Protocol) *catalog.Port {
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Protocol == proto && p.Name == port && port != "" {
			return p
		}
	}
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Protocol == proto && strconv.Itoa(int(p.Port)) == port {
			return p
		}
	}
	return nil
}

// randomRun makes random changes and compares the view with the model after
// every batch. Its error holds the commands that led there.
func randomRun(v View, seed uint64, batches int) error {
	st := newStage(v)
	defer st.close()
	g := generator{Rand: rand.New(rand.NewPCG(seed, 0)), truth: st.truth}
	var history []string
	do := func(l string) error {
		history = append(history, l)
		if _, err := st.do(l); err != nil {
			return fmt.Errorf("viewtest: random run %d: %w\n%s", seed, err, strings.Join(history, "\n"))
		}
		return nil
	}
	for range batches {
		if err := do("hold"); err != nil {
			return err
		}
		for range 1 + g.IntN(6) {
			if err := do(g.command()); err != nil {
				return err
			}
		}
		if err := do("deliver"); err != nil {
			return err
		}
		for _, name := range names {
			k := catalog.Key{Namespace: "default", Name: name}
			for _, p := range ports {
				for _, port := range []string{p.name, strconv.Itoa(p.number)} {
					want := st.truth.reach(st.can, k, port, p.proto)
					if got := v.Reach(k, port, p.proto); !slices.Equal(got, want) {
						return fmt.Errorf("viewtest: random run %d: the view is wrong; to see it again:\n%s\nreach %s %s %s\n-- got\n%s-- want\n%s",
							seed, strings.Join(history, "\n"), k, port, p.proto, answerOf(got), answerOf(want))
					}
				}
			}
		}
	}
	return nil
}

var (
	names = []string{"a", "b", "c", "d"}
	ports = []struct {
		name   string
		number int
		proto  catalog.Protocol
	}{{"http", 80, catalog.TCP}, {"dns", 53, catalog.UDP}, {"dns-tcp", 53, catalog.TCP}}
	states = []string{"ready", "ready", "ready", "failing", "starting", "out", "terminating", "terminating serving"}
	extras = []string{"", "", "", " weight=0", " weight=7", " local node=here", " local node=there", " node=there"}
)

// generator makes commands that keep the rules of the API: one virtual IP is
// never two services', and a service keeps its own as long as it lives.
type generator struct {
	*rand.Rand
	truth truth
}

func (g *generator) command() string {
	k := catalog.Key{Namespace: "default", Name: names[g.IntN(len(names))]}
	addr := fmt.Sprintf("10.0.0.%d", 1+g.IntN(5))
	switch n := g.IntN(20); {
	case n < 4:
		l := fmt.Sprintf("service %s clusterip=%s ports=%s", k, g.clusterIP(k), g.ports(func(i int) string {
			return fmt.Sprintf("%s:%d/%s", ports[i].name, ports[i].number, ports[i].proto)
		}))
		if g.IntN(5) == 0 {
			l += " publish-not-ready"
		}
		return l
	case n < 7:
		return fmt.Sprintf("delete-service %s", k)
	case n < 10:
		return fmt.Sprintf("remove %s %s", k, addr)
	case n == 10:
		return "stale"
	case n == 11:
		return "fresh"
	}
	return fmt.Sprintf("endpoint %s %s ports=%s %s%s", k, addr, g.ports(func(i int) string {
		return fmt.Sprintf("%s:%d/%s", ports[i].name, 8000+g.IntN(3), ports[i].proto)
	}), states[g.IntN(len(states))], extras[g.IntN(len(extras))])
}

// ports gives a non-empty choice of the ports.
func (g *generator) ports(form func(int) string) string {
	var all []string
	choice := 1 + g.IntN(1<<len(ports)-1)
	for i := range ports {
		if choice&(1<<i) != 0 {
			all = append(all, form(i))
		}
	}
	return strings.Join(all, ",")
}

func (g *generator) clusterIP(k catalog.Key) string {
	if s := g.truth.services[k]; s != nil && len(s.ClusterIPs) > 0 {
		return s.ClusterIPs[0].String()
	}
	for {
		ip := netip.AddrFrom4([4]byte{10, 96, 0, byte(1 + g.IntN(len(names)+1))})
		free := true
		for _, s := range g.truth.services {
			free = free && !slices.Contains(s.ClusterIPs, ip)
		}
		if free {
			return ip.String()
		}
	}
}
