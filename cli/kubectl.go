package cli

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	componentcli "k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
)

func (a *App) kubectlCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "kubectl [kubectl's own arguments]",
		Short: "kubectl, carried along: everything it does, on this server",
		Long: `kubectl as it is, carried along so that a machine without one needs nothing
else. It finds the server as the other commands do. Plugins are not looked for.`,
		Example: `  fingerpost kubectl get services -o wide
  fingerpost kubectl apply -f web.yaml
  fingerpost kubectl explain instance.spec`,
		DisableFlagParsing: true, // all flags are kubectl's
		RunE: func(_ *cobra.Command, args []string) error {
			return a.kubectl(args)
		},
	}
}

// kubectlExit carries the exit code out of kubectl's code, which expects the
// process to end where it finds an error.
type kubectlExit int

// kubectl builds and runs kubectl's command tree. It is built here, not with
// the other commands, as that costs more than most of them do.
func (a *App) kubectl(args []string) (err error) {
	defer a.lendKubeconfig(args)()
	// kubectl ends by signals as the system has it, or takes care of them
	// itself (exec, watch); main's handlers would swallow them.
	signal.Reset(os.Interrupt, syscall.SIGTERM)

	defer func() {
		switch code := recover().(type) {
		case nil:
		case kubectlExit:
			err = exitWith(int(code), "")
		default:
			panic(code)
		}
	}()
	kubectlutil.BehaviorOnFatal(func(msg string, code int) {
		if msg != "" {
			fmt.Fprintln(a.Err, strings.TrimSuffix(msg, "\n"))
		}
		panic(kubectlExit(code))
	})
	defer kubectlutil.DefaultBehaviorOnFatal()

	streams := genericiooptions.IOStreams{In: a.In, Out: a.Out, ErrOut: a.Err}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().
		WithDiscoveryBurst(300).WithDiscoveryQPS(50).WithWarningPrinter(streams)
	cmd := kubectl.NewKubectlCommand(kubectl.KubectlOptions{
		Arguments:   append([]string{"kubectl"}, args...),
		ConfigFlags: flags,
		IOStreams:   streams,
	})
	cmd.SetArgs(args)
	cmd.SetIn(a.In)
	cmd.SetOut(a.Out)
	cmd.SetErr(a.Err)
	kubectlutil.CheckErr(componentcli.RunNoErrOutput(cmd))
	return nil
}

// lendKubeconfig lets kubectl find the server as the other commands do, and
// gives a function that puts the environment back.
func (a *App) lendKubeconfig(args []string) (giveBack func()) {
	const name = "KUBECONFIG"
	given := slices.ContainsFunc(args, func(s string) bool {
		return s == "--kubeconfig" || strings.HasPrefix(s, "--kubeconfig=")
	})
	own := adminKubeconfig(DataDir())
	if before, set := os.LookupEnv(name); given || before != "" || !fileExists(own) {
		return func() {}
	} else if set {
		giveBack = func() { os.Setenv(name, before) }
	} else {
		giveBack = func() { os.Unsetenv(name) }
	}
	os.Setenv(name, own)
	return giveBack
}
