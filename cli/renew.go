package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim"
)

func (a *App) renewCmd() *cobra.Command {
	var f claimFlags
	c := &cobra.Command{
		Use:   "renew NAME [--address IP] [--port PORT] [--id ID]",
		Short: "Send one heartbeat for what 'fingerpost register --ttl' registered",
		Long: `Send one heartbeat for a registration that was made with 'fingerpost register
--ttl'. It prints how long the heartbeat is good for.

Exit code 3: there is no such registration (any more): register again.`,
		Example: `  fingerpost renew web --address 10.1.2.4 --port 8080 || fingerpost register web ...`,
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachClaim(cmd.Context(), args[0], &f, func(ctx context.Context, api claim.Client, in *v1alpha1.Instance, id string) error {
				got, err := api.Renew(ctx, in.Namespace, in.Name, &v1alpha1.Renewal{Door: doorCLI, ID: id})
				if err != nil {
					return apiError("renew "+instanceRef(in), err)
				}
				good := "it does not expire"
				if got.TTL != nil && got.TTL.Duration > 0 {
					good = "good for " + got.TTL.Duration.String()
				}
				_, err = fmt.Fprintf(a.Out, "%s renewed: %s\n", instanceRef(in), good)
				return err
			})
		},
	}
	f.add(c, "renew")
	return c
}
