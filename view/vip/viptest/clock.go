package viptest

import (
	"sync"
	"testing"
	"time"
	"unsafe"
)

// Clock is a clock that somebody sets while it runs. As with that of a machine,
// times that it gives say what the wall clock shows, and differences between
// them how much time passed, whatever the wall clock did meanwhile.
type Clock struct {
	mu   sync.Mutex
	now  time.Time
	wall time.Duration // by which the wall clock was set
}

// NewClock makes a clock that stands.
func NewClock(t testing.TB) *Clock {
	t.Helper()
	c := &Clock{now: time.Now()}
	before := c.Now()
	c.Set(time.Hour)
	if after := c.Now(); after.Sub(before) != 0 || after.Round(0).Sub(before.Round(0)) != time.Hour {
		t.Fatalf("this version of Go keeps times in another way: %v became %v", before, after)
	}
	c.wall = 0
	return c
}

// Now gives the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.now
	// No function of package time moves one without the other. A time's first
	// word has the seconds of the wall clock above 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&t)) += uint64(c.wall/time.Second) << 30
	return t
}

// Pass lets time pass.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Set sets the wall clock forwards or backwards, by whole seconds.
func (c *Clock) Set(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d
}

// Jumps are what a wall clock may be set by: a battery was empty, a zone was
// taken for another.
func Jumps() []time.Duration {
	return []time.Duration{24 * 365 * time.Hour, -24 * 365 * time.Hour, time.Hour, -time.Hour}
}
