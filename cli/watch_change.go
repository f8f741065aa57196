package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/catalog"
)

// change is one line of watch, and the shape of -o json.
type change struct {
	Time      time.Time  `json:"time"`
	Namespace string     `json:"namespace,omitempty"`
	Service   string     `json:"service,omitempty"`
	Endpoint  string     `json:"endpoint,omitempty"`
	Change    string     `json:"change"`         // for a person: "READY -> FAILING"
	From      string     `json:"from,omitempty"` // NEW, READY or a health state in capitals
	To        string     `json:"to,omitempty"`   // GONE, READY or a health state in capitals
	By        string     `json:"by,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	TookMS    *float64   `json:"tookMs,omitempty"` // from since to time
	Origin    string     `json:"origin,omitempty"`
	Node      string     `json:"node,omitempty"`
}

// tooLong bounds what can be how long a change took to get here; what is older
// was true before it was seen.
const tooLong = time.Hour

// changes gives the lines of one service's change.
func changes(c *catalog.Change, now time.Time) (out []change) {
	base := change{Time: now, Namespace: c.Key.Namespace, Service: c.Key.Name}
	switch {
	case c.Old == nil:
		base.Change, base.From, base.To = "service added", "NEW", string(c.New.Service.Type)
		out = append(out, base)
	case c.New == nil:
		base.Change, base.To = "service removed", "GONE"
		out = append(out, base)
	case !c.Old.Service.Equal(c.New.Service):
		base.Change = "service changed: " + strings.Join(serviceDiff(c.Old.Service, c.New.Service), ", ")
		out = append(out, base)
	}
	before, after := byIdentity(c.Old), byIdentity(c.New)
	for id, ep := range after {
		if l, ok := endpointChange(before[id], ep); ok {
			out = append(out, dated(l, &ep.Health, c.Key, ep, now))
		}
	}
	for id, ep := range before {
		if after[id] == nil && c.New != nil {
			l := change{From: standing(ep), To: "GONE"}
			l.Change = l.From + " -> " + l.To
			out = append(out, dated(l, &catalog.Health{}, c.Key, ep, now))
		}
	}
	return out
}

func dated(l change, h *catalog.Health, k catalog.Key, ep *catalog.Endpoint, now time.Time) change {
	l.Time, l.Namespace, l.Service, l.Endpoint = now, k.Namespace, k.Name, endpointName(ep)
	l.By, l.Reason, l.Since, l.Origin, l.Node = h.By, h.Reason, timeOrNil(h.Since), ep.Origin, ep.Node
	// Only a change of standing happened at Since.
	if took := now.Sub(h.Since); l.From != l.To && !h.Since.IsZero() && took < tooLong {
		ms := float64(max(took, 0).Microseconds()) / 1000
		l.TookMS = &ms
	}
	return l
}

type identity struct {
	addr, ports string
	target      catalog.Ref
}

func byIdentity(e *catalog.Entry) map[identity]*catalog.Endpoint {
	if e == nil {
		return nil
	}
	m := make(map[identity]*catalog.Endpoint, len(e.Endpoints))
	for i := range e.Endpoints {
		ep := &e.Endpoints[i]
		m[identity{ep.Addr.String(), endpointPorts(ep), ep.Target}] = ep
	}
	return m
}

// standing is where an endpoint stands, in one word.
func standing(ep *catalog.Endpoint) string {
	s := strings.ToUpper(string(ep.Health.State))
	if !ep.Ready {
		return s
	}
	if ep.Health.State == catalog.Passing || ep.Health.State == catalog.Unknown {
		return "READY"
	}
	return "READY(" + s + ")"
}

func endpointChange(before, after *catalog.Endpoint) (l change, ok bool) {
	l.To = standing(after)
	if before == nil {
		l.From = "NEW"
		l.Change = l.From + " -> " + l.To
		return l, true
	}
	l.From = standing(before)
	if l.From != l.To {
		l.Change = l.From + " -> " + l.To
		return l, true
	}
	var what []string
	note := func(changed bool, text string) {
		if changed {
			what = append(what, text)
		}
	}
	note(before.Weight != after.Weight, fmt.Sprintf("weight %d -> %d", before.Weight, after.Weight))
	note(before.Health.State != after.Health.State, fmt.Sprintf("%s -> %s", before.Health.State, after.Health.State))
	note(before.Health.State == after.Health.State && before.Health.By != after.Health.By, "checked by "+orDash(after.Health.By))
	note(!after.Ready && before.Health.Reason != after.Health.Reason, "reason")
	note(before.Node != after.Node, "node "+orDash(after.Node))
	note(before.Zone != after.Zone, "zone "+orDash(after.Zone))
	note(before.Origin != after.Origin, "origin "+orDash(after.Origin))
	note(!maps.Equal(before.Metadata, after.Metadata), "metadata")
	if len(what) == 0 { // hints, host names: nothing a person waits for
		return l, false
	}
	l.Change = l.To + ": " + strings.Join(what, ", ")
	return l, true
}

func serviceDiff(a, b *catalog.Service) (what []string) {
	note := func(changed bool, text string) {
		if changed {
			what = append(what, text)
		}
	}
	note(a.Type != b.Type, fmt.Sprintf("type %s -> %s", a.Type, b.Type))
	note(serviceAddress(a) != serviceAddress(b), "address "+orDash(serviceAddress(a))+" -> "+orDash(serviceAddress(b)))
	note(!slices.Equal(a.Ports, b.Ports), "ports "+orDash(servicePorts(a))+" -> "+orDash(servicePorts(b)))
	note(join(slices.Concat(a.ExternalIPs, a.LoadBalancerIPs)) != join(slices.Concat(b.ExternalIPs, b.LoadBalancerIPs)), "external addresses")
	note(policy(a) != policy(b), "policy "+orDash(policy(a))+" -> "+orDash(policy(b)))
	note(!maps.Equal(a.Labels, b.Labels), "labels")
	if len(what) == 0 {
		what = []string{"settings"}
	}
	return what
}

// sourceChange is the line that says that the server went, or is back.
func sourceChange(was, is catalog.Freshness, now time.Time) change {
	c := change{Time: now, From: "FRESH", To: "STALE", By: "door kube"}
	if is.Stale() {
		c.Change, c.Since = "the server is gone: showing what was last known", timeOrNil(is.StaleSince)
	} else {
		c.From, c.To = c.To, c.From
		c.Change = "the server is back after " + now.Sub(was.StaleSince).Round(time.Millisecond).String()
	}
	return c
}

func sortChanges(l []change) {
	slices.SortStableFunc(l, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Endpoint, b.Endpoint))
	})
}

// write prints one line. Columns are padded, because a stream cannot know how
// wide they will get.
func (c *change) write(w io.Writer, o *watchOptions) error {
	switch o.format {
	case formatJSON, formatYAML:
		b, err := marshal(c, "")
		if err == nil && o.format == formatYAML {
			b, err = yaml.JSONToYAML(b)
			b = append([]byte("---\n"), b...)
		}
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	case formatName:
		if c.Service == "" {
			return nil
		}
		_, err := fmt.Fprintln(w, "service/"+c.Service)
		return err
	}
	service := c.Service
	if o.all && c.Namespace != "" {
		service = c.Namespace + "/" + c.Service
	}
	line := fmt.Sprintf("%s  %-16s %-22s %s", c.Time.In(o.location()).Format("15:04:05.000"), orDash(service), orDash(c.Endpoint), c.Change)
	var why []string
	if c.By != "" && c.Service != "" {
		why = append(why, "by "+c.By)
	}
	if c.Reason != "" {
		why = append(why, c.Reason)
	}
	if c.TookMS != nil {
		why = append(why, fmt.Sprintf("took %s", tookText(*c.TookMS)))
	}
	if o.format == formatWide {
		if c.Origin != "" {
			why = append(why, "origin "+c.Origin)
		}
		if c.Node != "" {
			why = append(why, "node "+c.Node)
		}
	}
	if len(why) > 0 {
		line += "  (" + strings.Join(why, "; ") + ")"
	}
	_, err := fmt.Fprintln(w, oneLine(line))
	return err
}

func tookText(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
