package cli

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/node/image/builtin"
)

// demoCmd is what built-in images start; nobody needs to type it.
func (a *App) demoCmd() *cobra.Command {
	var port int
	cmd := &cobra.Command{
		Use:    "demo PROGRAM",
		Short:  "Run a program that stands in for an image of a tutorial",
		Hidden: true,
		// What follows the program is meant for the one it stands in for.
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if port < 0 || port > 65535 {
				return exitWith(ExitUsage, "--port %d is outside of 1 to 65535", port)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGQUIT)
			defer stop()
			return builtin.Run(ctx, args[0], port, a.Out)
		},
	}
	cmd.Flags().IntVar(&port, "port", 0, "port to listen on (default the program's own)")
	return cmd
}
