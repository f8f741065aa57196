package catalog

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Dump writes the snapshot as text for a person, sorted, so that two snapshots
// that show the same to every view dump the same. Revisions and times are left
// out: they differ from run to run. Endpoints that wait for their service are
// not shown, as they are to nobody.
//
// The form is one line a service, its ports and its endpoints indented below:
//
//	synced, 1 service, 2 endpoints
//	namespace default
//	service default/web ClusterIP 10.96.0.1
//	  port http 80/TCP -> 8080
//	  endpoint 10.0.0.1 http:8080/TCP ready serving weight=100 node=a Passing
//	  endpoint 10.0.0.2 http:8080/TCP out weight=100 Failing by "probe http": 503
func Dump(w io.Writer, s *Snapshot) error {
	b := bufio.NewWriter(w)
	state := "not synced"
	if s.fresh.Synced {
		state = "synced"
	}
	if s.fresh.Stale() {
		state += ", stale"
	}
	services, endpoints := s.Len()
	fmt.Fprintf(b, "%s, %s, %s\n", state, count(services, "service"), count(endpoints, "endpoint"))

	for _, n := range slices.Sorted(s.Namespaces()) {
		fmt.Fprintf(b, "namespace %s\n", n)
	}
	entries := slices.SortedFunc(s.All(), func(a, b *Entry) int { return a.Service.Compare(b.Service.Key) })
	for _, e := range entries {
		dumpService(b, e.Service)
		eps := make([]string, len(e.Endpoints))
		order := make([]int, len(e.Endpoints))
		for i := range e.Endpoints {
			eps[i], order[i] = dumpEndpoint(&e.Endpoints[i]), i
		}
		slices.SortFunc(order, func(i, j int) int {
			return cmp.Or(e.Endpoints[i].Addr.Compare(e.Endpoints[j].Addr), strings.Compare(eps[i], eps[j]))
		})
		for _, i := range order {
			fmt.Fprintf(b, "  endpoint %s\n", eps[i])
		}
	}
	return b.Flush()
}

func dumpService(b *bufio.Writer, s *Service) {
	l := line{fmt.Sprintf("service %s %s", s.Key, s.Type)}
	l.words(s.ClusterIPs)
	l.flag(s.Headless, "headless")
	l.text("externalName", s.ExternalName)
	l.list("externalIPs", s.ExternalIPs)
	l.list("loadBalancerIPs", s.LoadBalancerIPs)
	ranges := make([]string, len(s.SourceRanges))
	for i, r := range s.SourceRanges {
		ranges[i] = r.String()
	}
	l.text("sourceRanges", strings.Join(ranges, ","))
	l.flag(s.PublishNotReady, "publishNotReady")
	l.flag(s.InternalLocal, "internalLocal")
	l.flag(s.ExternalLocal, "externalLocal")
	if s.Affinity > 0 {
		l.text("affinity", s.Affinity.String())
	}
	l.text("distribution", s.Distribution)
	if s.HealthCheckNodePort > 0 {
		l.text("healthCheckNodePort", fmt.Sprint(s.HealthCheckNodePort))
	}
	l.text("proxy", s.ProxyName)
	l.mapping("labels", s.Labels)
	fmt.Fprintln(b, l)
	for _, p := range s.Ports {
		l := line{fmt.Sprintf("  port %s %d/%s", orDash(p.Name), p.Port, p.Protocol)}
		if p.Target != "" {
			l = append(l, "->", p.Target)
		}
		if p.NodePort > 0 {
			l.text("nodePort", fmt.Sprint(p.NodePort))
		}
		l.text("app", p.AppProtocol)
		fmt.Fprintln(b, l)
	}
}

func dumpEndpoint(e *Endpoint) string {
	l := line{e.Addr.String()}
	for _, p := range e.Ports {
		w := fmt.Sprintf("%s:%d/%s", p.Name, p.Port, p.Protocol)
		if p.AppProtocol != "" {
			w += "(" + p.AppProtocol + ")"
		}
		l = append(l, w)
	}
	l.flag(!e.Ready && !e.Serving && !e.Terminating, "out")
	l.flag(e.Ready, "ready")
	l.flag(e.Serving, "serving")
	l.flag(e.Terminating, "terminating")
	l.flag(e.Local, "local")
	l.text("weight", fmt.Sprint(e.Weight))
	l.text("node", e.Node)
	l.text("zone", e.Zone)
	l.text("hostname", e.Hostname)
	l.text("forZones", strings.Join(e.ForZones, ","))
	l.text("forNodes", strings.Join(e.ForNodes, ","))
	l.text("origin", e.Origin)
	if e.Target != (Ref{}) {
		l.text("target", e.Target.Kind+"/"+e.Target.Name)
	}
	l.mapping("metadata", e.Metadata)
	h := string(e.Health.State)
	if e.Health.By != "" {
		h += fmt.Sprintf(" by %q", e.Health.By)
	}
	if e.Health.Reason != "" {
		h += ": " + strings.Join(strings.Fields(e.Health.Reason), " ")
	}
	l.flag(h != "", strings.TrimSpace(h))
	return l.String()
}

// line is the words of one line.
type line []string

func (l line) String() string { return strings.Join(l, " ") }

func (l *line) flag(on bool, word string) {
	if on {
		*l = append(*l, word)
	}
}

func (l *line) text(name, value string) {
	if value != "" {
		*l = append(*l, name+"="+value)
	}
}

func (l *line) words(addrs []netip.Addr) {
	for _, a := range addrs {
		*l = append(*l, a.String())
	}
}

func (l *line) list(name string, addrs []netip.Addr) {
	var words line
	words.words(addrs)
	l.text(name, strings.Join(words, ","))
}

func (l *line) mapping(name string, m map[string]string) {
	words := make([]string, 0, len(m))
	for k, v := range m {
		words = append(words, fmt.Sprintf("%s:%q", k, v))
	}
	slices.Sort(words)
	l.text(name, strings.Join(words, ","))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
