package cli

import "github.com/spf13/cobra"

// commands lists every command, in the order of the help.
func (a *App) commands() []*cobra.Command {
	return []*cobra.Command{
		// what runs
		a.devCmd(), a.serverCmd(), a.nodeCmd(), a.proxyNodeCmd(), a.gatewayCmd(),
		// register
		a.runCmd(), a.registerCmd(), a.renewCmd(), a.deregisterCmd(),
		// discover
		a.getCmd(), a.watchCmd(), a.resolveCmd(), a.explainCmd(), a.envCmd(), a.dnsCmd(), a.vipCmd(),
		// operate
		a.kubectlCmd(), a.kubeconfigCmd(), a.proxyCmd(), a.snapshotCmd(), a.tokenCmd(), a.lintCmd(), a.versionCmd(),
		// images of the node
		a.imageCmd(), a.demoCmd(),
	}
}
