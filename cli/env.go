package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/view/env"
)

func (a *App) envCmd() *cobra.Command {
	var syntax string
	c := &cobra.Command{
		Use:   "env",
		Short: "Print the environment variables that name the services",
		Long: `Print the environment variables that name the services of a namespace, as a
process started now would get them (MY_APP_SERVICE_HOST, MY_APP_SERVICE_PORT …).

--format shell is for eval, docker for docker run --env-file, json for programs.`,
		Example: `  eval "$(fingerpost env -n shop)"
  docker run --env-file <(fingerpost env --format docker) my-app`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, ok := envFormats[syntax]
			if !ok {
				return exitWith(ExitUsage, "--format %s: want shell, docker or json", syntax)
			}
			// All namespaces: every process is told about default/kubernetes.
			s, err := a.load(cmd.Context(), "")
			if err != nil {
				return err
			}
			if ns := a.ns(); !s.HasNamespace(ns) {
				fmt.Fprintf(a.Err, "There is no namespace %s.\n", ns)
			}
			return write(a.Out, env.Vars(s, a.ns()))
		},
	}
	c.Flags().StringVar(&syntax, "format", "shell", "shell, docker or json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"shell", "docker", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

var envFormats = map[string]func(io.Writer, []string) error{
	"shell": func(w io.Writer, vars []string) error {
		return writeNames(w, vars, func(v string) string {
			name, value, _ := strings.Cut(v, "=")
			return "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		})
	},
	"docker": func(w io.Writer, vars []string) error {
		return writeNames(w, vars, func(v string) string { return v })
	},
	"json": func(w io.Writer, vars []string) error {
		m := make(map[string]string, len(vars))
		for _, v := range vars {
			name, value, _ := strings.Cut(v, "=")
			m[name] = value
		}
		return writeObject(w, formatJSON, m)
	},
}
