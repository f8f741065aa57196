package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/userspace"
)

// ReasonCannotRelay is the reason of events for services of which an endpoint
// cannot be reached from everywhere.
const ReasonCannotRelay = "CannotRelay"

// Driver is what gets the catalog with the addresses of relays in it.
type Driver interface {
	catalog.View
	Run(ctx context.Context) error
}

// Config says what to relay. The zero value of a field means what its comment
// says.
type Config struct {
	Node string // this node's name: only endpoints of its own are relayed

	// Addresses are where relays listen, one of each family. They are made
	// addresses of this machine while there are relays. Empty: [Addresses].
	Addresses []netip.Addr

	Log        *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics
	// Events is told what the owner of a service should know, once per cause.
	// It must return at once. nil: only the log.
	Events func(key catalog.Key, reason, message string)
}

// Addresses are where relays listen if nothing else is said: 192.0.0.8, the
// "dummy address" of RFC 7600, which no router forwards, and a unique local one.
func Addresses() []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{192, 0, 0, 8}),
		netip.AddrFrom16([16]byte{0xfd, 0x66, 0x70, 0x6f, 0x73, 0x74, 15: 1}),
	}
}

// Relay is a driver with relays before it.
type Relay struct {
	cfg     Config
	to      Driver
	sockets *userspace.Driver
	refused prometheus.Counter
	count   prometheus.Gauge
	doubt   doubt

	mu    vip.Mutex // guards what follows
	byKey map[catalog.Key][]target
	used  map[target]*relayed
	ports map[spot]target
	ready [2]bool // the address of the family is this machine's
	told  map[catalog.Key]string
}

// target is what an endpoint listens on.
type target struct {
	addr  netip.AddrPort
	proto catalog.Protocol
}

// spot is what a relay listens on.
type spot = target

type relayed struct {
	at    netip.AddrPort
	users int // services
}

// New puts relays before a driver. Run must be called, if only with a context
// that has ended, to give back what it holds.
func New(cfg Config, to Driver) (*Relay, error) {
	if len(cfg.Addresses) == 0 {
		cfg.Addresses = Addresses()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Events == nil {
		cfg.Events = func(catalog.Key, string, string) {}
	}
	r := &Relay{
		cfg: cfg, to: to, mu: vip.Mutex{Events: cfg.Events},
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fingerpost_relay_refused_total", Help: "Clients that sent to a relay itself, not to a virtual IP.",
		}),
		count: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fingerpost_relay_endpoints", Help: "Ports of endpoints on loopback addresses that are relayed to.",
		}),
		byKey: map[catalog.Key][]target{}, used: map[target]*relayed{}, ports: map[spot]target{}, told: map[catalog.Key]string{},
	}
	if cfg.Registerer != nil {
		r.refused, r.count = vip.Registered(cfg.Registerer, r.refused), vip.Registered(cfg.Registerer, r.count)
	}
	var err error
	r.sockets, err = userspace.New(userspace.Config{
		Node: cfg.Node, Log: cfg.Log, Admit: r.admit,
		Events: func(k catalog.Key, _, message string) { cfg.Log.Warn("relay: "+message, "endpoint", k.Name) },
	})
	if err != nil {
		return nil, fmt.Errorf("relay: start: %w", err)
	}
	return r, nil
}

// Run runs the driver and the relays until ctx ends, or one of them does.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 2)
	for _, run := range []func(context.Context) error{r.to.Run, r.sockets.Run} {
		go func() { done <- run(ctx) }()
	}
	err := <-done
	cancel()
	err = errors.Join(err, <-done)
	r.doubt.close()
	return err
}

// Cleanup gives up the addresses of relays: without rules that lead there they
// are of no use.
func Cleanup(cfg Config) error {
	if len(cfg.Addresses) == 0 {
		cfg.Addresses = Addresses()
	}
	var errs []error
	for _, a := range cfg.Addresses {
		errs = append(errs, kernel.RemoveLocalRange(netip.PrefixFrom(a, a.BitLen())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("relay: clean up: %w", err)
	}
	return nil
}

// Apply makes the relays follow a batch of changes, and hands it on.
func (r *Relay) Apply(ctx context.Context, b catalog.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var opened, closed []catalog.Change
	var left []target // by a service; it may be another's
	changes := b.Changes
	for i, c := range b.Changes {
		was := r.byKey[c.Key]
		if len(was) == 0 && !r.concerns(c.New) {
			continue
		}
		if &changes[0] == &b.Changes[0] {
			changes = slices.Clone(b.Changes)
		}
		var need []target
		changes[i].New, need = r.rewrite(c, &opened)
		for _, t := range was {
			r.used[t].users--
		}
		left = append(left, was...)
		if len(need) == 0 {
			delete(r.byKey, c.Key)
		} else {
			r.byKey[c.Key] = need
		}
	}
	for _, t := range left {
		if u := r.used[t]; u != nil && u.users == 0 {
			delete(r.used, t)
			delete(r.ports, spot{u.at, t.proto})
			closed = append(closed, catalog.Change{Key: t.key()})
		}
	}
	follow := func(changes []catalog.Change) error {
		if len(changes) == 0 {
			return nil
		}
		return r.sockets.Apply(ctx, catalog.Batch{Snapshot: b.Snapshot, Changes: changes})
	}
	b.Changes = changes
	err := errors.Join(follow(opened), r.to.Apply(ctx, b), follow(closed))
	r.count.Set(float64(len(r.used)))
	return err
}
