package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

const metricsDefault = "127.0.0.1:9464"

// askGateway reads what a running gateway says of itself.
func askGateway(ctx context.Context, at, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/gateway/"+path, nil)
	if err != nil {
		return exitWith(ExitUsage, "--metrics-address %q: %w", at, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return exitWith(ExitUnavailable, "no gateway answers at %s: %w\nName its --metrics-address, or start one with 'fingerpost dev' or 'fingerpost gateway'.", at, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<30))
	if err != nil {
		return exitWith(ExitUnavailable, "the gateway at %s: %w", at, err)
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, into) != nil {
		return exitWith(ExitUnavailable, "what answers at %s has no gateway: name the --metrics-address of one", at)
	}
	return nil
}

func (a *App) gatewayRoutesCmd() *cobra.Command {
	var at string
	var f format
	c := &cobra.Command{
		Use:   "routes [HOST]",
		Short: "Print the routing table of the gateway that runs on this machine",
		Example: `  fingerpost gateway routes
  fingerpost gateway routes shop.example.com -o json`,
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []route.Description
			if err := askGateway(cmd.Context(), at, "routes", &all); err != nil {
				return err
			}
			if len(args) == 1 {
				kept := all[:0]
				for _, d := range all {
					if strings.EqualFold(d.Host, args[0]) {
						kept = append(kept, d)
					}
				}
				if all = kept; len(all) == 0 {
					return exitWith(ExitNotFound, "no rule is for the host %q; 'fingerpost gateway explain http://%s/' says what answers", args[0], args[0])
				}
			}
			if f != formatTable {
				if all == nil {
					all = []route.Description{}
				}
				return writeObject(a.Out, f, all)
			}
			t := table{head: []string{"HOST", "PATH", "TARGET", "FROM", "TLS", "NOTE"}}
			for _, d := range all {
				tls := "no"
				if d.TLS {
					tls = "yes"
				}
				t.row(d.Host, strings.TrimSpace(d.Kind+" "+d.Path)+conditions(d.Conditions), d.Target, d.Origin, tls, d.Problem)
			}
			return t.write(a.Out)
		},
	}
	c.Flags().StringVar(&at, "metrics-address", metricsDefault, "where the gateway tells its metrics")
	formatFlag(c, &f, formatTable, formatJSON, formatYAML)
	return c
}

func conditions(c []string) string {
	if len(c) == 0 {
		return ""
	}
	return " if " + strings.Join(c, ", ")
}

func (a *App) gatewayExplainCmd() *cobra.Command {
	var at, method string
	var headers []string
	var f format
	c := &cobra.Command{
		Use:   "explain URL",
		Short: "Say where the gateway sends a request, and why",
		Long: `Say where the gateway that runs on this machine sends a request, and why: which
host and rule match, which others were considered, what the rule asks for, and
which endpoints stand behind it, with those that are left out after failures.

Exit codes: 3 when no rule matches, 5 when nothing alive stands behind it.`,
		Example: `  fingerpost gateway explain http://shop.example.com/cart?id=7
  fingerpost gateway explain https://shop.example.com/ --method POST --header 'X-Canary: always'`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			target := args[0]
			if !strings.Contains(target, "://") {
				target = "http://" + target
			}
			u, err := url.Parse(target)
			if err != nil || u.Host == "" {
				return exitWith(ExitUsage, "%q: want a URL such as http://shop.example.com/cart", args[0])
			}
			for _, h := range headers {
				if name, _, ok := strings.Cut(h, ":"); !ok || strings.TrimSpace(name) == "" {
					return exitWith(ExitUsage, "--header %q: want 'Name: value'", h)
				}
			}
			q := url.Values{"method": {method}, "host": {u.Host}, "path": {u.RequestURI()}, "header": headers}
			var x gateway.Explanation
			if err := askGateway(cmd.Context(), at, "explain?"+q.Encode(), &x); err != nil {
				return err
			}
			if f != formatTable {
				if err := writeObject(a.Out, f, &x); err != nil {
					return err
				}
			} else if err := a.printExplanation(&x); err != nil {
				return err
			}
			return explained(&x, u)
		},
	}
	fs := c.Flags()
	fs.StringVar(&at, "metrics-address", metricsDefault, "where the gateway tells its metrics")
	fs.StringVarP(&method, "method", "X", "GET", "method of the request")
	fs.StringArrayVarP(&headers, "header", "H", nil, "field of the request, 'Name: value'")
	formatFlag(c, &f, formatTable, formatJSON, formatYAML)
	return c
}

// explained turns an explanation into the exit code.
func explained(x *gateway.Explanation, u *url.URL) error {
	switch {
	case !x.Ready && x.Origin == "":
		return exitWith(ExitUnavailable, "the gateway is not ready: %s", oneLine(x.Why))
	case x.Origin == "" && len(x.Backends) == 0:
		return exitWith(ExitNotFound, "no rule matches %s", u)
	case x.Problem != "":
		return exitWith(ExitNotReady, "%s", x.Problem)
	}
	for _, b := range x.Backends {
		for _, e := range b.Endpoints {
			if e.Ejected == 0 {
				return nil
			}
		}
	}
	if len(x.Backends) == 0 { // the gateway answers by itself
		return nil
	}
	return exitWith(ExitNotReady, "nothing alive stands behind %s", u)
}

func (a *App) printExplanation(x *gateway.Explanation) error {
	if !x.Ready {
		fmt.Fprintf(a.Err, "note: the gateway is not ready: %s\n", oneLine(x.Why))
	}
	for _, s := range x.Steps {
		mark := " "
		if s.Chosen {
			mark = ">"
		}
		fmt.Fprintf(a.Out, "%s %-7s %s\n", mark, s.About, oneLine(s.Text))
	}
	if x.Origin != "" {
		fmt.Fprintf(a.Out, "  %-7s %s\n", "from", oneLine(x.Origin))
	}
	for _, p := range x.Policy {
		fmt.Fprintf(a.Out, "  %-7s %s\n", "policy", oneLine(p))
	}
	if x.Problem != "" {
		fmt.Fprintf(a.Out, "  %-7s %s\n", "problem", oneLine(x.Problem))
	}
	if len(x.Backends) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	t := table{head: []string{"BACKEND", "WEIGHT", "ENDPOINT", "BEHIND", "ACTIVE", "REQUESTS", "FAILURES", "NOTE"}}
	for _, b := range x.Backends {
		name := b.Backend
		if b.Canary {
			name += " (canary)"
		}
		if len(b.Endpoints) == 0 {
			t.row(name, strconv.Itoa(int(b.Weight)), "", "", "", "", "", b.Problem)
		}
		for _, e := range b.Endpoints {
			note := b.Problem
			if e.Ejected > 0 {
				note = "left out for " + e.Ejected.Round(time.Millisecond).String() + " after failures"
			}
			t.row(name, strconv.Itoa(int(b.Weight)), e.Address, e.Target, strconv.Itoa(e.Active),
				strconv.FormatUint(e.Requests, 10), strconv.FormatUint(e.Failures, 10), note)
		}
	}
	return t.write(a.Out)
}
