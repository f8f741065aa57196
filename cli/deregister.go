package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process"
	"github.com/fingerpost/fingerpost/door/process/claim"
)

// claimFlags say which registration of a service is meant.
type claimFlags struct {
	address string
	port    string
	id      string
	all     bool
}

func (f *claimFlags) add(c *cobra.Command, verb string) {
	fl := c.Flags()
	fl.StringVar(&f.address, "address", "", "IP address of the endpoint")
	fl.StringVar(&f.port, "port", "", "its port: [NAME=]NUMBER")
	fl.StringVar(&f.id, "id", "", "name of the registration")
	fl.BoolVar(&f.all, "all", false, verb+" all of the service's registrations that were made with 'fingerpost register'")
}

func (a *App) deregisterCmd() *cobra.Command {
	var f claimFlags
	c := &cobra.Command{
		Use:   "deregister NAME [--address IP] [--port PORT] [--id ID]",
		Short: "Take back what 'fingerpost register' registered",
		Long: `Take back a registration that was made with 'fingerpost register'. What came
through other doors (processes, registries) stays: an endpoint goes when its
last registration does. Address, port and id are needed as far as the service
has several registrations.

Exit code 3: there is no such registration.`,
		Example: `  fingerpost deregister web --address 10.1.2.4 --port 8080
  fingerpost deregister db`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachClaim(cmd.Context(), args[0], &f, func(ctx context.Context, api claim.Client, in *v1alpha1.Instance, id string) error {
				was, err := claim.Remove(ctx, api, in.Namespace, in.Name, doorCLI, id)
				if err != nil {
					return apiError("deregister "+instanceRef(in), err)
				}
				if !was {
					return exitWith(ExitNotFound, "deregister %s: somebody else has just done it", instanceRef(in))
				}
				_, err = fmt.Fprintf(a.Out, "%s deregistered\n", instanceRef(in))
				return err
			})
		},
	}
	f.add(c, "deregister")
	return c
}

// eachClaim calls do with the claims that are meant: one, or all if asked.
func (a *App) eachClaim(ctx context.Context, service string, f *claimFlags, do func(context.Context, claim.Client, *v1alpha1.Instance, string) error) error {
	match, err := f.matcher()
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	conn, err := a.restConfig()
	if err != nil {
		return err
	}
	c, err := instanceClient(conn)
	if err != nil {
		return err
	}
	list, err := c.Instances(a.ns()).List(ctx, metav1.ListOptions{})
	if err != nil {
		return apiError("look up the registrations of "+service, err)
	}
	type found struct {
		in *v1alpha1.Instance
		id string
	}
	var meant []found
	for i := range list.Items {
		in := &list.Items[i]
		if in.Spec.Service != service || !match(in) {
			continue
		}
		for _, cl := range in.Spec.Claims {
			if cl.Door == doorCLI && (f.id == "" || cl.ID == f.id) {
				meant = append(meant, found{in, cl.ID})
			}
		}
	}
	switch {
	case len(meant) == 0:
		return exitWith(ExitNotFound, "no registration of %s in namespace %s made with 'fingerpost register' matches", service, a.ns())
	case len(meant) > 1 && !f.all:
		lines := make([]string, len(meant))
		for i, m := range meant {
			lines[i] = fmt.Sprintf("  %s --id %s", instanceRef(m.in), m.id)
		}
		return exitWith(ExitUsage, "%d registrations match; say which with --address, --port or --id, or --all:\n%s", len(meant), strings.Join(lines, "\n"))
	}
	for _, m := range meant {
		if err := do(ctx, claim.On(c), m.in, m.id); err != nil {
			return err
		}
	}
	return nil
}

func (f *claimFlags) matcher() (func(*v1alpha1.Instance) bool, error) {
	address, port := "", int32(0)
	if f.address != "" {
		ip, err := parseAddress(f.address)
		if err != nil {
			return nil, err
		}
		address = ip.String()
	}
	if f.port != "" {
		p, err := process.ParsePort(f.port)
		if err != nil {
			return nil, fmt.Errorf("--port: %w", err)
		}
		port = p.Number
	}
	return func(in *v1alpha1.Instance) bool {
		return (address == "" || in.Spec.Address == address) &&
			(port == 0 || len(in.Spec.Ports) > 0 && in.Spec.Ports[0].Port == port)
	}, nil
}
