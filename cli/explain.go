package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
)

func (a *App) explainCmd() *cobra.Command {
	var f format
	c := &cobra.Command{
		Use:   "explain NAME[:PORT]",
		Short: "Tell why a name leads where it leads: address, ports, who is in, who is out and why",
		Long: `Tell why a name leads where it leads: from the name to its type, address and
ports, to the endpoints that are in, and to those that are out: why, since when
and who said so. NAME may be that of the cluster DNS (web.shop,
web.shop.svc.cluster.local). PORT, a number or a name, asks about that port.

Exit codes: 3 when the name or the port does not exist, 5 when nothing alive
stands behind it, 4 when the server cannot be reached.`,
		Example: `  fingerpost explain web
  fingerpost explain web.shop:http`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, port := parseTarget(args[0], a.ns())
			s, err := a.load(cmd.Context(), k.Namespace)
			if err != nil {
				return err
			}
			if s.Get(k) == nil {
				// Only now is it worth reading all namespaces: the name may be in
				// another. Who may not read them does without the hint.
				whole := false
				if all, err := a.load(cmd.Context(), ""); err == nil {
					s, whole = all, true
				}
				if s.Get(k) == nil {
					return notFound(s, k, whole)
				}
			}
			return renderExplain(a.Out, s, k, port, f, time.Now())
		},
	}
	formatFlag(c, &f, formatTable, formatJSON, formatYAML)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.serviceNames(cmd.Context())
	}
	return c
}

// parseTarget reads NAME[:PORT], with NAME as long as people write it:
// web, web.shop, web.shop.svc, web.shop.svc.cluster.local, shop/web,
// http://web:8080/path.
func parseTarget(s, namespace string) (k catalog.Key, port string) {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s, _, _ = strings.Cut(rest, "/")
	}
	s = strings.TrimPrefix(strings.TrimPrefix(s, "services/"), "service/")
	s, port, _ = strings.Cut(s, ":")
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return catalog.Key{Namespace: ns, Name: name}, port
	}
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	k = catalog.Key{Namespace: namespace, Name: labels[0]}
	if len(labels) == 2 || len(labels) > 2 && labels[2] == "svc" {
		k.Namespace = labels[1]
	}
	return k, port
}
