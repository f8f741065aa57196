package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Exit codes, the same for every command.
const (
	ExitOK          = 0
	ExitError       = 1 // anything not named below
	ExitUsage       = 2 // the command line is wrong
	ExitNotFound    = 3 // the thing asked for does not exist
	ExitUnavailable = 4 // the server cannot be reached
	ExitNotReady    = 5 // it exists, but nothing alive stands behind it
)

// App is what the commands share: the streams and the global flags. Results
// go to Out, chatter goes to Err.
type App struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer

	kubeconfig string
	context    string
	namespace  string
}

// exitError carries an exit code; with an empty text nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func exitWith(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// Main runs the command line and gives the exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	app := &App{In: in, Out: out, Err: errw}
	root := app.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitOK
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(errw, "fingerpost: "+msg)
	}
	var coded *exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	return ExitError
}

func (a *App) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "fingerpost",
		Short:         "Service discovery in one binary: anything can register, anything can discover",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitWith(ExitUsage, "%w\nSee '%s --help'.", err, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig of the server (default $KUBECONFIG, then the one of the data directory, then ~/.kube/config)")
	f.StringVar(&a.context, "context", "", "context of the kubeconfig to use")
	f.StringVarP(&a.namespace, "namespace", "n", "", "namespace (default that of the context, or \"default\")")
	root.AddCommand(a.commands()...)
	usageErrors(root)
	cobra.EnableCommandSorting = false
	return root
}

// usageErrors makes wrong arguments of any command a usage error.
func usageErrors(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.ArbitraryArgs
	}
	if c.HasSubCommands() && !c.Runnable() {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return exitWith(ExitUsage, "%s has no command %q\nSee '%s --help'.", cmd.CommandPath(), args[0], cmd.CommandPath())
		}
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		var coded *exitError
		if err == nil || errors.As(err, &coded) {
			return err
		}
		return exitWith(ExitUsage, "%w\nSee '%s --help'.", err, cmd.CommandPath())
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// DataDir is where a server keeps its state unless told otherwise:
// $FINGERPOST_DATA, or /var/lib/fingerpost for root, or
// ~/.local/share/fingerpost.
func DataDir() string {
	if d := os.Getenv("FINGERPOST_DATA"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/var/lib/fingerpost"
	}
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "fingerpost")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "fingerpost")
	}
	return "fingerpost-data"
}

// adminKubeconfig is the file, in a data directory, with the credentials of
// the administrator.
func adminKubeconfig(dataDir string) string { return filepath.Join(dataDir, "admin.kubeconfig") }

func (a *App) clientConfig() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.kubeconfig
	if a.kubeconfig == "" && os.Getenv("KUBECONFIG") == "" {
		if own := adminKubeconfig(DataDir()); fileExists(own) {
			rules.ExplicitPath = own
		}
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.context})
}

// restConfig finds the server.
func (a *App) restConfig() (*rest.Config, error) {
	cfg, err := a.clientConfig().ClientConfig()
	if err != nil {
		return nil, exitWith(ExitUnavailable, "no server to talk to: %w\nStart one with 'fingerpost dev', or point --kubeconfig or $KUBECONFIG at one.", err)
	}
	cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	return cfg, nil
}

// ns is the namespace to work in.
func (a *App) ns() string {
	if a.namespace != "" {
		return a.namespace
	}
	if ns, _, err := a.clientConfig().Namespace(); err == nil && ns != "" {
		return ns
	}
	return "default"
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}
