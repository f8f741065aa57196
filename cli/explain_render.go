package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// explanation is what explain knows, and the shape of -o json.
type explanation struct {
	Service    serviceItem    `json:"service"`
	DNS        string         `json:"dns"`
	Port       string         `json:"port,omitempty"` // as asked
	In         []endpointItem `json:"in"`
	Out        []endpointItem `json:"out"`
	Hints      []string       `json:"hints,omitempty"`
	Verdict    string         `json:"verdict"` // ok, notReady, noSuchPort, external
	StaleSince *time.Time     `json:"staleSince,omitempty"`
}

const (
	verdictOK       = "ok"
	verdictNotReady = "notReady"
	verdictNoPort   = "noSuchPort"
	verdictExternal = "external"
)

// explain gathers what there is to say about a service that exists. port is
// empty, a number or a name.
func explain(s *catalog.Snapshot, k catalog.Key, port string, now time.Time) explanation {
	e := s.Get(k)
	x := explanation{
		Service: newServiceItem(e, now), DNS: k.Name + "." + k.Namespace + ".svc.cluster.local", Port: port,
		In: []endpointItem{}, Out: []endpointItem{}, Verdict: verdictOK, StaleSince: timeOrNil(s.Freshness().StaleSince),
	}
	hint := func(format string, args ...any) { x.Hints = append(x.Hints, fmt.Sprintf(format, args...)) }
	if x.StaleSince != nil {
		hint("The server is gone since %s: this is what was last known.", s.Freshness().StaleSince.Format(time.TimeOnly))
	}
	svc := e.Service
	if svc.Type == catalog.ExternalName {
		x.Verdict = verdictExternal
		hint("The name is an alias: clients are told to look up %s, with the port they chose.", svc.ExternalName)
		return x
	}
	asked, found := pickPort(svc, port)
	if port != "" && !found {
		x.Verdict = verdictNoPort
		hint("The service has no port %s: it has %s.", port, orElseText(portList(svc), "none"))
		for i := range e.Endpoints {
			if endpointListens(&e.Endpoints[i], port) {
				hint("Its endpoints listen on %s: that is the target port. Clients of the service use %s.", port, portList(svc))
				break
			}
		}
	}
	unserved, weightless := 0, 0
	for _, ep := range sortedEndpoints(e) {
		it := newEndpointItem(k, ep)
		switch {
		case !ep.Ready:
			x.Out = append(x.Out, it)
		case found && !serves(ep, asked):
			unserved++
			it.Health.Reason = fmt.Sprintf("it does not serve port %s (%s)", portLabel(asked), endpointPorts(ep))
			x.Out = append(x.Out, it)
		default:
			if ep.Weight == 0 {
				weightless++
			}
			x.In = append(x.In, it)
		}
	}
	if x.Verdict == verdictOK && len(x.In) == 0 {
		x.Verdict = verdictNotReady
	}
	x.addHints(e, unserved, weightless, hint)
	return x
}

func (x *explanation) addHints(e *catalog.Entry, unserved, weightless int, hint func(string, ...any)) {
	svc := e.Service
	if len(e.Endpoints) == 0 {
		port := "8080"
		if len(svc.Ports) > 0 && isNumber(svc.Ports[0].Target) {
			port = svc.Ports[0].Target
		}
		hint("Nothing is registered for it. Register one with: fingerpost run --name %s --port %s -n %s -- COMMAND", svc.Name, port, svc.Namespace)
		hint("If it has a selector, no pod matches it: compare 'kubectl -n %s get service %s -o wide' with 'kubectl -n %s get pods --show-labels'.", svc.Namespace, svc.Name, svc.Namespace)
	}
	if len(svc.Ports) == 0 && !svc.Headless {
		hint("It has no ports: its address answers nobody.")
	}
	if unserved > 0 {
		hint("%s ready, but for other ports: the endpoints' port names must be those of the service.", isAre(unserved, "endpoint"))
	}
	if x.Port == "" {
		for i := range svc.Ports {
			if p := &svc.Ports[i]; len(x.In) > 0 && !anyServes(e, p) {
				hint("No ready endpoint serves port %s (target %s): connections to it are refused.", portLabel(p), p.Target)
			}
		}
	}
	if weightless > 0 && weightless == len(x.In) {
		hint("All ready endpoints have weight 0: they take no new traffic.")
	}
	local := 0
	for i := range x.In {
		if x.In[i].Local {
			local++
		}
	}
	if local > 0 {
		hint("%s on a loopback address: only clients on the same node reach it.", isAre(local, "endpoint"))
	}
	if svc.PublishNotReady && len(x.Out) == 0 && readyAndFailing(e) {
		hint("It publishes endpoints before they are ready: some of those that are in do not pass their checks.")
	}
	if svc.InternalLocal {
		hint("internalTrafficPolicy is Local: clients reach endpoints on their own node only.")
	}
	if svc.ProxyName != "" {
		hint("Its address is the business of another proxy: %s.", svc.ProxyName)
	}
	if svc.Headless {
		hint("It is headless: there is no virtual IP, the name gives the endpoints' own addresses.")
	} else if len(svc.ClusterIPs) == 0 {
		hint("It has no cluster IP yet.")
	}
}

// renderExplain prints an explanation. Its error carries the exit code.
func renderExplain(out io.Writer, s *catalog.Snapshot, k catalog.Key, port string, f format, now time.Time) error {
	x := explain(s, k, port, now)
	if f == formatTable {
		x.print(out, s.Get(k), now)
	} else if err := writeObject(out, f, x); err != nil {
		return err
	}
	switch x.Verdict {
	case verdictNotReady:
		return exitWith(ExitNotReady, "service %s exists, but nothing ready stands behind it", k)
	case verdictNoPort:
		return exitWith(ExitNotFound, "service %s has no port %s", k, port)
	}
	return nil
}

func (x *explanation) print(w io.Writer, e *catalog.Entry, now time.Time) {
	s := e.Service
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-10s %s\n", name+":", oneLine(value))
		}
	}
	kind := string(s.Type)
	if s.Headless {
		kind += ", headless"
	}
	field("Service", s.Key.String())
	field("Type", kind)
	field("Name", x.DNS)
	switch {
	case s.Type == catalog.ExternalName:
		field("Alias of", s.ExternalName)
	case !s.Headless:
		field("Address", orElseText(join(s.ClusterIPs), "none yet"))
	}
	field("External", join(append(s.ExternalIPs[:len(s.ExternalIPs):len(s.ExternalIPs)], s.LoadBalancerIPs...)))
	for i := range s.Ports {
		field("Port", portLine(&s.Ports[i]))
	}
	field("Policy", policy(s))
	if s.Type != catalog.ExternalName {
		printEndpoints(w, "In", x.In, now)
		printEndpoints(w, "Out", x.Out, now)
	}
	if len(x.Hints) > 0 {
		fmt.Fprintln(w)
		for _, h := range x.Hints {
			fmt.Fprintf(w, "- %s\n", oneLine(h))
		}
	}
}

func printEndpoints(w io.Writer, title string, eps []endpointItem, now time.Time) {
	if title == "Out" && len(eps) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s (%d):\n", title, len(eps))
	for i := range eps {
		ep := &eps[i]
		var ports, about []string
		for _, p := range ep.Ports {
			ports = append(ports, strconv.Itoa(int(p.Port)))
		}
		h := catalog.Health{State: ep.Health.State, Reason: ep.Health.Reason, By: ep.Health.By}
		if ep.Health.Since != nil {
			h.Since = *ep.Health.Since
		}
		if ep.Name != "" {
			about = append(about, strings.ToLower(ep.Kind)+" "+ep.Name)
		}
		if ep.Node != "" {
			about = append(about, "node "+ep.Node)
		}
		if ep.Origin != "" {
			about = append(about, "came through "+ep.Origin)
		}
		if ep.Weight != 100 {
			about = append(about, "weight "+strconv.Itoa(int(ep.Weight)))
		}
		if title == "Out" && ep.Serving {
			about = append(about, "still serving")
		}
		fmt.Fprintf(w, "  %s port %s  %s\n", ep.Address, orElseText(strings.Join(ports, ","), "-"), oneLine(because(&h, now)))
		if len(about) > 0 {
			fmt.Fprintf(w, "      %s\n", oneLine(strings.Join(about, ", ")))
		}
	}
}
