package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// reserve is the free space below which writes are refused. etcd allocates
// its log in files of 64 MB, and it stops the process when such a write
// fails, so the reserve holds the next one.
const reserve = 96 << 20

// Guard watches the free space of the disk under the embedded etcd.
type Guard struct {
	dir  string
	free func(dir string) (free, total uint64, err error)
	full atomic.Pointer[fullError]

	once sync.Once
	done chan struct{}
}

// fullError is what a writer gets when the disk is full.
type fullError struct {
	dir  string
	free uint64
}

func (e *fullError) Error() string {
	return fmt.Sprintf("the disk under %s is full (%d MiB free, %d needed): nothing can be written until there is space; reading and deleting go on", e.dir, e.free>>20, uint64(reserve)>>20)
}

func newGuard(dir string) *Guard {
	return &Guard{dir: dir, free: freeBytes, done: make(chan struct{})}
}

// Check looks at the disk now and gives an error when it is full.
func (g *Guard) Check() error {
	free, _, err := g.free(g.dir)
	if err != nil || free >= reserve { // not knowing is no reason to refuse
		g.full.Store(nil)
		return nil
	}
	e := &fullError{g.dir, free}
	g.full.Store(e)
	return fmt.Errorf("store: %w", e)
}

// Full gives the last look's error, nil when there is space. It costs one
// atomic load.
func (g *Guard) Full() error {
	if g == nil {
		return nil
	}
	if e := g.full.Load(); e != nil {
		return e
	}
	return nil
}

func (g *Guard) start() {
	go func() {
		t := time.NewTicker(guardInterval)
		defer t.Stop()
		for {
			select {
			case <-g.done:
				return
			case <-t.C:
				_ = g.Check()
			}
		}
	}()
}

func (g *Guard) stop() { g.once.Do(func() { close(g.done) }) }
