package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// pickPort finds a service's port by number or name.
func pickPort(s *catalog.Service, port string) (*catalog.Port, bool) {
	if port == "" {
		return nil, false
	}
	for i := range s.Ports {
		if p := &s.Ports[i]; p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return p, true
		}
	}
	return nil, false
}

func serves(ep *catalog.Endpoint, p *catalog.Port) bool {
	_, ok := ep.Port(p.Name, p.Protocol)
	return ok
}

func anyServes(e *catalog.Entry, p *catalog.Port) bool {
	for i := range e.Endpoints {
		if ep := &e.Endpoints[i]; ep.Ready && serves(ep, p) {
			return true
		}
	}
	return false
}

func endpointListens(ep *catalog.Endpoint, port string) bool {
	for _, p := range ep.Ports {
		if strconv.Itoa(int(p.Port)) == port {
			return true
		}
	}
	return false
}

func readyAndFailing(e *catalog.Entry) bool {
	for i := range e.Endpoints {
		if ep := &e.Endpoints[i]; ep.Ready && (!ep.Serving || strings.HasPrefix(standing(ep), "READY(")) {
			return true
		}
	}
	return false
}

// portLabel names a port as people do: by its name, or by its number.
func portLabel(p *catalog.Port) string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Port))
}

// portLine tells where a port leads: "http 80/TCP -> 8080, on every node 31234".
func portLine(p *catalog.Port) string {
	s := strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
	if p.Target != "" {
		s += " -> " + p.Target
	}
	if p.NodePort != 0 {
		s += fmt.Sprintf(", on every node %d", p.NodePort)
	}
	return s
}

func portList(s *catalog.Service) string {
	var out []string
	for i := range s.Ports {
		p := &s.Ports[i]
		l := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			l += " (" + p.Name + ")"
		}
		out = append(out, l)
	}
	return strings.Join(out, ", ")
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func isAre(n int, one string) string {
	if n == 1 {
		return "1 " + one + " is"
	}
	return plural(n, one) + " are"
}

func orElseText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
