package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
)

// getKinds are the kinds that get knows, each with its other spellings.
var getKinds = [...]struct {
	name  string
	other []string
}{
	{"services", []string{"service", "svc"}},
	{"endpoints", []string{"endpoint", "ep", "eps"}},
	{"instances", []string{"instance", "inst"}},
	{"namespaces", []string{"namespace", "ns"}},
}

func getKind(word string) (string, bool) {
	for _, k := range getKinds {
		if w := strings.ToLower(word); w == k.name || slices.Contains(k.other, w) {
			return k.name, true
		}
	}
	return "", false
}

// getOptions is what get was asked for.
type getOptions struct {
	kind      string
	name      string // empty: all
	namespace string
	all       bool // all namespaces
	format    format
	now       time.Time
}

func (o *getOptions) scope() string {
	if o.all || o.kind == "namespaces" {
		return ""
	}
	return o.namespace
}

func (a *App) getCmd() *cobra.Command {
	var o getOptions
	c := &cobra.Command{
		Use:   "get [services|endpoints|instances|namespaces] [NAME]",
		Short: "Show what is registered, and whether it is alive",
		Long: `Show what is registered, and whether it is alive.

Services are shown unless another kind is named. READY counts the endpoints
that may receive traffic, WHY is the first reason why one may not; 'explain'
tells the rest. For endpoints NAME is that of the service.

Exit codes: 3 when NAME does not exist, 4 when the server cannot be reached.`,
		Example: `  fingerpost get
  fingerpost get endpoints web
  fingerpost get services -A -o json`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.kind, o.name, o.namespace, o.now = "services", "", a.ns(), time.Now()
			if len(args) > 0 {
				k, ok := getKind(args[0])
				if !ok {
					return exitWith(ExitUsage, "%q is not a kind: want services, endpoints, instances or namespaces.\nOne service is shown by: fingerpost get services %s", args[0], args[0])
				}
				o.kind = k
			}
			if len(args) > 1 {
				o.name = args[1]
			}
			if o.all && o.name != "" {
				return exitWith(ExitUsage, "a name is looked for in one namespace: use -n instead of -A")
			}
			if o.kind == "instances" {
				return a.getInstances(cmd.Context(), &o)
			}
			s, err := a.load(cmd.Context(), o.scope())
			if err != nil {
				return err
			}
			return renderGet(a.Out, a.Err, s, &o)
		},
	}
	c.Flags().BoolVarP(&o.all, "all-namespaces", "A", false, "of all namespaces")
	formatFlag(c, &o.format, formatTable, formatWide, formatJSON, formatYAML, formatName)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return []string{"services", "endpoints", "instances", "namespaces"}, cobra.ShellCompDirectiveNoFileComp
		case 1:
			if k, _ := getKind(args[0]); k == "services" || k == "endpoints" {
				return a.serviceNames(cmd.Context())
			}
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// renderGet prints what was asked for from a snapshot.
func renderGet(out, chatter io.Writer, s *catalog.Snapshot, o *getOptions) error {
	if f := s.Freshness(); f.Stale() {
		fmt.Fprintf(chatter, "The server is gone since %s: this is what was last known.\n", f.StaleSince.Format(time.TimeOnly))
	}
	if o.kind == "namespaces" {
		return renderNamespaces(out, chatter, s, o)
	}
	found := entries(s, o.scope())
	if o.name != "" {
		k := catalog.Key{Namespace: o.namespace, Name: o.name}
		e := s.Get(k)
		if e == nil {
			return notFound(s, k, false)
		}
		found = []*catalog.Entry{e}
	}
	if o.kind == "endpoints" {
		return renderEndpoints(out, chatter, found, o)
	}
	return renderServices(out, chatter, found, o)
}

func renderServices(out, chatter io.Writer, found []*catalog.Entry, o *getOptions) error {
	switch o.format {
	case formatJSON, formatYAML:
		items := make([]serviceItem, 0, len(found))
		for _, e := range found {
			items = append(items, newServiceItem(e, o.now))
		}
		return writeItems(out, o, items)
	case formatName:
		return writeNames(out, found, func(e *catalog.Entry) string { return "service/" + e.Service.Name })
	}
	if len(found) == 0 {
		return o.nothing(chatter)
	}
	wide := o.format == formatWide
	t := table{head: []string{"NAME", "TYPE", "ADDRESS", "PORTS", "READY", "WHY", "AGE"}}
	if wide {
		t.head = append(t.head, "EXTERNAL", "POLICY")
	}
	for _, e := range found {
		s := e.Service
		cells := []string{s.Name, string(s.Type), serviceAddress(s), servicePorts(s), readyOf(e), whyNot(e, o.now), orDash(age(s.Created, o.now))}
		if wide {
			cells = append(cells, join(slices.Concat(s.ExternalIPs, s.LoadBalancerIPs)), policy(s))
		}
		t.rows = append(t.rows, o.prefixed(s.Namespace, cells))
	}
	t.head = o.prefixed("NAMESPACE", t.head)
	return t.write(out)
}

func renderEndpoints(out, chatter io.Writer, found []*catalog.Entry, o *getOptions) error {
	type pair struct {
		key catalog.Key
		ep  *catalog.Endpoint
	}
	var pairs []pair
	for _, e := range found {
		for _, ep := range sortedEndpoints(e) {
			pairs = append(pairs, pair{e.Service.Key, ep})
		}
	}
	switch o.format {
	case formatJSON, formatYAML:
		items := make([]endpointItem, 0, len(pairs))
		for _, p := range pairs {
			items = append(items, newEndpointItem(p.key, p.ep))
		}
		return writeObject(out, o.format, list[endpointItem]{items})
	case formatName:
		return writeNames(out, pairs, func(p pair) string { return "endpoint/" + endpointName(p.ep) })
	}
	if len(pairs) == 0 {
		if o.name != "" {
			fmt.Fprintf(chatter, "Service %s has no endpoints. See: fingerpost explain %s\n", o.name, o.name)
			return nil
		}
		return o.nothing(chatter)
	}
	wide := o.format == formatWide
	t := table{head: []string{"SERVICE", "ADDRESS", "PORTS", "HEALTH", "BY", "SINCE", "ORIGIN", "NODE", "ZONE"}}
	if wide {
		t.head = append(t.head, "READY", "WEIGHT", "TARGET", "REASON")
	}
	for _, p := range pairs {
		ep := p.ep
		cells := []string{p.key.Name, ep.Addr.String(), endpointPorts(ep), string(ep.Health.State), ep.Health.By, age(ep.Health.Since, o.now), ep.Origin, ep.Node, orDash(ep.Zone)}
		if wide {
			cells = append(cells, yesNo(ep.Ready), fmt.Sprint(ep.Weight), targetName(ep), ep.Health.Reason)
		}
		t.rows = append(t.rows, o.prefixed(p.key.Namespace, cells))
	}
	t.head = o.prefixed("NAMESPACE", t.head)
	return t.write(out)
}

func renderNamespaces(out, chatter io.Writer, s *catalog.Snapshot, o *getOptions) error {
	counts := map[string]*namespaceItem{}
	for n := range s.Namespaces() {
		counts[n] = &namespaceItem{Name: n}
	}
	for e := range s.All() {
		it := counts[e.Service.Namespace]
		if it == nil {
			continue
		}
		it.Services++
		it.Endpoints += len(e.Endpoints)
		it.Ready += readyCount(e)
	}
	items := []namespaceItem{}
	for _, n := range slices.Sorted(s.Namespaces()) {
		if o.name == "" || o.name == n {
			items = append(items, *counts[n])
		}
	}
	if o.name != "" && len(items) == 0 {
		msg := "namespace " + o.name + " not found"
		if near := nearest(o.name, slices.Collect(s.Namespaces())); len(near) > 0 {
			msg += "\nDid you mean " + strings.Join(near, " or ") + "?"
		}
		return exitWith(ExitNotFound, "%s", msg)
	}
	switch o.format {
	case formatJSON, formatYAML:
		return writeItems(out, o, items)
	case formatName:
		return writeNames(out, items, func(n namespaceItem) string { return "namespace/" + n.Name })
	}
	if len(items) == 0 {
		fmt.Fprintln(chatter, "No namespaces found.")
		return nil
	}
	t := table{head: []string{"NAME", "SERVICES", "READY"}}
	for _, n := range items {
		t.row(n.Name, fmt.Sprint(n.Services), fmt.Sprintf("%d/%d", n.Ready, n.Endpoints))
	}
	return t.write(out)
}

// writeItems prints one object when one was asked for by name, else a list.
func writeItems[T any](out io.Writer, o *getOptions, items []T) error {
	if o.name != "" && len(items) == 1 {
		return writeObject(out, o.format, items[0])
	}
	return writeObject(out, o.format, list[T]{items})
}

func writeNames[T any](out io.Writer, items []T, name func(T) string) error {
	for _, it := range items {
		if _, err := fmt.Fprintln(out, name(it)); err != nil {
			return err
		}
	}
	return nil
}

// prefixed puts the namespace before the cells when several are shown.
func (o *getOptions) prefixed(namespace string, cells []string) []string {
	if !o.all {
		return cells
	}
	return append([]string{namespace}, cells...)
}

func (o *getOptions) nothing(chatter io.Writer) error {
	if o.all {
		fmt.Fprintf(chatter, "No %s found.\n", o.kind)
	} else {
		fmt.Fprintf(chatter, "No %s found in namespace %s.\n", o.kind, o.namespace)
	}
	return nil
}

func readyOf(e *catalog.Entry) string {
	if e.Service.Type == catalog.ExternalName {
		return ""
	}
	return fmt.Sprintf("%d/%d", readyCount(e), len(e.Endpoints))
}

func policy(s *catalog.Service) string {
	var p []string
	add := func(yes bool, word string) {
		if yes {
			p = append(p, word)
		}
	}
	add(s.InternalLocal, "internal=Local")
	add(s.ExternalLocal, "external=Local")
	add(s.Affinity > 0, "affinity="+s.Affinity.String())
	add(s.PublishNotReady, "publish-not-ready")
	add(s.Distribution != "", s.Distribution)
	return strings.Join(p, ",")
}

func targetName(ep *catalog.Endpoint) string {
	if ep.Target.Name == "" {
		return ""
	}
	return strings.ToLower(ep.Target.Kind) + "/" + ep.Target.Name
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// serviceNames are the names to complete with; nothing when the server does
// not answer at once.
func (a *App) serviceNames(ctx context.Context) ([]string, cobra.ShellCompDirective) {
	c, stop, err := a.follow(ctx, a.ns(), 2*time.Second)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer stop()
	var names []string
	for _, e := range entries(c.Snapshot(), a.ns()) {
		names = append(names, e.Service.Name+"\t"+string(e.Service.Type)+" "+readyOf(e))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
