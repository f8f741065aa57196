package server

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/catalog/disk"
)

// stateDir is where this node keeps what it must not forget; "" if nowhere.
// Several nodes may share a machine, and a directory.
func (c *Config) stateDir() string {
	if c.StateDir == "" {
		return ""
	}
	return filepath.Join(c.StateDir, "nodes", c.NodeName)
}

// keptPatience is how long a node that starts from a snapshot waits for its
// server before it says that it is ready.
const keptPatience = 3 * time.Second

// keep fills the catalog from the snapshot of the last run, and adds the part
// that writes the next one. It must be added before the door, so that it stops
// after it. It says whether there was a snapshot.
func (s *System) keep(c *Config, cat *catalog.Catalog) (bool, error) {
	dir := c.stateDir()
	if dir == "" {
		return false, nil
	}
	written := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "fingerpost_catalog_disk_write_seconds", Help: "Time to write the catalog to disk.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
	})
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fingerpost_catalog_disk_failures_total", Help: "Times that the catalog could not be written to disk.",
	})
	bytes := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fingerpost_catalog_disk_bytes", Help: "Size of the catalog on disk.",
	})
	for _, m := range []prometheus.Collector{written, failed, bytes} {
		if err := c.Registry.Register(m); err != nil {
			return false, err
		}
	}
	source := "this process"
	if c.pki == nil {
		source = c.Rest.Host
	}
	f, err := disk.New(disk.Config{
		Path: filepath.Join(dir, "catalog"), Source: source, Log: c.Log,
		Wrote: func(w disk.Write) {
			if w.Err != nil {
				failed.Inc()
				return
			}
			written.Observe(w.Took.Seconds())
			bytes.Set(float64(w.Bytes))
		},
	})
	if err != nil {
		return false, err
	}
	loaded := f.Load(cat)
	s.add("catalog on disk", func(ctx context.Context) error { return f.Run(ctx, cat) }, nil)
	return loaded, nil
}

// orPatience is ready when synced is, or when a node with a snapshot has waited
// for its server for long enough: it answers what it knows.
func (s *System) orPatience(synced <-chan struct{}, loaded bool) <-chan struct{} {
	if !loaded {
		return synced
	}
	ready := make(chan struct{})
	s.add("start from the snapshot", func(ctx context.Context) error {
		select {
		case <-synced:
		case <-time.After(keptPatience):
		case <-ctx.Done():
			return nil
		}
		close(ready)
		<-ctx.Done()
		return nil
	}, nil)
	return ready
}

const rangesFile = "service-ranges"

// keptRanges are the service ranges that the server told in an earlier run.
func (c *Config) keptRanges() (ranges []netip.Prefix) {
	if c.stateDir() == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(c.stateDir(), rangesFile))
	if err != nil {
		return nil // the server will tell
	}
	for line := range strings.Lines(string(b)) {
		if p, err := netip.ParsePrefix(strings.TrimSpace(line)); err == nil && p == p.Masked() {
			ranges = append(ranges, p)
		}
	}
	return ranges
}

// keepRanges writes them for the next run.
func (c *Config) keepRanges(ranges []netip.Prefix) {
	if c.stateDir() == "" {
		return
	}
	var b strings.Builder
	for _, p := range ranges {
		b.WriteString(p.String() + "\n")
	}
	path := filepath.Join(c.stateDir(), rangesFile)
	err := os.MkdirAll(c.stateDir(), 0o700)
	if err == nil {
		err = os.WriteFile(path+".new", []byte(b.String()), 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.Log.Warn("the service ranges could not be kept: a start without the server would have no virtual IPs", "error", err)
	}
}
