package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"

	"github.com/fingerpost/fingerpost/catalog"
)

// Config is what a Door needs. Rest and Catalog must be set.
type Config struct {
	Rest       *rest.Config
	Catalog    *catalog.Catalog
	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	Namespace  string                // empty: all
	ClientName string                // the user agent; empty: that of Rest

	// Pods makes the door watch Pods too, so that an endpoint can say why its
	// pod is not ready. It costs the server one watch more.
	Pods bool

	// Grace is how long the API may be gone before the catalog is stale; 3 s
	// if zero.
	Grace time.Duration
	// Probe is how often the server is asked for a sign of life when nothing
	// was heard from it; 2 s if zero, never if negative.
	Probe time.Duration
	// MaxBackoff bounds the wait between two attempts to reach the server; 1 s
	// if zero. The first ones come after 50 ms.
	MaxBackoff time.Duration

	Now func() time.Time // nil: time.Now
}

// Door keeps a catalog equal to what a Kubernetes API says.
type Door struct {
	cfg     Config
	log     *slog.Logger
	dialer  *connrotation.Dialer
	sources []*source
	probe   func(context.Context) error
	queue   queue
	live    *liveness
	metrics *metrics
	names   *interner
	synced  chan struct{}
	ran     atomic.Bool
}

// New makes a door. It does not talk to the server yet.
func New(cfg Config) (*Door, error) {
	if cfg.Rest == nil || cfg.Catalog == nil {
		return nil, errors.New("door/kube: make a door: Rest and Catalog must be set")
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 3 * time.Second
	}
	if cfg.Probe == 0 {
		cfg.Probe = 2 * time.Second
	}
	if cfg.MaxBackoff <= 0 {
		cfg.MaxBackoff = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	d := &Door{
		cfg:     cfg,
		log:     cfg.Log,
		queue:   queue{wake: make(chan struct{}, 1)},
		live:    newLiveness(cfg.Now),
		metrics: newMetrics(cfg.Registerer),
		names:   newInterner(),
		synced:  make(chan struct{}),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}

	rc := rest.CopyConfig(cfg.Rest)
	if cfg.ClientName != "" {
		rc.UserAgent = cfg.ClientName
	}
	// A handful of long requests: the client's own rate limit would only delay
	// the pages of the first list.
	rc.QPS, rc.Burst, rc.RateLimiter = -1, 0, nil
	rc.Timeout = 0
	// The server packs each object of a streamed list on its own. That costs it
	// more than all the rest of the list, and us a quarter of our part.
	rc.DisableCompression = true
	// All requests share connections that the door can cut, because a
	// connection whose peer vanished swallows new requests too.
	dial := rc.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	d.dialer = connrotation.NewDialer(connrotation.DialFunc(dial))
	rc.Dial = d.dialer.DialContext
	if err := d.connect(rc); err != nil {
		return nil, fmt.Errorf("door/kube: make a client for %s: %w", cfg.Rest.Host, err)
	}
	return d, nil
}

// Synced is closed when everything there was has been read and applied once.
func (d *Door) Synced() <-chan struct{} { return d.synced }

// Trouble is why the server cannot be read now; nil when it can, or when it was
// not tried yet. Errors of the API keep their kind.
func (d *Door) Trouble() error {
	if source, f, failing := d.live.worst(); failing {
		return fmt.Errorf("door/kube: read %s from %s: %w", source, d.cfg.Rest.Host, f.err)
	}
	return nil
}

// Run keeps the catalog up to date until ctx ends, and then returns nil. It
// may be called once. The catalog keeps its last state, marked stale.
func (d *Door) Run(ctx context.Context) error {
	if d.ran.Swap(true) {
		return errors.New("door/kube: run: it ran before; make a new door")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range d.sources {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Go(func() { d.watchLiveness(ctx) })
	if d.cfg.Probe > 0 {
		wg.Go(func() { d.runProbe(ctx) })
	}
	d.applyAll(ctx)
	d.dialer.CloseAll()
	wg.Wait()
	// A request that was being made while connections were cut may have opened
	// one more.
	d.dialer.CloseAll()
	d.cfg.Catalog.Update(func(t *catalog.Txn) {
		if f := d.cfg.Catalog.Snapshot().Freshness(); !f.Stale() {
			f.StaleSince = d.cfg.Now()
			t.SetFreshness(f)
		}
	})
	return nil
}

// maxBatch bounds the events of one revision, so that a storm does not delay
// its first event by more than about a millisecond.
const maxBatch = 1024

func (d *Door) applyAll(ctx context.Context) {
	st := newState(d.cfg.Pods, d.cfg.Now)
	st.awaits = make(map[kind]bool, len(d.sources))
	for _, s := range d.sources {
		st.awaits[s.kind] = true
	}
	st.kept = newKept(d.cfg.Catalog, d.cfg.Now)
	for {
		select {
		case <-ctx.Done():
			return
		case <-st.kept.expired():
			d.show(st)
		case <-d.queue.wake:
		}
		for batch := d.queue.take(maxBatch); len(batch) > 0; batch = d.queue.take(maxBatch) {
			before := st.fresh.Synced
			d.update(st, func(t *catalog.Txn) {
				for i := range batch {
					st.apply(t, &batch[i])
				}
				st.flush(t)
			})
			d.metrics.applied(batch, d.cfg.Now())
			if !before && st.fresh.Synced {
				close(d.synced)
			}
		}
	}
}
