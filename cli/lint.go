package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/view/gateway/ingress"
)

func (a *App) lintCmd() *cobra.Command {
	c := &cobra.Command{Use: "lint", Short: "Check manifests before they are used"}
	c.AddCommand(a.lintIngressCmd())
	return c
}

func (a *App) lintIngressCmd() *cobra.Command {
	var files []string
	var o ingress.LintOptions
	f := formatTable
	c := &cobra.Command{
		Use:   "ingress -f FILE",
		Short: "Say what the gateway makes of Ingresses that were written for ingress-nginx",
		Long: `Say what the gateway makes of Ingresses that were written for ingress-nginx: each
annotation is honoured, translated or NOT supported, with the reason and what to
do instead; and what is wrong with their hosts, paths and backends. Old API
versions and Lists are read too. No server is asked.

Exit codes: 1 when something is not supported or wrong, 2 when a file cannot be
read or understood.`,
		Example: `  fingerpost lint ingress -f old.yaml
  kubectl get ingress,service -A -o yaml | fingerpost lint ingress -f -`,
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if len(files) == 0 {
				return exitWith(ExitUsage, "no manifest is named: give -f FILE, or -f - for stdin")
			}
			all, err := a.manifests(files, o)
			if err != nil {
				return exitWith(ExitUsage, "%w", err)
			}
			o.JSON = f == formatJSON
			problems, err := ingress.Lint(bytes.NewReader(all), a.Out, o)
			switch {
			case err != nil:
				return err
			case problems == 1:
				return exitWith(ExitError, "1 problem in %s", strings.Join(files, ", "))
			case problems > 0:
				return exitWith(ExitError, "%d problems in %s", problems, strings.Join(files, ", "))
			}
			return nil
		},
	}
	fs := c.Flags()
	fs.StringArrayVarP(&files, "filename", "f", nil, "manifest, - for stdin; more than one are looked at together")
	fs.StringSliceVar(&o.Classes, "class", []string{"nginx", "fingerpost"}, "ingress class that is the gateway's")
	fs.BoolVar(&o.OnlyWithClass, "only-with-class", false, "Ingresses without a class are left to others")
	fs.BoolVar(&o.AllowExternalName, "allow-external-name", false, "Ingresses may lead to Services of type ExternalName")
	fs.BoolVar(&o.AllowCrossNamespace, "allow-cross-namespace", false, "annotations may name Secrets and ConfigMaps of other namespaces")
	formatFlag(c, &f, formatTable, formatJSON)
	return c
}

// manifests reads all files into one. Each is understood by itself first, so
// that a mistake is told of its file.
func (a *App) manifests(files []string, o ingress.LintOptions) ([]byte, error) {
	var all bytes.Buffer
	for _, name := range files {
		from := a.In
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			from = file
		}
		text, err := io.ReadAll(from)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		o.Name = name
		if name == "-" {
			o.Name = "stdin"
		}
		if _, err := ingress.Lint(bytes.NewReader(text), io.Discard, o); err != nil {
			return nil, err
		}
		if all.Len() > 0 {
			all.WriteString("\n---\n")
		}
		all.Write(text)
	}
	return all.Bytes(), nil
}
