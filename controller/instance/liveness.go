package instance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/health"
)

// LivenessConfig of a Liveness. The zero value works, without look-ups.
type LivenessConfig struct {
	// Leases tunes the leases and the mass-expiry guard.
	Leases health.LeaseConfig
	// Get reads an Instance from the API, for a heartbeat of one that is not
	// known yet; nil: never.
	Get func(ctx context.Context, namespace, name string) (*v1alpha1.Instance, error)
	// Registerer of the metrics; nil: none.
	Registerer prometheus.Registerer
}

const (
	// absentFor is how long "there is no such Instance" is remembered. Short:
	// the client's next step is to register.
	absentFor = 100 * time.Millisecond
	// lookups is how many Instances are looked up at once, and lookupTime how
	// long one may take.
	lookups    = 32
	lookupTime = 2 * time.Second
	maxAbsent  = 10_000
)

// Liveness keeps the leases of all Instances. It is safe for concurrent use.
type Liveness struct {
	cfg    LivenessConfig
	leases *health.Leases
	table  *table
	notify atomic.Pointer[func(name)] // the Controller's, once there is one
	slots  chan struct{}

	mu     sync.Mutex
	absent map[absentKey]time.Time

	renewals prometheus.Counter
	refused  prometheus.Counter
}

type absentKey struct {
	name
	door, id string
}

// NewLiveness makes a Liveness that knows no Instance yet.
func NewLiveness(cfg LivenessConfig) (*Liveness, error) {
	l := &Liveness{
		cfg: cfg, leases: health.NewLeases(cfg.Leases, time.Now()), table: newTable(),
		slots: make(chan struct{}, lookups), absent: map[absentKey]time.Time{},
		renewals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_instance_heartbeats_total", Help: "Heartbeats taken.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_instance_heartbeats_refused_total", Help: "Heartbeats refused because their Instance or claim does not exist.",
		}),
	}
	if r := cfg.Registerer; r != nil {
		leases := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fingerpost_instance_leases_count", Help: "Claims that live by heartbeats.",
		}, func() float64 { return float64(l.leases.Len()) })
		for _, c := range []prometheus.Collector{l.renewals, l.refused, leases} {
			if err := r.Register(c); err != nil {
				return nil, fmt.Errorf("controller/instance: register metrics: %w", err)
			}
		}
	}
	return l, nil
}

// Renew is a heartbeat of one claim, or with empty door and id of every claim
// of the Instance and its ttl check. The answer is the shortest TTL renewed, 0
// when nothing of it expires. The error is a NotFound of the API for an
// Instance or claim that does not exist: register again.
func (l *Liveness) Renew(namespace, instance, door, id string, now time.Time) (time.Duration, error) {
	n := name{Namespace: namespace, Name: instance}
	ttl, ok := l.renew(n, door, id, now)
	if !ok && l.cfg.Get != nil {
		if err := l.lookUp(n, door, id, now); err != nil {
			return 0, err
		}
		ttl, ok = l.renew(n, door, id, now)
	}
	if !ok {
		l.refused.Inc()
		return 0, notFound(n, door, id)
	}
	l.renewals.Inc()
	return ttl, nil
}

func notFound(n name, door, id string) error {
	err := apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource(client.Resource).GroupResource(), n.Name)
	if door != "" || id != "" {
		err.ErrStatus.Message += fmt.Sprintf(" with a claim %q of door %q", id, door)
	}
	err.ErrStatus.Message += ": register it first, then send heartbeats"
	return err
}

func (l *Liveness) renew(n name, door, id string, now time.Time) (time.Duration, bool) {
	r := l.table.get(n)
	if r == nil {
		return 0, false
	}
	all := door == "" && id == ""
	found := all
	shortest := time.Duration(math.MaxInt64)
	wake := false
	for _, c := range r.claims {
		if !all && (c.check || c.door != door || c.id != id) {
			continue
		}
		found = true
		if c.key == "" {
			continue
		}
		if l.leases.Renew(c.key, now) == health.Unknown {
			return 0, false // removed this moment
		}
		shortest = min(shortest, c.ttl)
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		wake = wake || c.marked.Load()
	}
	if wake {
		l.changed(n)
	}
	if shortest == math.MaxInt64 {
		shortest = 0
	}
	return shortest, found
}

// lookUp reads an Instance that is not known, or not with that claim: the
// watch may be behind the registration.
func (l *Liveness) lookUp(n name, door, id string, now time.Time) error {
	k := absentKey{n, door, id}
	l.mu.Lock()
	until, known := l.absent[k]
	l.mu.Unlock()
	if known && now.Before(until) {
		l.refused.Inc()
		return notFound(n, door, id)
	}
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	default:
		return apierrors.NewServiceUnavailable("too many heartbeats of unknown instances at once: try again")
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	in, err := l.cfg.Get(ctx, n.Namespace, n.Name)
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			return err
		}
		return apierrors.NewServiceUnavailable(fmt.Sprintf("cannot look up instance %s: %v: try again", n, err))
	default:
		l.Put(in, now)
		if door == "" && id == "" || l.table.get(n).find(door, id, false) != nil {
			return nil
		}
	}
	l.mu.Lock()
	if len(l.absent) >= maxAbsent {
		clear(l.absent)
	}
	l.absent[k] = now.Add(absentFor)
	l.mu.Unlock()
	return nil
}

// Put takes an Instance as it is in the API. States older than what is known
// are ignored, so it does not matter who is faster: the watch, a look-up, or
// whoever wrote it.
func (l *Liveness) Put(in *v1alpha1.Instance, now time.Time) {
	n := name{Namespace: in.Namespace, Name: in.Name}
	p := l.table.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.records[n]
	if old != nil && !newerVersion(in.ResourceVersion, old.version) {
		return
	}
	r, put, gone := newEntry(in, old)
	for _, c := range gone {
		l.leases.Remove(c.key)
	}
	for _, c := range put {
		l.leases.Put(c.key, c.group, r.service, c.ttl, now)
	}
	p.records[n] = r
}

// Remove takes note that an Instance is gone.
func (l *Liveness) Remove(in *v1alpha1.Instance) {
	n := name{Namespace: in.Namespace, Name: in.Name}
	p := l.table.part(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.records[n]
	if r == nil || r.uid != in.UID {
		return // a later one of the same name is there already
	}
	for _, c := range r.claims {
		if c.key != "" {
			l.leases.Remove(c.key)
		}
	}
	delete(p.records, n)
}

// changed tells the Controller that a status may be wrong now.
func (l *Liveness) changed(n name) {
	if f := l.notify.Load(); f != nil {
		(*f)(n)
	}
}

// run waits for leases to run out and tells whose status that changes.
func (l *Liveness) run(ctx context.Context, told func(health.Transition)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := time.Hour
		if next := l.leases.Next(); !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(max(wait, 0))
		select {
		case <-ctx.Done():
			return
		case <-l.leases.Wake():
			continue
		case <-timer.C:
		}
		for _, t := range l.leases.Expire(time.Now()) {
			told(t)
			l.changed(nameOf(t.Key))
		}
	}
}

// nameOf gives the Instance behind a lease.
func nameOf(key string) name {
	key, _, _ = strings.Cut(key, "\x00")
	ns, n, _ := strings.Cut(key, "/")
	return name{Namespace: ns, Name: n}
}
