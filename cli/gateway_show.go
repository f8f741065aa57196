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

	"github.com/fingerpost/fingerpost/server"
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

// noteStale says on stderr that what the gateway serves may be old. A gateway that
// does not tell is believed.
func (a *App) noteStale(ctx context.Context, at string) {
	var s server.GatewayStats
	if askGateway(ctx, at, "stats", &s) != nil || s.RoutesStale.IsZero() {
		return
	}
	fmt.Fprintf(a.Err, "note: these routes are those of %s (%s ago): the API server does not answer the gateway; changes since then are not served\n",
		s.RoutesStale.Local().Format("2006-01-02 15:04:05"), time.Since(s.RoutesStale).Round(time.Second))
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
			a.noteStale(cmd.Context(), at)
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
	var at, method, client string
	var headers []string
	var f format
	c := &cobra.Command{
		Use:   "explain URL",
		Short: "Say where the gateway sends a request, and why",
		Long: `Say where the gateway that runs on this machine sends a request, and why: which
host and rule match and why others do not, what the rule does with the request, in
order, which endpoints stand behind it, and those that get no requests with the
reason; and what the client gets. Nothing is sent, asked or counted.

Exit codes: 3 when no rule matches, 5 when nothing alive stands behind it.`,
		Example: `  fingerpost gateway explain http://shop.example.com/cart?id=7
  fingerpost gateway explain https://shop.example.com/ --method POST --header 'X-Canary: always'
  fingerpost gateway explain https://shop.example.com/admin --client 198.51.100.7 -o json`,
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
			if client != "" && !isIP(client) {
				return exitWith(ExitUsage, "--client %q: want an IP address", client)
			}
			q := url.Values{"scheme": {u.Scheme}, "client": {client}, "method": {method}, "host": {u.Host}, "path": {u.RequestURI()}, "header": headers}
			var x gateway.Explanation
			if err := askGateway(cmd.Context(), at, "explain?"+q.Encode(), &x); err != nil {
				return err
			}
			a.noteStale(cmd.Context(), at)
			if f != formatTable {
				if err := writeObject(a.Out, f, &x); err != nil {
					return err
				}
			} else if err := a.printExplanation(&x, method, u); err != nil {
				return err
			}
			return explained(&x, u)
		},
	}
	fs := c.Flags()
	fs.StringVar(&at, "metrics-address", metricsDefault, "where the gateway tells its metrics")
	fs.StringVarP(&method, "method", "X", "GET", "method of the request")
	fs.StringVar(&client, "client", "", "IP address of the client, for rules that look at it")
	fs.StringArrayVarP(&headers, "header", "H", nil, "field of the request, 'Name: value'")
	formatFlag(c, &f, formatTable, formatJSON, formatYAML)
	return c
}

// explained turns an explanation into the exit code.
func explained(x *gateway.Explanation, u *url.URL) error {
	switch {
	case !x.Ready && x.Origin == "":
		return exitWith(ExitUnavailable, "the gateway is not ready: %s", oneLine(x.Why))
	case x.Origin == "" && len(x.Backends) == 0 && (x.Status == 0 || x.Status >= 400):
		return exitWith(ExitNotFound, "no rule matches %s", u)
	case x.Status != 0 && x.Status < 500: // the gateway answers by itself
		return nil
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
	if len(x.Backends) == 0 {
		return nil
	}
	return exitWith(ExitNotReady, "nothing alive stands behind %s", u)
}

// printExplanation tells it from the request to the answer.
func (a *App) printExplanation(x *gateway.Explanation, method string, u *url.URL) error {
	if !x.Ready {
		fmt.Fprintf(a.Err, "note: the gateway is not ready: %s\n", oneLine(x.Why))
	}
	line := func(about, format string, args ...any) {
		fmt.Fprintf(a.Out, "%-9s %s\n", about, oneLine(fmt.Sprintf(format, args...)))
	}
	line("request", "%s %s", method, u)
	var others []route.Step
	for _, s := range x.Steps {
		switch {
		case s.Chosen:
			line("rule", "%s", s.Text)
		case s.About == "rule":
			others = append(others, s)
		case s.About == "answer" && !strings.HasPrefix(s.Text, "$") && !strings.HasPrefix(s.Text, "no rule matches: "): // the last line says it
		default:
			line(s.About, "%s", s.Text)
		}
	}
	for _, s := range others {
		line("  not", "%s", s.Text)
	}
	for i, d := range x.Does {
		line("", "%d. %s", i+1, d.Text)
	}
	if x.Status == 0 || x.Status >= 500 {
		for _, p := range x.Policy {
			line("carried", "%s", p)
		}
		if err := a.printBackends(x.Backends); err != nil {
			return err
		}
	}
	line("answer", "%s", x.Answer)
	return nil
}

// printBackends tells of the endpoints, and why who is out.
func (a *App) printBackends(all []gateway.BackendState) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	t := table{head: []string{"BACKEND", "ENDPOINT", "BEHIND", "STATE", "ACTIVE", "REQUESTS", "FAILURES"}}
	for _, b := range all {
		name := b.Backend
		if b.Canary {
			name += " (canary)"
		} else if b.Weight > 1 {
			name += " (weight " + strconv.Itoa(int(b.Weight)) + ")"
		}
		if len(b.Endpoints) == 0 {
			t.row(name, "", "", b.Problem, "", "", "")
		}
		for _, e := range b.Endpoints {
			state := "takes requests"
			if e.Ejected > 0 {
				state = "left out for " + e.Ejected.Round(time.Millisecond).String() + " after failures"
			}
			t.row(name, e.Address, e.Target, state, strconv.Itoa(e.Active), strconv.FormatUint(e.Requests, 10), strconv.FormatUint(e.Failures, 10))
		}
		for _, l := range b.Left {
			t.row(name, l.Address, l.Target, "out: "+l.Why, "", "", "")
		}
	}
	if err := t.write(a.Out); err != nil {
		return err
	}
	fmt.Fprintln(a.Out)
	return nil
}
