//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// row is one line of the table.
type row struct {
	Case, Metric string
	Values       map[string]float64 // by peer
	// Ratio is the most that ours may be of nginx's, Most the most that it may
	// be; 0: no target.
	Ratio, Most float64 `json:",omitempty"`
	// None: it must be 0.
	None bool `json:",omitempty"`
	// More: larger is better.
	More bool `json:",omitempty"`
}

const ours = "fingerpost"

func (r *row) target() (text, met string) {
	v, have := r.Values[ours]
	n := r.Values["nginx"]
	yes := map[bool]string{true: "yes", false: "**no**"}
	switch {
	case r.None:
		text = "0"
		if have {
			met = yes[v == 0]
		}
	case r.Ratio > 0:
		text = fmt.Sprintf("≤ %.4g × nginx", r.Ratio)
		if have && n > 0 {
			met = yes[v <= r.Ratio*n]
		}
	case r.Most > 0:
		text = fmt.Sprintf("≤ %.4g", r.Most)
		if have {
			met = yes[v <= r.Most]
		}
	}
	return text, met
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 100:
		return fmt.Sprintf("%.1f", v)
	case v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// show prints the rows as a table of Markdown.
func show(w io.Writer, rows []row, peers []peer) error {
	t := tabwriter.NewWriter(w, 0, 4, 1, ' ', 0)
	head, line := "| case | what", "| --- | ---"
	for _, p := range peers {
		head += "\t| " + p.name()
		line += "\t| ---:"
	}
	fmt.Fprintln(t, head+"\t| ÷ nginx\t| target\t| met\t|")
	fmt.Fprintln(t, line+"\t| ---:\t| ---\t| ---\t|")
	last := ""
	for _, r := range rows {
		name := r.Case
		if name == last {
			name = ""
		}
		last = r.Case
		cells := []string{"| " + name + " | " + r.Metric}
		for _, p := range peers {
			v, ok := r.Values[p.name()]
			if !ok {
				cells = append(cells, "| ")
				continue
			}
			cells = append(cells, "| "+number(v))
		}
		ratio := ""
		if v, ok := r.Values[ours]; ok && r.Values["nginx"] > 0 {
			ratio = fmt.Sprintf("%.2f", v/r.Values["nginx"])
		}
		target, met := r.target()
		cells = append(cells, "| "+ratio, "| "+target, "| "+met, "|")
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

func writeJSON(path string, rows []row) error {
	b, err := json.MarshalIndent(rows, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644) //nolint:gosec // a report
}
