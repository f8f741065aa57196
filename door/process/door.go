package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/fingerpost/fingerpost/door/process/claim"
)

// Supervisor runs the replicas of one process.
type Supervisor struct {
	cfg   Config
	force chan struct{}
	once  sync.Once
}

// ExitError says how the process ended when it ended by itself for good.
type ExitError struct {
	Code int    // its exit code; 128 + the signal's number if a signal killed it
	How  string // for people
}

func (e *ExitError) Error() string { return "door/process: " + e.How }

// New checks the configuration; the program must exist.
func New(cfg Config) (*Supervisor, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	return &Supervisor{cfg: cfg, force: make(chan struct{})}, nil
}

// Run starts the processes and keeps them registered. It returns when ctx has
// ended and everything is stopped and deregistered, or when all processes
// ended by themselves and are not to be started again: with an *ExitError if
// one of them failed.
func (s *Supervisor) Run(ctx context.Context) error {
	c := &s.cfg
	var (
		screen  sync.Mutex
		placing sync.Mutex
		wg      sync.WaitGroup
		alloc   = allocator{addr: c.Address, taken: map[int32]bool{}}
		ends    = make([]exit, c.Replicas)
		errs    = make([]error, c.Replicas)
	)
	// A replica that cannot be placed at all ends the others too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for n := range c.Replicas {
		log := c.Log.With("replica", fmt.Sprintf("%s-%d", c.Service, n))
		r := &replica{
			cfg: c, n: n, log: log, force: s.force,
			reg: claim.NewKeeper(c.Client, Door, claimID(c.NodeName, c.Service, n), c.TTL, log),
			alloc: func(ports []Port) error {
				placing.Lock()
				defer placing.Unlock()
				return alloc.take(ports)
			},
			stdout: s.output(c.Stdout, n, &screen), stderr: s.output(c.Stderr, n, &screen),
		}
		wg.Go(func() {
			if ends[n], errs[n] = r.run(ctx); errs[n] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	for n, e := range ends {
		if e.failed() {
			return &ExitError{e.code, fmt.Sprintf("%s-%d %s", c.Service, n, e.text)}
		}
	}
	return nil
}

// Kill makes a stop that is under way an abrupt one: no drain, SIGKILL.
func (s *Supervisor) Kill() { s.once.Do(func() { close(s.force) }) }

// output is where a replica writes: straight to the file if it is alone, so
// that a terminal stays a terminal.
func (s *Supervisor) output(to io.Writer, n int, mu *sync.Mutex) io.Writer {
	if s.cfg.Replicas == 1 {
		if f, ok := to.(*os.File); ok {
			return f
		}
		return &lockedWriter{mu: mu, to: to}
	}
	return &prefixWriter{mu: mu, to: to, prefix: fmt.Sprintf("%s-%d | ", s.cfg.Service, n)}
}

// lockedWriter lets stdout and stderr be the same writer.
type lockedWriter struct {
	mu *sync.Mutex
	to io.Writer
}

func (w *lockedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.to.Write(p)
	return len(p), nil
}
