package cli

import "github.com/spf13/cobra"

// commands lists every command, in the order of the help.
func (a *App) commands() []*cobra.Command {
	return []*cobra.Command{
		a.devCmd(), a.serverCmd(), a.nodeCmd(),
		a.getCmd(), a.watchCmd(), a.resolveCmd(), a.explainCmd(), a.envCmd(),
		a.snapshotCmd(),
		a.versionCmd(),
	}
}
