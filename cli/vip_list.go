package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/view/vip"
)

func (a *App) vipListCmd() *cobra.Command {
	var o vipOptions
	var all bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the virtual IPs of a node",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := a.loadVIPs(cmd.Context(), &o)
			if err != nil {
				return err
			}
			ns := a.ns()
			return a.printVIPs(cmd, w, &o, w.frontends(func(f *vip.Frontend) bool { return all || f.Service.Namespace == ns }), false)
		},
	}
	o.flags(c)
	c.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of the services of all namespaces")
	return c
}

func (a *App) vipShowCmd() *cobra.Command {
	var o vipOptions
	c := &cobra.Command{
		Use:   "show NAME",
		Short: "Show the virtual IPs of a service, with everything behind them",
		Long: `Show the virtual IPs of a service, with everything behind them: endpoints with
their weights and shares of new connections, and how many connections each got
where the mode counts them: userspace, ipvs, iptables (asked as root), ebpf (of
this machine's programs and pods), nftables with --proxy-counters.

Exit codes: 3 when there is no such service, 5 when nothing is behind it.`,
		Example: `  fingerpost vip show web
  fingerpost vip show web.shop -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, _ := parseTarget(args[0], a.ns())
			w, err := a.loadVIPs(cmd.Context(), &o)
			if err != nil {
				return err
			}
			e := w.snap.Get(k)
			if e == nil {
				return notFound(w.snap, k, true)
			}
			fronts := w.frontends(func(f *vip.Frontend) bool { return f.Service == k })
			if err := a.printVIPs(cmd, w, &o, fronts, true); err != nil {
				return err
			}
			for _, x := range w.conflicts {
				if x.Loser == k {
					fmt.Fprintf(a.Err, "note: %s belongs to %s.\n", x.Front, x.Winner)
				}
			}
			switch s := e.Service; {
			case s.ProxyName != "":
				return exitWith(ExitNotReady, "%s is served by another proxy, %s (label service.kubernetes.io/service-proxy-name)", k, s.ProxyName)
			case len(fronts) == 0:
				return exitWith(ExitNotReady, "%s has no virtual IP", k)
			}
			for _, f := range fronts {
				if len(f.Backends) > 0 {
					return nil
				}
			}
			return exitWith(ExitNotReady, "nothing is behind %s: see 'fingerpost explain %s'", k, args[0])
		},
	}
	o.flags(c)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.serviceNames(cmd.Context())
	}
	return c
}

func (a *App) printVIPs(cmd *cobra.Command, w *vipWorld, o *vipOptions, fronts []*vip.Frontend, whole bool) error {
	hits := countHits(cmd.Context(), w)
	items := make([]frontItem, 0, len(fronts))
	for _, f := range fronts {
		items = append(items, newFrontItem(f, &hits))
	}
	if o.format != formatTable {
		return writeObject(a.Out, o.format, struct {
			*vipWorld
			Items []frontItem `json:"items"`
		}{w, items})
	}
	if whole {
		for _, it := range items {
			if err := a.printFront(&it); err != nil {
				return err
			}
		}
		return nil
	}
	t := table{head: []string{"ADDRESS", "PROTOCOL", "KIND", "SERVICE", "PORT", "BACKENDS", "NOTES"}}
	for _, it := range items {
		n := strconv.Itoa(len(it.Backends))
		if it.Policy != "" {
			n += fmt.Sprintf(" (%d local)", len(it.Local))
		}
		t.row(it.Address, it.Protocol, it.Kind, it.Service, it.Port, n, strings.Join(it.notes(), ", "))
	}
	return t.write(a.Out)
}

func (it *frontItem) notes() (out []string) {
	if it.Policy != "" {
		out = append(out, "external traffic policy Local")
	}
	if it.Affinity != "" {
		out = append(out, "affinity "+it.Affinity)
	}
	if len(it.Sources) > 0 {
		out = append(out, "only for "+strings.Join(it.Sources, " "))
	}
	if len(it.Backends) == 0 {
		out = append(out, "rejects: no endpoints")
	}
	return out
}

func (a *App) printFront(it *frontItem) error {
	head := fmt.Sprintf("%s/%s  %s of %s", it.Address, it.Protocol, it.Kind, it.Service)
	if n := it.notes(); len(n) > 0 {
		head += "  (" + strings.Join(n, "; ") + ")"
	}
	fmt.Fprintln(a.Out, oneLine(head))
	t := table{}
	for _, side := range []struct {
		list []backendItem
		note string
	}{{it.Backends, ""}, {it.Local, "from outside"}} {
		for _, b := range side.list {
			hits := ""
			if b.Hits != nil {
				hits = fmt.Sprintf("%d hits", *b.Hits)
			}
			t.row("  "+b.Address, fmt.Sprintf("weight %d", b.Weight), fmt.Sprintf("%.1f %%", 100*b.Share), hits, b.Target, b.Node, side.note)
		}
	}
	return t.write(a.Out)
}
