package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/dns"
)

func (t *trace) print(w io.Writer, o *traceOptions) {
	if len(t.Search) > 0 {
		fmt.Fprintf(w, "%s in namespace %s: search %s; ndots:%d\n", oneLine(t.Name), t.Namespace, strings.Join(t.Search, " "), t.Ndots)
	}
	for i := range t.Steps {
		s := &t.Steps[i]
		if i > 0 || len(t.Search) > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d. ", i+1)
		s.print(w, o, &s.Catalog, "   ")
		s.printWire(w, o)
	}
}

func (s *traceStep) print(w io.Writer, o *traceOptions, e *dns.Explanation, pad string) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s%-9s %s\n", pad, name, oneLine(fmt.Sprintf(format, args...)))
	}
	if e.Rcode == "REFUSED" {
		fmt.Fprintf(w, "%s %s: not for the catalog to say\n", e.Name, e.Type)
		line("rule", "no name of the zone %s and no address of the cluster: the server forwards it", strings.Trim(o.zone, "."))
		return
	}
	fmt.Fprintf(w, "%s %s: %s\n", e.Name, e.Type, outcomeText(e))
	line("rule", "%s", e.Rule)
	if e.From != nil {
		line("from", "Service %s", registered(e))
	}
	for i, a := range e.Answer {
		if i == maxShown {
			line("answer", "and %d more (-o json shows all)", len(e.Answer)-i)
			break
		}
		line("answer", "%s", a)
	}
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		if i == maxShown && len(e.Endpoints) > maxShown+1 {
			line("endpoint", "and %d more, %d of all %d are in (-o json shows all)", len(e.Endpoints)-maxShown, countIn(e), len(e.Endpoints))
			break
		}
		word := "in"
		if !ep.In {
			word = "out: " + ep.Why
		}
		line("endpoint", "%s %s: %s", ep.Addr, word, o.endpointText(ep))
		for _, c := range s.Claims[ep.Object] {
			if ep.Kind == "Instance" {
				line("", "  claimed by %s", c)
			}
		}
	}
	for _, h := range s.Hints {
		line("hint", "%s", h)
	}
	if e.Target != nil {
		fmt.Fprint(w, pad+"-> ")
		s.print(w, o, e.Target, pad+"   ")
	}
}

// maxShown is how many records and endpoints are worth reading.
const maxShown = 12

func countIn(e *dns.Explanation) (n int) {
	for i := range e.Endpoints {
		if e.Endpoints[i].In {
			n++
		}
	}
	return n
}

func outcomeText(e *dns.Explanation) string {
	if e.Rcode == "NOERROR" && len(e.Answer) == 0 {
		return "exists, without records of this type (NODATA)"
	}
	return e.Rcode
}

func registered(e *dns.Explanation) string {
	r := e.From
	parts := []string{e.Service + ", " + string(r.Type)}
	switch {
	case r.ExternalName != "":
		parts = append(parts, "alias of "+r.ExternalName)
	case r.Headless:
		parts = append(parts, "headless")
	default:
		parts = append(parts, orElseText(join(r.ClusterIPs), "no address yet"))
	}
	if len(r.Ports) > 0 {
		parts = append(parts, "ports "+strings.Join(r.Ports, " "))
	}
	if r.PublishNotReady {
		parts = append(parts, "publishes endpoints that are not ready")
	}
	return strings.Join(parts, ", ")
}

func (o *traceOptions) endpointText(ep *dns.ExplainedEndpoint) string {
	h := catalog.Health{State: ep.State, Reason: ep.Reason, By: ep.By, Since: ep.Since}
	parts := []string{because(&h, o.now)}
	if ep.Object != "" {
		parts = append(parts, strings.ToLower(ep.Kind)+" "+ep.Object)
	} else {
		parts = append(parts, "an address in an EndpointSlice")
	}
	if ep.Node != "" {
		parts = append(parts, "node "+ep.Node)
	}
	if ep.Origin != "" {
		parts = append(parts, "came through "+ep.Origin)
	}
	if len(ep.Ports) > 0 {
		parts = append(parts, "ports "+strings.Join(ep.Ports, " "))
	}
	if ep.Weight != 100 {
		parts = append(parts, fmt.Sprintf("weight %d", ep.Weight))
	}
	return strings.Join(parts, ", ")
}

func (s *traceStep) printWire(w io.Writer, o *traceOptions) {
	if s.Wire == nil {
		return
	}
	took := fmt.Sprintf("%.1f ms", float64(s.Wire.Took.Microseconds())/1000)
	say := func(format string, args ...any) {
		fmt.Fprintf(w, "   %-9s %s\n", "wire", oneLine(fmt.Sprintf(format, args...)))
	}
	switch s.Wire.Verdict {
	case wireSilent:
		say("%s", s.Wire.Error)
		return
	case wireSame:
		say("%s says the same (%s)", s.Wire.Server, took)
		return
	case wireForwarded:
		by := "its upstream"
		if len(o.upstream) > 0 {
			by = "an upstream (of resolv.conf here: " + strings.Join(o.upstream, ", ") + "; --dns-upstream overrides)"
		}
		say("%s says %s, from %s (%s)", s.Wire.Server, s.Wire.Rcode, by, took)
	default:
		say("%s says otherwise: %s (%s). It may not have heard of a change yet, or it follows another API server", s.Wire.Server, s.Wire.Rcode, took)
	}
	for _, r := range s.Wire.Answers {
		fmt.Fprintf(w, "   %-9s %s\n", "", oneLine(fmt.Sprintf("%s %d %s %s", r.Name, r.TTL, r.Type, r.Data)))
	}
}

// verdict turns a trace into an exit code and a sentence.
func (t *trace) verdict(o *traceOptions) error {
	for i := range t.Steps {
		if w := t.Steps[i].Wire; w != nil && w.Verdict == wireDiffers {
			return exitWith(ExitError, "%s: the catalog and %s do not say the same", t.Steps[i].Catalog.Name, w.Server)
		}
	}
	for i := range t.Steps {
		c := &t.Steps[i].Catalog
		if c.From == nil || c.From.Type == catalog.ExternalName {
			continue
		}
		if countIn(c) == 0 && (t.Outcome != "answer" || i == len(t.Steps)-1) {
			return exitWith(ExitNotReady, "service %s exists, but nothing alive stands behind it. See: fingerpost explain %s", c.Service, explainArg(c.Service))
		}
	}
	if last := &t.Steps[len(t.Steps)-1]; t.Outcome == "missing" && last.Catalog.Rcode == "REFUSED" && (last.Wire == nil || last.Wire.Verdict == wireSilent || last.Wire.Rcode == "SERVFAIL") {
		return exitWith(ExitUnavailable, "%s is no name of the cluster's, and no name server answers for it", t.Name)
	}
	switch t.Outcome {
	case "missing":
		return exitWith(ExitNotFound, "%s does not exist (tried %s)", t.Name, strings.Join(o.candidates(), ", "))
	case "empty":
		return exitWith(ExitNotReady, "%s exists, but has no %s records", t.Name, t.Type)
	}
	return nil
}
