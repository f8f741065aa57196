package forward

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFails in a row and an upstream is down.
const maxFails = 3

// upstream is a name server to ask, and what is known of it.
type upstream struct {
	target
	f    *Forwarder
	zone atomic.Pointer[string] // wire; what a probe asks about

	down, own, loop atomic.Bool
	looking         atomic.Bool // for a loop
	asked           atomic.Uint64
	rtt             atomic.Int64 // smoothed, nanoseconds
	fails           atomic.Int32 // in a row

	life context.Context // ends when nobody asks it any more
	stop context.CancelFunc

	mu      sync.Mutex
	lastErr string
	since   time.Time // of down and loop
	tls     *tls.Config
	roots   *x509.CertPool
	streams []*stream
}

func newUpstream(f *Forwarder, t target) *upstream {
	u := &upstream{target: t, f: f, since: time.Now()}
	u.life, u.stop = context.WithCancel(f.life)
	return u
}

// reconfigure takes what a new configuration says about connections.
func (u *upstream) reconfigure(cfg *Config) {
	u.own.Store(cfg.Own(u.addr))
	if !u.target.tls {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tls != nil && u.roots == cfg.RootCAs {
		return
	}
	name := u.name
	if name == "" {
		name = u.addr.Addr().WithZone("").String()
	}
	u.roots = cfg.RootCAs
	u.tls = &tls.Config{
		ServerName:         name,
		RootCAs:            cfg.RootCAs,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"dot"},
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
	for _, s := range u.streams {
		s.close(errRetired)
	}
}

// retire ends what an upstream that was taken out of the configuration has
// open. Questions under way fail or go to others.
func (u *upstream) retire() { u.stop() }

func (u *upstream) checkOwn() {
	cfg := u.f.routes.Load().cfg
	if own := cfg.Own(u.addr); own != u.own.Load() {
		u.own.Store(own)
	}
}

// askable says whether asking makes sense at all.
func (u *upstream) askable() bool { return !u.own.Load() && !u.loop.Load() }

func (u *upstream) succeeded(took time.Duration) {
	u.fails.Store(0)
	old := u.rtt.Load()
	if old == 0 {
		old = int64(took)
	}
	u.rtt.Store(old - old/8 + int64(took)/8)
	if u.down.CompareAndSwap(true, false) {
		u.mu.Lock()
		u.since, u.lastErr = time.Now(), ""
		u.mu.Unlock()
		u.f.log().Info("upstream name server answers again", "upstream", u.target.String())
	}
}

func (u *upstream) failed(err error) {
	u.mu.Lock()
	u.lastErr = err.Error()
	u.mu.Unlock()
	if u.fails.Add(1) < maxFails || !u.down.CompareAndSwap(false, true) {
		return
	}
	u.mu.Lock()
	u.since = time.Now()
	u.mu.Unlock()
	u.f.log().Warn("upstream name server is down: it is left alone until it answers a probe", "upstream", u.target.String(), "error", err)
	u.f.spawn(u.revive)
}

// UpstreamStatus is what is known of an upstream.
type UpstreamStatus struct {
	Address string   // as in Zone.Upstreams, complete
	Zones   []string // that ask it
	Up      bool     // false: asked by a probe only, or when nobody is up
	Own     bool     // it is this server: never asked
	Loop    bool     // it sends questions back to this server: never asked
	Fails   int      // in a row
	Error   string   // the last one, "" since it answered
	Since   time.Time
	RTT     time.Duration // smoothed; 0: it never answered
	Asked   uint64
}

// Upstreams tells of all upstreams, by address.
func (f *Forwarder) Upstreams() []UpstreamStatus {
	zones := map[*upstream][]string{}
	for _, z := range f.routes.Load().zones {
		for _, u := range z.upstreams {
			zones[u] = append(zones[u], text(z.name))
		}
	}
	list := make([]UpstreamStatus, 0, len(zones))
	for u, names := range zones {
		slices.Sort(names)
		u.mu.Lock()
		list = append(list, UpstreamStatus{
			Address: u.target.String(), Zones: names,
			Up: !u.down.Load(), Own: u.own.Load(), Loop: u.loop.Load(),
			Fails: int(u.fails.Load()), Error: u.lastErr, Since: u.since,
			RTT: time.Duration(u.rtt.Load()), Asked: u.asked.Load(),
		})
		u.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b UpstreamStatus) int {
		if a.Address < b.Address {
			return -1
		}
		return 1
	})
	return list
}
