package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/fingerpost/fingerpost/internal/kernel"
)

// The collector's cost under load is the live heap walked once per headroom of
// garbage, so a small live heap wants much headroom in proportion, and a large
// one little. An idle process wants none: its memory is for others.
const (
	lookEvery    = 2 * time.Second
	busyRate     = 16 << 20  // bytes allocated per second above which the process is busy
	headroom     = 128 << 20 // bytes of garbage before a collection when busy
	leastPercent = 50
	mostPercent  = 400
)

// gcPercent for a live heap.
func gcPercent(live uint64, busy bool) int {
	if !busy || live == 0 {
		return leastPercent
	}
	return int(min(max(headroom*100/live, leastPercent), mostPercent))
}

// release gives back what an idle process does not need: free memory, and the
// pages of the program that only its start or a burst used.
func release() {
	debug.FreeOSMemory()
	_ = kernel.ReleaseStartPages() // an optimisation: without it, they stay
}

// tuneMemory follows the load until ctx ends. $GOGC, if set, has the last word.
func tuneMemory(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var before uint64
	percent, busy := 0, true
	for {
		metrics.Read(samples)
		live, allocs := samples[0].Value.Uint64(), samples[1].Value.Uint64()
		was := busy
		busy = allocs-before > busyRate*uint64(lookEvery/time.Second)
		before = allocs
		if p := gcPercent(live, busy); p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		if was && !busy {
			release()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
