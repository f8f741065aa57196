//go:build linux

package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tune collects garbage as the real process does (tuneMemory of package server,
// whose numbers these are): it lets 128 MiB of it gather while much is allocated,
// and gives memory back when that ends.
func tune(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	const every, rate, room = 2 * time.Second, 16 << 20, 128 << 20
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(samples)
	before, busy := samples[1].Value.Uint64(), false
	debug.SetGCPercent(50)
	for sleep(ctx, every) == nil {
		metrics.Read(samples)
		live, allocs := samples[0].Value.Uint64(), samples[1].Value.Uint64()
		was := busy
		busy = allocs-before > rate*uint64(every/time.Second)
		before = allocs
		percent := 50
		if busy && live > 0 {
			percent = int(min(max(room*100/live, 50), 1600))
		}
		debug.SetGCPercent(percent)
		if was && !busy {
			debug.FreeOSMemory()
		}
	}
}
