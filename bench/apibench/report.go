package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// row is one measured thing, of Fingerpost (ours) and of its peer.
type row struct {
	Part string   `json:"part"`
	What string   `json:"what"`
	Unit string   `json:"unit"`
	Ours *float64 `json:"fingerpost"`
	Peer *float64 `json:"peer,omitempty"`
	// Ratio says how many times better ours is: below 1 it is worse.
	Ratio *float64 `json:"ratio,omitempty"`
	// More says that a larger number is the better one.
	More   bool     `json:"moreIsBetter"`
	Target *float64 `json:"target,omitempty"`
	Met    *bool    `json:"met,omitempty"`
	Note   string   `json:"note,omitempty"`
}

// report collects rows in the order in which they are first named. Ours and
// the peer's numbers come at different times, from different servers.
type report struct {
	Date    string  `json:"date"`
	CPUs    int     `json:"cpus"`
	Memory  string  `json:"memory"`
	Sync    float64 `json:"diskSyncMicroseconds"` // median
	Sync99  float64 `json:"diskSyncMicroseconds99"`
	Took    string  `json:"took"`
	Rows    []*row  `json:"rows"`
	verbose io.Writer
}

// side says whose number it is.
type side int

const (
	ours side = iota
	peer
)

// opt changes a row.
type opt func(*row)

func upwards(r *row) { r.More = true }

func target(v float64) opt { return func(r *row) { r.Target = &v } }

func note(s string) opt { return func(r *row) { r.Note = s } }

// add takes a number.
func (r *report) add(s side, part, what, unit string, v float64, opts ...opt) {
	i := slices.IndexFunc(r.Rows, func(x *row) bool { return x.Part == part && x.What == what })
	if i < 0 {
		// Rows of one part stay together.
		i = len(r.Rows)
		for j, x := range r.Rows {
			if x.Part == part {
				i = j + 1
			}
		}
		r.Rows = slices.Insert(r.Rows, i, &row{Part: part, What: what, Unit: unit})
	}
	x := r.Rows[i]
	for _, o := range opts {
		o(x)
	}
	if s == ours {
		x.Ours = &v
	} else {
		x.Peer = &v
	}
	x.judge()
	fmt.Fprintf(r.verbose, "  %-10s %-60s %s %s\n", []string{"fingerpost", "peer"}[s], what, number(&v), unit)
}

// value is our number of a row, if there is one.
func (r *report) value(part, what string) *float64 {
	for _, x := range r.Rows {
		if x.Part == part && x.What == what {
			return x.Ours
		}
	}
	return nil
}

func (x *row) judge() {
	if x.Ours != nil && x.Peer != nil && *x.Ours > 0 && *x.Peer > 0 {
		q := *x.Peer / *x.Ours
		if x.More {
			q = 1 / q
		}
		x.Ratio = &q
	}
	if x.Ours != nil && x.Target != nil {
		met := *x.Ours <= *x.Target
		if x.More {
			met = *x.Ours >= *x.Target
		}
		x.Met = &met
	}
}

// number prints three digits that count.
func number(v *float64) string {
	if v == nil {
		return ""
	}
	a := math.Abs(*v)
	switch {
	case a >= 100 || a == 0:
		return fmt.Sprintf("%.0f", *v)
	case a >= 10:
		return fmt.Sprintf("%.1f", *v)
	default:
		return fmt.Sprintf("%.2f", *v)
	}
}

// table prints the rows as Markdown, the ratio first.
func (r *report) table(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, %s memory, one sync of 2 KiB to the disk %s µs (p99 %s µs); took %s.\n\n", r.Date, r.CPUs, r.Memory, number(&r.Sync), number(&r.Sync99), r.Took)
	fmt.Fprintln(w, "| times better | | fingerpost | peer | unit | target | met |")
	fmt.Fprintln(w, "| ---: | --- | ---: | ---: | --- | ---: | --- |")
	part := ""
	for _, x := range r.Rows {
		if x.Part != part {
			part = x.Part
			fmt.Fprintf(w, "| | **%s** | | | | | |\n", part)
		}
		ratio, goal, met := "", "", ""
		if x.Ratio != nil {
			ratio = number(x.Ratio)
		}
		if x.Target != nil {
			goal = "≤ " + number(x.Target)
			if x.More {
				goal = "≥ " + number(x.Target)
			}
		}
		if x.Met != nil {
			met = map[bool]string{true: "yes", false: "**no**"}[*x.Met]
		}
		what := x.What
		if x.Note != "" {
			what += " (" + x.Note + ")"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", ratio, what, number(x.Ours), number(x.Peer), x.Unit, goal, met)
	}
	missed := 0
	for _, x := range r.Rows {
		if x.Met != nil && !*x.Met {
			missed++
		}
	}
	fmt.Fprintf(w, "\nTargets missed: %d.\n", missed)
}

func (r *report) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err == nil {
		err = os.WriteFile(file, append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the results to %s: %w", file, err)
	}
	return nil
}

// machine fills in what the numbers depend on.
func (r *report) machine(dir string) error {
	r.Date = time.Now().Format(time.DateOnly)
	r.CPUs = runtime.NumCPU()
	r.Memory = "unknown"
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb float64
		if _, err := fmt.Sscanf(strings.TrimPrefix(string(b), "MemTotal:"), "%f", &kb); err == nil {
			r.Memory = fmt.Sprintf("%.0f GiB", kb/(1<<20))
		}
	}
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	buf := make([]byte, 2<<10)
	took := make(durations, 500)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(buf); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		took[i] = time.Since(began)
	}
	r.Sync, r.Sync99 = took.at(0.5).Seconds()*1e6, took.at(0.99).Seconds()*1e6
	return nil
}

// durations are samples.
type durations []time.Duration

// at is a quantile, by the nearest rank.
func (d durations) at(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, max(0, int(math.Ceil(q*float64(len(s))))-1))]
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func us(d time.Duration, n int) float64 { return d.Seconds() * 1e6 / float64(n) }

func mb(b int64) float64 { return float64(b) / 1e6 }
