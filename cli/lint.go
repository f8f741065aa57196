package cli

import "github.com/spf13/cobra"

func (a *App) lintCmd() *cobra.Command {
	return &cobra.Command{Use: "lint", Short: "Check manifests before they are used"}
}
