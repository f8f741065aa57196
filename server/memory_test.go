package server

import (
	"context"
	"runtime"
	"testing"
)

func TestGCPercent(t *testing.T) {
	for _, c := range []struct {
		live uint64
		busy bool
		node bool
		want int
	}{
		{0, true, false, 50}, {60 << 20, false, false, 50}, {16 << 20, true, false, 800}, {4 << 20, true, false, 1600},
		{64 << 20, true, false, 200}, {128 << 20, true, false, 100}, {1 << 30, true, false, 50},
		{0, true, true, 50}, {60 << 20, false, true, 50}, {8 << 20, true, true, 200}, {1 << 20, true, true, 1600},
		{64 << 20, true, true, 100}, {256 << 20, true, true, 50}, {1 << 30, true, true, 50},
	} {
		if got := gcPercent(c.live, c.busy, c.node); got != c.want {
			t.Errorf("live %d MiB, busy %v, node %v: %d, want %d", c.live>>20, c.busy, c.node, got, c.want)
		}
	}
}

// TestAfterCollections: each collection is told, not only the first.
func TestAfterCollections(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	told := afterCollections(ctx)
	for range 3 {
		for heard := false; !heard; {
			runtime.GC()
			select {
			case <-told:
				heard = true
			default:
				runtime.Gosched()
			}
		}
	}
	cancel()
}
