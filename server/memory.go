package server

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/fingerpost/fingerpost/internal/kernel"
)

// The collector's cost under load is the live heap walked once per headroom of
// garbage, so a small live heap wants much headroom in proportion, and a large
// one little. An idle process wants none: its memory is for others.
const (
	lookEvery    = 500 * time.Millisecond // a burst pays for an idle heap until then
	calm         = 4                      // looks at rest before memory is given back
	busyRate     = 16 << 20               // bytes allocated per second above which the process is busy
	idleRate     = 2 << 20                // and below which it is at rest
	headroom     = 128 << 20              // bytes of garbage before a collection when busy
	nodeHeadroom = 16 << 20               // the same for a node, which has a small live heap, at the least
	worthwhile   = 8 << 20                // bytes allocated since the last release
	leastPercent = 50
	mostPercent  = 1600
)

// gcPercent for a live heap.
func gcPercent(live uint64, busy, node bool) int {
	if !busy || live == 0 {
		return leastPercent
	}
	room := uint64(headroom)
	if node { // what a start spreads over memory stays there in pieces
		room = min(max(live, nodeHeadroom), headroom)
	}
	return int(min(max(room*100/live, leastPercent), mostPercent))
}

// release gives back what an idle process does not need: free memory, and the
// pages of the program that only its start or a burst used.
func release() {
	debug.FreeOSMemory()
	_ = kernel.ReleaseStartPages() // an optimisation: without it, they stay
}

// afterCollections makes a channel ready after each collection until ctx ends.
func afterCollections(ctx context.Context) <-chan struct{} {
	done := make(chan struct{}, 1)
	var wait func()
	wait = func() {
		sentinel := &struct{ self *byte }{new(byte)}
		runtime.AddCleanup(sentinel, func(struct{}) {
			if ctx.Err() != nil {
				return
			}
			wait()
			select {
			case done <- struct{}{}:
			default:
			}
		}, struct{}{})
	}
	wait()
	return done
}

// tuneMemory follows the load until ctx ends. node: the start is busy, as that
// of a node that reads 100,000 endpoints; elsewhere garbage of the start would
// only be spread over memory that an idle process keeps. $GOGC, if set, has the
// last word.
func tuneMemory(ctx context.Context, node bool) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	// A percentage that suits a small heap would let one that grew by much
	// grow out of all bounds, so each collection decides about the next.
	collected := afterCollections(ctx)
	percent, busy := 0, node
	metrics.Read(samples)
	before := samples[1].Value.Uint64()
	released, resting := uint64(0), 0
	for {
		if p := gcPercent(samples[0].Value.Uint64(), busy, node); p != percent {
			percent = p
			debug.SetGCPercent(p)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-collected:
			metrics.Read(samples)
		case <-t.C:
			metrics.Read(samples)
			allocs := samples[1].Value.Uint64()
			rate := (allocs - before) * uint64(time.Second/lookEvery)
			before, busy = allocs, rate > busyRate
			if resting++; rate >= idleRate {
				resting = 0
			}
			if resting >= calm && allocs-released > worthwhile {
				release()
				released = allocs
			}
		}
	}
}
