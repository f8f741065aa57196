package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Exchange; the answer to the client is SERVFAIL.
var (
	ErrNoUpstream = errors.New("view/dns/forward: no upstream to ask: name one with Config.Zones or Config.ResolvConf")
	ErrBusy       = errors.New("view/dns/forward: too many questions wait for upstreams")
	ErrClosed     = errors.New("view/dns/forward: stopped")
	ErrMalformed  = errors.New("view/dns/forward: malformed question")
)

// Forwarder is safe for use by several goroutines. Run, or Close if it never
// ran, ends what it started.
type Forwarder struct {
	cache   *cache
	metrics *metrics

	// What Cached reads:
	now        func() time.Time
	staleFor   atomic.Int64 // nanoseconds
	prefetches atomic.Bool
	running    atomic.Bool // somebody takes renewals
	renewals   chan *node

	routes atomic.Pointer[routes]
	// turnover keeps answers of former upstreams out of the cache: who changes
	// routes writes, who puts an answer reads.
	turnover sync.RWMutex

	mu        sync.Mutex // guards what follows, and writers of routes
	cfg       Config
	file      resolvConf
	upstreams map[target]*upstream
	closed    bool

	life context.Context // ends with Close
	stop context.CancelFunc
	jobs sync.WaitGroup

	flights flights
	probes  probes
	buffers sync.Pool // of *buffer
}

func (f *Forwarder) log() *slog.Logger { return f.routes.Load().cfg.Log }

// routes say whom to ask. They are never changed, only exchanged.
type routes struct {
	cfg   *Config
	zones map[string]*zone // by wire name
}

type zone struct {
	name      string // wire
	policy    Policy
	upstreams []*upstream
	first     atomic.Uint32 // index of the upstream that worked last
}

// find gives the longest zone that holds a lower-case wire name.
func (r *routes) find(name []byte) *zone {
	for len(name) > 0 {
		if z := r.zones[string(name)]; z != nil {
			return z
		}
		l := 1 + int(name[0])
		if l > len(name) {
			break
		}
		name = name[l:]
	}
	return nil
}

// New makes a forwarder. It reads Config.ResolvConf once; only Run looks again.
func New(cfg Config) (*Forwarder, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("view/dns/forward: %w", err)
	}
	f := &Forwarder{
		cache:     newCache(cfg.CacheSize),
		now:       cfg.Now,
		renewals:  make(chan *node, 256),
		upstreams: map[target]*upstream{},
	}
	f.life, f.stop = context.WithCancel(context.Background())
	f.flights.open = map[string]*flight{}
	f.probes.out = map[string]*probe{}
	var err error
	if f.metrics, err = newMetrics(cfg.Registerer, cfg.Server, f.cache); err != nil {
		f.stop()
		return nil, fmt.Errorf("view/dns/forward: register metrics: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(cfg)
	return f, nil
}

// Reload takes a new configuration. The cache stays, but for zones whose
// upstreams changed; so does what is known of upstreams that stay. Now, Server
// and Registerer are those of New.
func (f *Forwarder) Reload(cfg Config) error {
	if err := cfg.complete(); err != nil {
		return fmt.Errorf("view/dns/forward: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	if cfg.CacheSize != f.cfg.CacheSize {
		f.cache.resize(cfg.CacheSize)
	}
	f.set(cfg)
	f.probeLoops()
	return nil
}

// set makes the routes of a configuration; the caller holds mu.
func (f *Forwarder) set(cfg Config) {
	if cfg.ResolvConf != f.cfg.ResolvConf {
		f.file = resolvConf{}
	}
	f.cfg = cfg
	f.staleFor.Store(int64(max(0, cfg.StaleFor)))
	f.prefetches.Store(cfg.Prefetch)
	zones := slices.Clone(cfg.Zones)
	if cfg.ResolvConf != "" && !slices.ContainsFunc(zones, func(z Zone) bool { return strings.TrimSpace(z.Name) == "." }) {
		f.file.read(cfg.ResolvConf, cfg.Log)
		if len(f.file.servers) > 0 {
			zones = append(zones, Zone{Name: ".", Upstreams: f.file.servers})
		}
	}
	old := f.routes.Load()
	next := &routes{cfg: &cfg, zones: map[string]*zone{}}
	used := map[target]bool{}
	for _, z := range zones {
		wire, _ := wireName(z.Name)
		to := &zone{name: wire, policy: cfg.Policy}
		for _, s := range z.Upstreams {
			t, err := parseTarget(s)
			if err != nil {
				continue // complete has looked; the file's are addresses
			}
			u := f.upstreams[t]
			if u == nil {
				u = newUpstream(f, t)
				f.upstreams[t] = u
			}
			u.reconfigure(&cfg)
			if !used[t] {
				used[t] = true
				u.zone.Store(&wire)
			}
			if !slices.Contains(to.upstreams, u) {
				to.upstreams = append(to.upstreams, u)
			}
		}
		next.zones[wire] = to
	}
	f.turnover.Lock()
	f.routes.Store(next)
	if old != nil {
		f.forget(old, next)
	}
	f.turnover.Unlock()
	for t, u := range f.upstreams {
		if !used[t] {
			delete(f.upstreams, t)
			u.retire()
		}
	}
}

// forget drops what a zone's former upstreams said. Those of "." change with
// the network and say the same; those of other zones may have secrets of their
// own.
func (f *Forwarder) forget(old, next *routes) {
	for name := range old.zones {
		if _, ok := next.zones[name]; !ok && len(name) > 1 {
			f.cache.purge(name)
		}
	}
	for name, z := range next.zones {
		if was := old.zones[name]; len(name) > 1 && (was == nil || !slices.Equal(was.upstreams, z.upstreams)) {
			f.cache.purge(name)
		}
	}
}

// Serves says whether there is anybody to ask about a name, which is in wire
// form and lower case.
func (f *Forwarder) Serves(name []byte) bool {
	z := f.routes.Load().find(name)
	if z == nil {
		return false
	}
	for _, u := range z.upstreams {
		if u.askable() {
			return true
		}
	}
	return false
}

// spawn runs a goroutine that Close waits for; false if it is too late.
func (f *Forwarder) spawn(job func()) bool {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	if f.flights.closed {
		return false
	}
	f.jobs.Go(job)
	return true
}

// Close ends everything and waits for it. What is in the cache can still be
// had.
func (f *Forwarder) Close() {
	f.flights.mu.Lock()
	f.flights.closed = true
	f.flights.mu.Unlock()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.stop()
	f.jobs.Wait()
}

// every is how often Run looks at the resolver configuration and at what this
// server's own addresses are.
const every = 2 * time.Second

// Run does the work behind the questions until ctx ends: it renews popular
// answers, follows the resolver configuration and looks for loops. Then it
// closes the forwarder and returns nil.
func (f *Forwarder) Run(ctx context.Context) error {
	defer f.Close()
	f.running.Store(true)
	defer f.running.Store(false)
	tick := time.NewTicker(every)
	defer tick.Stop()
	f.mu.Lock()
	f.checkOwn()
	f.probeLoops()
	f.mu.Unlock()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return nil
		case n := <-f.renewals:
			round--
			f.refresh(n)
		case <-tick.C:
			f.mu.Lock()
			f.checkOwn()
			if f.file.changed(f.cfg.ResolvConf) {
				f.set(f.cfg)
				f.probeLoops()
			} else if round == 2 || round%300 == 0 {
				// Again: at the first time the listeners may not have been
				// ready, and loops come and go.
				f.probeLoops()
			} else if round%15 == 0 {
				f.probeLooping()
			}
			f.mu.Unlock()
		}
	}
}

// checkOwn looks which upstreams are this server itself; the caller holds mu.
func (f *Forwarder) checkOwn() {
	for _, u := range f.upstreams {
		u.checkOwn()
	}
}

// refresh asks again for an entry; nobody waits for the answer.
func (f *Forwarder) refresh(n *node) {
	r := f.routes.Load()
	a := ask{key: n.key, hash: n.hash}
	if z := r.find(a.name()); z != nil {
		_, _ = f.join(a, z, r.cfg, false)
	}
}
