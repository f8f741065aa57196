package viptest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// parseService reads the command of that name. Services are as old as their
// order: the first one wins a conflict.
func parseService(words []string, serial int) (*catalog.Service, error) {
	s := &catalog.Service{
		Key: catalog.Key{Namespace: "default", Name: words[1]}, Type: catalog.ClusterIP,
		Created: time.Unix(int64(1_700_000_000+serial), 0),
	}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		var err error
		switch key {
		case "ports":
			s.Ports, err = parsePorts(value)
		case "clusterip":
			s.ClusterIPs, err = parseAddrs(value)
		case "externalip":
			s.ExternalIPs, err = parseAddrs(value)
		case "lb":
			s.Type = catalog.LoadBalancer
			s.LoadBalancerIPs, err = parseAddrs(value)
		case "sources":
			for p := range strings.SplitSeq(value, ",") {
				var r netip.Prefix
				if r, err = netip.ParsePrefix(p); err != nil {
					break
				}
				s.SourceRanges = append(s.SourceRanges, r)
			}
		case "affinity":
			s.Affinity, err = time.ParseDuration(value)
		case "internal-local":
			s.InternalLocal = true
		case "external-local":
			s.ExternalLocal = true
		case "distribution":
			s.Distribution = value
		case "proxy-name":
			s.ProxyName = value
		case "headless":
			s.Headless = true
		case "check":
			var n uint64
			n, err = strconv.ParseUint(value, 10, 16)
			s.HealthCheckNodePort = uint16(n)
		default:
			err = fmt.Errorf("service has no %q", key)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, p := range s.Ports {
		if p.NodePort != 0 && s.Type == catalog.ClusterIP {
			s.Type = catalog.NodePort
		}
	}
	return s, nil
}

func parseAddrs(text string) (out []netip.Addr, err error) {
	for s := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// parsePorts reads [NAME:]PORT[/PROTO][@NODEPORT],…
func parsePorts(text string) (out []catalog.Port, err error) {
	for s := range strings.SplitSeq(text, ",") {
		p := catalog.Port{Protocol: catalog.TCP}
		s, node, _ := strings.Cut(s, "@")
		if name, rest, ok := strings.Cut(s, ":"); ok {
			p.Name, s = name, rest
		}
		number, proto, ok := strings.Cut(s, "/")
		if ok {
			p.Protocol = catalog.Protocol(strings.ToUpper(proto))
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, err
		}
		p.Port = uint16(n)
		if node != "" {
			if n, err = strconv.ParseUint(node, 10, 16); err != nil {
				return nil, err
			}
			p.NodePort = uint16(n)
		}
		out = append(out, p)
	}
	return out, nil
}

// parseEndpoint gives an endpoint for each family of a pod.
func (w *world) parseEndpoint(words []string) ([]catalog.Endpoint, error) {
	pod := words[2]
	ips := w.ips[pod]
	if len(ips) == 0 {
		a, err := netip.ParseAddr(pod)
		if err != nil {
			return nil, fmt.Errorf("no machine is called %q", pod)
		}
		ips = []netip.Addr{a}
	}
	e := catalog.Endpoint{Ready: true, Serving: true, Weight: 100, Zone: "z2", Node: "b", Target: catalog.Ref{Kind: "Pod", Name: pod}}
	if strings.HasPrefix(pod, "p") || pod == "a" {
		e.Node, e.Zone = "a", "z1"
	}
	for s := range strings.SplitSeq(words[3], ",") {
		p := catalog.EndpointPort{Protocol: catalog.TCP}
		if name, rest, ok := strings.Cut(s, "="); ok {
			p.Name, s = name, rest
		}
		number, proto, ok := strings.Cut(s, "/")
		if ok {
			p.Protocol = catalog.Protocol(strings.ToUpper(proto))
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return nil, err
		}
		p.Port = uint16(n)
		e.Ports = append(e.Ports, p)
	}
	for _, word := range words[4:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "failing":
			e.Ready, e.Serving = false, false
		case "terminating":
			e.Ready, e.Terminating = false, true
		case "gone-terminating":
			e.Ready, e.Serving, e.Terminating = false, false, true
		case "zone":
			e.Zone = value
		case "node":
			e.Node = value
		case "local":
			e.Local = true
		case "forzones":
			e.ForZones = strings.Split(value, ",")
		case "fornodes":
			e.ForNodes = strings.Split(value, ",")
		case "weight":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return nil, err
			}
			e.Weight = uint16(n)
		default:
			return nil, fmt.Errorf("endpoint has no %q", key)
		}
	}
	var out []catalog.Endpoint
	for _, ip := range ips {
		x := e
		x.Addr = ip
		out = append(out, x)
	}
	return out, nil
}

// model is the catalog as the scripts have made it.
type model struct {
	services  map[catalog.Key]*catalog.Service
	endpoints map[catalog.Key][]catalog.Endpoint
	serial    int
}

func newModel() *model {
	return &model{services: map[catalog.Key]*catalog.Service{}, endpoints: map[catalog.Key][]catalog.Endpoint{}}
}

// do makes one change and gives it for the driver.
func (m *model) do(w *world, words []string) (op, error) {
	if len(words) < 2 {
		return op{}, fmt.Errorf("%q needs a service", words[0])
	}
	key := catalog.Key{Namespace: "default", Name: words[1]}
	switch words[0] {
	case "service":
		m.serial++
		s, err := parseService(words, m.serial)
		if err != nil {
			return op{}, err
		}
		if was := m.services[key]; was != nil {
			s.Created = was.Created
		}
		m.services[key] = s
		return op{Service: s, Key: key}, nil
	case "endpoint":
		if len(words) < 4 {
			return op{}, fmt.Errorf("endpoint SERVICE POD PORTS …")
		}
		eps, err := w.parseEndpoint(words)
		if err != nil {
			return op{}, err
		}
		m.endpoints[key] = append(m.without(key, words[2]), eps...)
	case "remove":
		m.endpoints[key] = m.without(key, words[2])
	case "delete":
		delete(m.services, key)
		delete(m.endpoints, key)
		return op{Key: key, Delete: true}, nil
	}
	return op{Key: key, Put: true, Endpoints: m.endpoints[key]}, nil
}

func (m *model) without(key catalog.Key, pod string) []catalog.Endpoint {
	return slices.DeleteFunc(slices.Clone(m.endpoints[key]), func(e catalog.Endpoint) bool { return e.Target.Name == pod })
}

// all gives everything, for a driver that was started again.
func (m *model) all() []op {
	var ops []op
	for k, s := range m.services {
		ops = append(ops, op{Service: s, Key: k})
	}
	for k, e := range m.endpoints {
		ops = append(ops, op{Key: k, Put: true, Endpoints: e})
	}
	slices.SortFunc(ops, func(a, b op) int {
		return cmp.Or(a.Key.Compare(b.Key), strings.Compare(fmt.Sprint(a.Put), fmt.Sprint(b.Put)))
	})
	return ops
}

// clear gives what empties the catalog.
func (m *model) clear() []op {
	var ops []op
	for k := range m.services {
		ops = append(ops, op{Key: k, Delete: true})
	}
	for k := range m.endpoints {
		if m.services[k] == nil {
			ops = append(ops, op{Key: k, Delete: true})
		}
	}
	return ops
}
