package cli

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/internal/hostdns"
)

// Where the DNS is taken to listen when nothing is said: the second is for
// resolver configurations that know no ports.
const (
	defaultDNS   = "127.0.0.1:8053"
	defaultDNS53 = "127.0.0.54:53"
)

// hostOptions is what dns install, uninstall and status were asked for.
type hostOptions struct {
	zone    string
	address string
	search  string
	ranges  []string
	outside string
	docker  bool
	dryRun  bool
	format  format
	machine *hostdns.Machine
}

// hostResult is the shape of -o json of install and uninstall.
type hostResult struct {
	Method   hostdns.Method `json:"method,omitempty"`
	Why      string         `json:"why,omitempty"`
	Server   string         `json:"server,omitempty"`
	Zones    []string       `json:"zones,omitempty"`
	Diff     string         `json:"diff,omitempty"`
	Commands []string       `json:"commands,omitempty"`
	Notes    []string       `json:"notes,omitempty"`
	Done     bool           `json:"done"` // false: a dry run
	Changed  bool           `json:"changed"`
}

func (a *App) dnsCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "dns",
		Short: "Let this machine resolve the cluster's names; tell how a name is resolved",
	}
	c.AddCommand(a.dnsInstallCmd(), a.dnsUninstallCmd(), a.dnsStatusCmd(), a.dnsTraceCmd())
	return c
}

// flags adds those that the three commands share.
func (o *hostOptions) flags(c *cobra.Command) {
	o.machine = localMachine()
	f := c.Flags()
	f.StringVar(&o.zone, "zone", "cluster.local", "domain of the cluster")
	f.StringVar(&o.address, "address", "", "address of the Fingerpost DNS (default "+defaultDNS+", or "+defaultDNS53+" where only port 53 will do)")
	f.StringVar(&o.outside, "check-name", "example.com", "name outside the cluster that must go on resolving")
	formatFlag(c, &o.format, formatTable, formatJSON, formatYAML)
}

// localMachine is the machine that we run on.
func localMachine() *hostdns.Machine {
	return &hostdns.Machine{OS: runtime.GOOS, Run: hostdns.Run}
}

// server completes the address for a method.
func (o *hostOptions) server(m hostdns.Method) (netip.AddrPort, error) {
	text := o.address
	switch {
	case text == "" && m.AnyPort() && !o.docker:
		text = defaultDNS
	case text == "":
		text = defaultDNS53
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() {
		return ap, exitWith(ExitUsage, "--address %s: want the address that the DNS answers at, such as %s", o.address, defaultDNS)
	}
	return ap, nil
}

func (o *hostOptions) check(w hostdns.Want, m hostdns.Method) *hostdns.Check {
	return &hostdns.Check{Machine: o.machine, Want: w, Method: m, Outside: o.outside, Ask: hostdns.Ask}
}

// want is what the machine is to do.
func (o *hostOptions) want(ctx context.Context, m hostdns.Method) (hostdns.Want, error) {
	w := hostdns.Want{Zone: strings.ToLower(strings.Trim(o.zone, ".")), Search: o.search, Docker: o.docker}
	var err error
	if w.Server, err = o.server(m); err != nil {
		return w, err
	}
	if !validZone(w.Zone) {
		return w, exitWith(ExitUsage, "--zone %q: want a domain name, such as cluster.local", o.zone)
	}
	if w.Search != "" && !validZone(w.Search) {
		return w, exitWith(ExitUsage, "--search %q: want a namespace, such as default", o.search)
	}
	ranges := o.ranges
	if len(ranges) == 0 && m.Split() {
		ranges = guessRanges(ctx, w)
	}
	for _, r := range ranges {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return w, exitWith(ExitUsage, "--service-cidr %q: want a range such as 10.96.0.0/16", r)
		}
		w.Reverse = append(w.Reverse, hostdns.ReverseZones(p)...)
	}
	return w, nil
}

// guessRanges takes the range of the ClusterIPs from where the API is in it:
// at its first address. /16 and /112 are the usual sizes.
func guessRanges(ctx context.Context, w hostdns.Want) (ranges []string) {
	for t, bits := range map[string]int{"A": 16, "AAAA": 112} {
		_, data, err := hostdns.Ask(ctx, w.Server, "kubernetes.default.svc."+w.Zone, t)
		if err != nil {
			continue
		}
		for _, d := range data {
			if a, err := netip.ParseAddr(d); err == nil {
				ranges = append(ranges, netip.PrefixFrom(a, bits).Masked().String())
			}
		}
	}
	return ranges
}

// validZone: the name becomes part of configuration files.
func validZone(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return len(s) < 200
}

func (a *App) dnsInstallCmd() *cobra.Command {
	var o hostOptions
	c := &cobra.Command{
		Use:   "install",
		Short: "Let this machine's programs resolve the cluster's names",
		Long: `Let this machine's programs resolve the cluster's names by the Fingerpost DNS.

It finds out who decides where this machine's questions go (systemd-resolved,
NetworkManager's dnsmasq, resolvconf, openresolv, macOS, or nobody but
/etc/resolv.conf), prints the exact change, makes it, and looks whether the
machine resolves the cluster's names and still resolves all others. If not, it
puts everything back. 'fingerpost dns uninstall' gives back every byte.

With systemd-resolved, dnsmasq and macOS only the cluster's names go to
Fingerpost. With /etc/resolv.conf all questions do, so it forwards the others;
the name servers from before stay behind it and answer when it is down. That
file knows no ports: the DNS must listen on port 53 of an address of its own:

  fingerpost dev --dns-address 127.0.0.1:8053,` + defaultDNS53 + `

Docker's containers are told with --docker, which needs an address of this
machine that they reach. Exit codes: 4 when the DNS does not answer.`,
		Example: `  fingerpost dns install --dry-run
  sudo fingerpost dns install
  sudo fingerpost dns install --address 127.0.0.54:53 --search default`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dnsInstall(cmd.Context(), &o) },
	}
	o.flags(c)
	f := c.Flags()
	f.StringVar(&o.search, "search", "", "give this machine the search list of a namespace, so that short names resolve")
	f.StringSliceVar(&o.ranges, "service-cidr", nil, "range whose addresses' names go to the DNS too (default the /16 that the API's ClusterIP is in)")
	f.BoolVar(&o.docker, "docker", false, "change Docker's daemon.json too")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the change and make none")
	return c
}

func (a *App) dnsInstall(ctx context.Context, o *hostOptions) error {
	found, err := o.machine.Detect(ctx)
	if err != nil {
		return plainError(err)
	}
	w, err := o.want(ctx, found.Method)
	if err != nil {
		return err
	}
	plan, err := o.machine.Install(ctx, &found, w)
	if err != nil {
		return plainError(err)
	}
	r := hostResult{Method: found.Method, Why: found.Why, Server: w.Server.String(), Zones: append([]string{w.Zone}, w.Reverse...)}
	if found.Docker && !o.docker {
		plan.Notes = append(plan.Notes, "Docker's containers do not see this. Start one with: docker run --dns ADDRESS …, or run install with --docker and an --address that they reach; it puts "+w.DockerExample()+" with that address into /etc/docker/daemon.json.")
	}
	fmt.Fprintf(a.Err, "%s: %s.\n", found.Method, found.Why)
	a.announce(o, plan, &r)
	if o.dryRun {
		return a.finishHost(o, &r, "Nothing was changed: this was a dry run.")
	}
	check := o.check(w, found.Method)
	fmt.Fprintf(a.Err, "asking %s …\n", w.Server)
	if err := check.Before(ctx); err != nil {
		return exitWith(ExitUnavailable, "%w", plainError(err))
	}
	if err := o.machine.Apply(ctx, plan, check.After); err != nil {
		return plainError(err)
	}
	r.Done = true
	if plan.Empty() {
		return a.finishHost(o, &r, "Nothing to change: it was installed already, and it works.")
	}
	return a.finishHost(o, &r, fmt.Sprintf("This machine resolves %s by %s, and everything else as before. To take it back: fingerpost dns uninstall", w.Zone, w.Server))
}

// announce prints the exact change before it is made.
func (a *App) announce(o *hostOptions, p *hostdns.Plan, r *hostResult) {
	r.Notes, r.Changed = p.Notes, !p.Empty()
	for i := range p.Changes {
		r.Diff += p.Changes[i].Diff()
	}
	for _, c := range p.Commands {
		r.Commands = append(r.Commands, strings.Join(c, " "))
	}
	if o.format == formatTable {
		fmt.Fprint(a.Out, p)
	}
	for _, n := range p.Notes {
		fmt.Fprintln(a.Err, "note: "+n)
	}
}

func (a *App) finishHost(o *hostOptions, r *hostResult, said string) error {
	if o.format != formatTable {
		return writeObject(a.Out, o.format, r)
	}
	_, err := fmt.Fprintln(a.Out, said)
	return err
}

// plainError leaves out which package says it: what it says is for a person.
func plainError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w", trimmed{err})
}

type trimmed struct{ error }

func (t trimmed) Error() string { return strings.ReplaceAll(t.error.Error(), "hostdns: ", "") }
func (t trimmed) Unwrap() error { return t.error }

func (a *App) dnsUninstallCmd() *cobra.Command {
	var o hostOptions
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take back what 'dns install' did to this machine",
		Long: `Take back what 'dns install' did to this machine: every file gets the bytes it
had before. Of a file that somebody else changed in between only our lines are
taken out, and you are told.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dnsUninstall(cmd.Context(), &o) },
	}
	o.flags(c)
	for _, hide := range []string{"zone", "address"} {
		_ = c.Flags().MarkHidden(hide)
	}
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "print the change and make none")
	return c
}

func (a *App) dnsUninstall(ctx context.Context, o *hostOptions) error {
	plan, err := o.machine.Uninstall(ctx)
	if err != nil {
		return plainError(err)
	}
	in, err := o.machine.Installed()
	if err != nil {
		return plainError(err)
	}
	r := hostResult{Method: plan.Method}
	if in == nil {
		r.Done = true
		return a.finishHost(o, &r, "Nothing is installed.")
	}
	a.announce(o, plan, &r)
	if o.dryRun {
		return a.finishHost(o, &r, "Nothing was changed: this was a dry run.")
	}
	resolved := len(o.machine.Lookup(ctx, o.outside)) > 0
	if err := o.machine.Apply(ctx, plan, nil); err != nil {
		return plainError(err)
	}
	if resolved && len(o.machine.Lookup(ctx, o.outside)) == 0 {
		fmt.Fprintf(a.Err, "This machine resolved %s before, by the Fingerpost DNS, and does not now: its own name servers do not answer.\n", o.outside)
	}
	r.Done = true
	return a.finishHost(o, &r, "This machine resolves as it did before.")
}
