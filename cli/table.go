package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// format is a value of the flag -o.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

// formatFlag adds -o with the formats that a command has, the first one being
// the default.
func formatFlag(c *cobra.Command, f *format, allowed ...format) {
	*f = allowed[0]
	words := make([]string, len(allowed))
	for i, x := range allowed {
		words[i] = string(x)
	}
	c.Flags().VarP(&formatValue{f, words}, "output", "o", "output format: "+strings.Join(words, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

type formatValue struct {
	f       *format
	allowed []string
}

func (v *formatValue) String() string { return string(*v.f) }
func (v *formatValue) Type() string   { return "format" }
func (v *formatValue) Set(s string) error {
	if !slices.Contains(v.allowed, s) {
		return fmt.Errorf("want one of %s", strings.Join(v.allowed, ", "))
	}
	*v.f = format(s)
	return nil
}

// table is rows of cells under a heading.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write aligns the columns with spaces. An empty cell shows as "-", so that
// columns can be cut by scripts; the last one stays empty.
func (t *table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, r := range append([][]string{t.head}, t.rows...) {
		if r == nil {
			continue
		}
		cells := make([]string, len(r))
		for i, c := range r {
			c = oneLine(c)
			if c == "" && i < len(r)-1 {
				c = "-"
			}
			cells[i] = c
		}
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	return tw.Flush()
}

// oneLine keeps what came from outside from breaking the table, or the
// terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, s)
}

// writeObject prints v as JSON or YAML.
func writeObject(w io.Writer, f format, v any) error {
	b, err := marshal(v, "  ")
	if err != nil {
		return err
	}
	if f == formatYAML {
		if b, err = yaml.JSONToYAML(b); err != nil {
			return err
		}
	}
	_, err = w.Write(b)
	return err
}

// marshal is JSON for people too: "->" stays readable.
func marshal(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// age says how long ago t was, in the words of kubectl.
func age(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return duration.HumanDuration(now.Sub(t))
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
