package viewtest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

func parseKey(s string) (catalog.Key, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok {
		return catalog.Key{}, fmt.Errorf("%q is not NAMESPACE/NAME", s)
	}
	return catalog.Key{Namespace: ns, Name: name}, nil
}

func parseService(k catalog.Key, words []string) (*catalog.Service, error) {
	s := &catalog.Service{Key: k, Type: catalog.ClusterIP}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "clusterip":
			ip, err := netip.ParseAddr(value)
			if err != nil {
				return nil, err
			}
			s.ClusterIPs = append(s.ClusterIPs, ip)
		case "headless":
			s.Headless = true
		case "publish-not-ready":
			s.PublishNotReady = true
		case "ports":
			for _, p := range strings.Split(value, ",") {
				p, target, _ := strings.Cut(p, "->")
				name, proto, number, err := parsePort(p)
				if err != nil {
					return nil, err
				}
				s.Ports = append(s.Ports, catalog.Port{Name: name, Protocol: proto, Port: number, Target: target})
			}
		default:
			return nil, fmt.Errorf("service: unknown word %q", w)
		}
	}
	return s, nil
}

func parseEndpoint(words []string) (catalog.Endpoint, error) {
	e := catalog.Endpoint{Weight: 100}
	if len(words) == 0 {
		return e, fmt.Errorf("endpoint: no address")
	}
	var err error
	if e.Addr, err = netip.ParseAddr(words[0]); err != nil {
		return e, err
	}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "ready":
			e.Ready, e.Serving, e.Health.State = true, true, catalog.Passing
		case "failing":
			e.Health = catalog.Health{State: catalog.Failing, By: "script"}
		case "starting":
			e.Health = catalog.Health{State: catalog.Starting, By: "script"}
		case "out":
			e.Serving, e.Health = true, catalog.Health{State: catalog.OutOfService, By: "script"}
		case "terminating":
			e.Terminating, e.Health = true, catalog.Health{State: catalog.Terminating, By: "script"}
		case "serving":
			e.Serving = true
		case "local":
			e.Local = true
		case "node":
			e.Node = value
		case "zone":
			e.Zone = value
		case "weight":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return e, err
			}
			e.Weight = uint16(n)
		case "ports":
			for _, p := range strings.Split(value, ",") {
				name, proto, number, err := parsePort(p)
				if err != nil {
					return e, err
				}
				e.Ports = append(e.Ports, catalog.EndpointPort{Name: name, Protocol: proto, Port: number})
			}
		default:
			return e, fmt.Errorf("endpoint: unknown word %q", w)
		}
	}
	if e.Health.State == "" {
		return e, fmt.Errorf("endpoint: say ready, failing, starting, out or terminating")
	}
	return e, nil
}

// parsePort reads [NAME:]PORT[/PROTO].
func parsePort(s string) (name string, proto catalog.Protocol, number uint16, err error) {
	proto = catalog.TCP
	if before, after, ok := strings.Cut(s, "/"); ok {
		s, proto = before, catalog.Protocol(after)
	}
	if before, after, ok := strings.Cut(s, ":"); ok {
		name, s = before, after
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return name, proto, uint16(n), err
}
