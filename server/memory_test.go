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
		want int
	}{
		{0, true, 50}, {60 << 20, false, 50}, {16 << 20, true, 800}, {4 << 20, true, 1600}, {64 << 20, true, 200}, {128 << 20, true, 100}, {1 << 30, true, 50},
	} {
		if got := gcPercent(c.live, c.busy); got != c.want {
			t.Errorf("live %d MiB, busy %v: %d, want %d", c.live>>20, c.busy, got, c.want)
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
