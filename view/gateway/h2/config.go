package h2

import (
	"sync"
	"time"

	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// Config is of connections of either side. The zero value has working defaults.
type Config struct {
	// MaxStreams is how many requests of one connection run at the same time; 128.
	MaxStreams int
	// Head bounds the fields of a message; see package wire/http/h2.
	Head wire.Limits
	// Window is that of a stream when it begins; 64 KiB.
	Window int
	// MaxWindow is what the window of a stream grows to while its reader keeps
	// up; 1 MiB.
	MaxWindow int
	// IdleTimeout ends a connection without streams; 75 s. A client's connection
	// is the business of its pool: it is not ended for being idle.
	IdleTimeout time.Duration
	// HeadTimeout is what the preface, and a head in several frames, may take; 10 s.
	HeadTimeout time.Duration
	// WriteTimeout ends a connection whose peer takes nothing; 60 s.
	WriteTimeout time.Duration
	// HTTPS makes a client say that the scheme is https.
	HTTPS bool
	// Workers run the requests; nil: this connection has its own.
	Workers *Workers
}

func (c Config) or() Config {
	set := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	set(&c.MaxStreams, 128)
	set(&c.Window, wire.InitialWindow)
	set(&c.MaxWindow, 1<<20)
	c.Window = min(c.Window, c.MaxWindow)
	set(&c.Head.Size, 64<<10)
	set(&c.Head.Fields, 200)
	wait := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	wait(&c.IdleTimeout, 75*time.Second)
	wait(&c.HeadTimeout, 10*time.Second)
	wait(&c.WriteTimeout, 60*time.Second)
	if c.Workers == nil {
		c.Workers = NewWorkers()
	}
	return c
}

// Workers are goroutines that wait for work, and streams that wait to be used
// again. Connections share them, so that a goroutine whose stack has grown once
// serves the next request, whichever connection it is of.
type Workers struct {
	mu      sync.Mutex
	idle    []*worker // the last one worked last
	lowest  int       // the fewest that were idle since the last look
	closed  bool
	timer   *time.Timer
	streams sync.Pool
}

type task interface{ run() }

type worker struct{ tasks chan task }

// spare is how long a goroutine without work stays.
const spare = 5 * time.Second

// NewWorkers makes workers for many connections.
func NewWorkers() *Workers { return &Workers{} }

// do runs the task in a goroutine.
func (w *Workers) do(t task) {
	w.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		w.lowest = 0
		w.mu.Unlock()
		k := &worker{tasks: make(chan task, 1)}
		go w.work(k, t)
		return
	}
	k := w.idle[n-1]
	w.idle = w.idle[:n-1]
	if n-1 < w.lowest {
		w.lowest = n - 1
	}
	w.mu.Unlock()
	k.tasks <- t
}

func (w *Workers) work(k *worker, t task) {
	for t != nil {
		t.run()
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, k)
		if w.timer == nil {
			w.lowest = 0
			w.timer = time.AfterFunc(spare, w.trim)
		}
		w.mu.Unlock()
		t = <-k.tasks
	}
}

// Close ends the goroutines that have nothing to do, and lets the others end when
// they have nothing to do any more. Work that comes later is done all the same.
func (w *Workers) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, k := range w.idle {
		k.tasks <- nil
	}
	w.idle = nil
	if w.timer != nil {
		w.timer.Stop()
	}
}

// trim ends the goroutines that nobody needed since the last look.
func (w *Workers) trim() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	for _, k := range w.idle[:w.lowest] {
		k.tasks <- nil
	}
	n := copy(w.idle, w.idle[w.lowest:])
	clear(w.idle[n:])
	w.idle = w.idle[:n]
	w.lowest = n
	if n > 0 {
		w.timer.Reset(spare)
	} else {
		w.timer = nil
	}
}
