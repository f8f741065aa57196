package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/internal/hostdns"
)

// hostStatus is the shape of -o json of dns status.
type hostStatus struct {
	Detected    hostdns.Found      `json:"detected"`
	Installed   *hostdns.Installed `json:"installed,omitempty"`
	Server      string             `json:"server"`
	Health      hostdns.Health     `json:"health"`
	Reached     bool               `json:"reached"` // the machine's own resolver gets to it
	Why         string             `json:"why"`
	Nameservers []string           `json:"nameservers"` // of resolv.conf, in order
	Upstreams   []string           `json:"upstreams"`   // of those, the ones that are not ours
}

func (a *App) dnsStatusCmd() *cobra.Command {
	var o hostOptions
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell how this machine resolves the cluster's names",
		Long: `Tell how this machine resolves the cluster's names: by which way, whether the
Fingerpost DNS answers, whether the machine's own resolver gets to it, and which
name servers are behind it.

Exit codes: 4 when the DNS does not answer, 5 when it does but this machine's
programs do not get to it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dnsStatus(cmd.Context(), &o) },
	}
	o.flags(c)
	return c
}

func (a *App) dnsStatus(ctx context.Context, o *hostOptions) error {
	var s hostStatus
	var err error
	if s.Detected, err = o.machine.Detect(ctx); err != nil {
		return plainError(err)
	}
	switch s.Installed, err = o.machine.Installed(); {
	case errors.Is(err, fs.ErrPermission):
		fmt.Fprintln(a.Err, "note: what was installed can be read by root only.")
	case err != nil:
		return plainError(err)
	}
	w := hostdns.Want{Zone: strings.ToLower(strings.Trim(o.zone, "."))}
	if s.Installed != nil && o.address == "" {
		w = s.Installed.Want
	} else if w.Server, err = o.server(s.Detected.Method); err != nil {
		return err
	}
	s.Server = w.Server.String()
	check := o.check(w, s.Detected.Method)
	s.Health = check.Health(ctx)
	if s.Health.Answers {
		s.Reached, s.Why = check.Reaches(ctx)
	} else {
		s.Why = s.Health.Error
	}
	s.Nameservers, s.Upstreams = []string{}, []string{}
	if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
		for _, n := range hostdns.Nameservers(string(text)) {
			s.Nameservers = append(s.Nameservers, n.String())
			if n != w.Server.Addr() {
				s.Upstreams = append(s.Upstreams, n.String())
			}
		}
	}
	if o.format != formatTable {
		if err := writeObject(a.Out, o.format, s); err != nil {
			return err
		}
	} else {
		a.printStatus(&s, o)
	}
	switch {
	case !s.Health.Answers:
		return exitWith(ExitUnavailable, "the DNS at %s does not answer for %s", s.Server, w.Zone)
	case !s.Reached:
		return exitWith(ExitNotReady, "this machine's programs do not resolve %s by %s", w.Zone, s.Server)
	}
	return nil
}

func (a *App) printStatus(s *hostStatus, o *hostOptions) {
	field := func(name, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-12s %s\n", name+":", oneLine(fmt.Sprintf(format, args...)))
	}
	field("Resolver", "%s: %s", s.Detected.Method, s.Detected.Why)
	if s.Detected.Refuse != "" {
		field("Trouble", "%s", s.Detected.Refuse)
	}
	if s.Installed == nil {
		field("Installed", "no")
	} else {
		field("Installed", "%s, for %s by way of %s, in %s", s.Installed.Method, s.Installed.Want.Zone, s.Installed.Want.Server, strings.Join(s.Installed.Files, ", "))
		for _, d := range s.Installed.Drift {
			field("Trouble", "%s", strings.TrimPrefix(d, "hostdns: "))
		}
	}
	if s.Health.Answers {
		field("Fingerpost", "%s answers in %.1f ms (DNS specification %s)", s.Server, float64(s.Health.Took.Microseconds())/1000, s.Health.Version)
	} else {
		field("Fingerpost", "%s: %s", s.Server, s.Health.Error)
	}
	if s.Reached {
		field("Programs", "get there: %s", s.Why)
	} else {
		field("Programs", "do not get there: %s", s.Why)
	}
	forwards := "and does not resolve " + o.outside
	if s.Health.Forwards {
		forwards = "and resolves " + o.outside
	}
	field("Others", "name servers of resolv.conf: %s; Fingerpost forwards to %s unless --dns-upstream says otherwise, %s",
		orElseText(strings.Join(s.Nameservers, ", "), "none"), orElseText(strings.Join(s.Upstreams, ", "), "none"), forwards)
}
