package cli

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fingerpost/fingerpost/internal/observe"
	"github.com/fingerpost/fingerpost/server"
)

// podFlags say whether and how pods are run.
type podFlags struct {
	off   bool
	cidrs []string
	port  uint16
}

func (f *podFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.off, "no-pods", false, "run no pods on this machine (they need root)")
	fs.StringSliceVar(&f.cidrs, "pod-cidr", []string{"10.244.0.0/16"}, "range of the pods of all nodes; one of each family for dual stack")
	fs.Uint16Var(&f.port, "kubelet-port", 10250, "port of this node for logs and exec of its pods; another one is taken if it is in use")
}

// complete decides. dir is where the node keeps what it has.
func (f *podFlags) complete(c *server.Config, dir string, can bool) error {
	for _, s := range f.cidrs {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			return fmt.Errorf("--pod-cidr %q: want a range such as 10.244.0.0/16", s)
		}
		c.Pods.CIDRs = append(c.Pods.CIDRs, p)
	}
	c.Pods.Enabled, c.Pods.Dir, c.Pods.StreamPort = can && !f.off && dir != "", filepath.Join(dir, "node"), f.port
	return nil
}

// follow finds out which server a node follows: the one it joined or is to
// join, else that of the kubeconfig.
func (f *serveFlags) follow(ctx context.Context, a *App, c *server.Config) (err error) {
	dir := filepath.Join(c.StateDir, "nodes", c.NodeName, "join")
	if c.StateDir == "" || !f.join.wanted(dir) {
		if f.join.token != "" {
			return exitWith(ExitUsage, "--token needs --server and --state-dir")
		}
		c.Rest, err = a.restConfig()
		return err
	}
	if err := f.pods.complete(c, c.StateDir, privileged()); err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	id, err := f.join.identity(ctx, dir, c.NodeName, []netip.Addr{c.NodeAddress()}, c.Log)
	if err != nil {
		return err
	}
	c.Rest, c.Pods.Identity = id.Rest, id
	return nil
}

func (a *App) nodeResetCmd() *cobra.Command {
	var dir string
	var cidrs []string
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "End all pods of this machine and remove everything of them",
		Long: `End all pods of this machine and remove everything of them: processes, mounts,
network namespaces, addresses, rules, cgroups, volumes and logs; also the rules of
virtual IPs that the node left. Images stay, and so do the node's credentials. Stop 'fingerpost node' or 'dev' first.`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := observe.Logger(a.Err, "text", "warn")
			if err != nil {
				return err
			}
			f := podFlags{cidrs: cidrs}
			c := server.Config{Log: log, StateDir: dir}
			if err := f.complete(&c, dir, privileged()); err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			if !c.Pods.Enabled {
				return exitWith(ExitError, "only root can do this")
			}
			if err := server.ResetPods(cmd.Context(), c); err != nil {
				return err
			}
			fmt.Fprintln(a.Err, "Nothing of this machine's pods is left.")
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "state-dir", DataDir(), "directory of the node, or --data-dir of dev")
	cmd.Flags().StringSliceVar(&cidrs, "pod-cidr", []string{"10.244.0.0/16"}, "range of the pods of all nodes")
	return cmd
}
