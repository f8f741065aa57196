package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
)

type watchOptions struct {
	name      string
	namespace string
	all       bool
	count     int
	timeout   time.Duration
	format    format
	clock     *time.Location          // of the times shown; nil: local
	began     func(*catalog.Snapshot) // told what is there at the start; nil: nobody
}

func (o *watchOptions) location() *time.Location {
	if o.clock == nil {
		return time.Local
	}
	return o.clock
}

func (a *App) watchCmd() *cobra.Command {
	var o watchOptions
	c := &cobra.Command{
		Use:   "watch [NAME]",
		Short: "Show changes as they happen: what, who noticed, why, and how long it took",
		Long: `Show changes as they happen, one a line: the time, the service, the endpoint,
what changed, who noticed and why, and how long it took from there to here.
It goes on while the server is away, and says so.

Exit codes: 0 after --count changes or --timeout, 1 when --timeout comes before
--count, 4 when the server cannot be reached at the start.`,
		Example: `  fingerpost watch web
  fingerpost watch -A --count 1 --timeout 30s`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.namespace = a.ns()
			if len(args) > 0 {
				o.name = args[0]
			}
			scope := o.namespace
			if o.all {
				scope = ""
			}
			c, stop, err := a.follow(cmd.Context(), scope, loadTimeout)
			if err != nil {
				return err
			}
			defer stop()
			o.began = func(s *catalog.Snapshot) {
				services, endpoints := s.Len()
				fmt.Fprintf(a.Err, "Watching %s with %s. Ctrl-C ends it.\n", plural(services, "service"), plural(endpoints, "endpoint"))
			}
			return o.stream(cmd.Context(), a.Out, c)
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "of all namespaces")
	f.IntVar(&o.count, "count", 0, "end after so many changes; 0: never")
	f.DurationVar(&o.timeout, "timeout", 0, "end after this time; 0: never")
	formatFlag(c, &o.format, formatTable, formatWide, formatJSON, formatYAML, formatName)
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.serviceNames(cmd.Context())
	}
	return c
}

// stream prints what changes in a catalog until it was told enough. What is
// there at the start is no change.
func (o *watchOptions) stream(ctx context.Context, out io.Writer, c *catalog.Catalog) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	sub := c.Subscribe()
	defer sub.Close()
	first, err := sub.Next(ctx)
	if err != nil {
		return o.ended(ctx, 0)
	}
	if o.began != nil {
		o.began(first.Snapshot) // what comes now is seen
	}
	fresh := first.Snapshot.Freshness()
	seen := 0
	for {
		b, err := sub.Next(ctx)
		if err != nil {
			return o.ended(ctx, seen)
		}
		now := time.Now().UTC()
		var lines []change
		if f := b.Snapshot.Freshness(); f.Stale() != fresh.Stale() {
			lines = append(lines, sourceChange(fresh, f, now))
			fresh = f
		}
		for i := range b.Changes {
			ch := &b.Changes[i]
			if o.name == "" || ch.Key.Name == o.name {
				lines = append(lines, changes(ch, now)...)
			}
		}
		sortChanges(lines)
		for i := range lines {
			if err := lines[i].write(out, o); err != nil {
				return err
			}
			if seen++; o.count > 0 && seen >= o.count {
				return nil
			}
		}
	}
}

func (o *watchOptions) ended(ctx context.Context, seen int) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && seen < o.count {
		return exitWith(ExitError, "%d of %s within %v", seen, plural(o.count, "change"), o.timeout)
	}
	return nil
}
