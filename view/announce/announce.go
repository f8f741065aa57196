package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Lifetime is how long the kernel keeps an address that nobody asks it to keep.
const Lifetime = 20 * time.Second

const (
	refreshEvery = 5 * time.Second
	// repeats are the times after taking an address at which others are told.
	repeat  = time.Second
	repeats = 3
)

// Config of an Announcer.
type Config struct {
	// Device on which to announce; "": that of the subnet of the address.
	Device string
	Log    *slog.Logger // nil: no log
}

// Announcer holds addresses.
type Announcer struct {
	cfg Config
	net network

	mu      sync.Mutex
	held    map[netip.Addr]*hold
	stopped bool
}

// hold is an address that is ours.
type hold struct {
	at   place
	told int       // how often others were told
	next time.Time // when to tell them again
}

// place is where an address is.
type place struct {
	index int
	name  string
	hw    []byte // nil: nobody to tell
}

// network is what is done to the machine.
type network interface {
	// find says where an address belongs.
	find(device string, a netip.Addr) (place, error)
	// mine says whether an address is on the machine for other reasons.
	mine(a netip.Addr) (bool, error)
	put(p place, a netip.Addr) error
	drop(p place, a netip.Addr) error
	tell(p place, a netip.Addr) error
}

// New makes an Announcer that holds nothing yet.
func New(cfg Config) (*Announcer, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n, err := newNetwork()
	if err != nil {
		return nil, fmt.Errorf("announce: start: %w", err)
	}
	return &Announcer{cfg: cfg, net: n, held: map[netip.Addr]*hold{}}, nil
}

// Holds says whether an address is announced here.
func (a *Announcer) Holds(addr netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[addr] != nil
}

// Set says which addresses this node owns. What is not among them is given up
// first. It says whether anything changed; what failed is tried again by Run
// only when Set is called again.
func (a *Announcer) Set(want []netip.Addr) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false, nil
	}
	changed := false
	var errs []error
	for addr, h := range a.held {
		if !slices.Contains(want, addr) {
			changed = true
			errs = append(errs, a.giveUp(addr, h))
		}
	}
	for _, addr := range want {
		if a.held[addr] != nil {
			continue
		}
		if err := a.take(addr); err != nil {
			errs = append(errs, fmt.Errorf("announce: take %s: %w", addr, err))
			continue
		}
		changed = true
	}
	return changed, errors.Join(errs...)
}

func (a *Announcer) take(addr netip.Addr) error {
	p, err := a.net.find(a.cfg.Device, addr)
	if err != nil {
		return err
	}
	if mine, err := a.net.mine(addr); err != nil || mine {
		if err == nil {
			err = errors.New("it is an address of this machine already, put there by somebody else")
		}
		return err
	}
	if err := a.net.put(p, addr); err != nil {
		return err
	}
	h := &hold{at: p}
	a.held[addr] = h
	a.cfg.Log.Info("announce: this node answers for an address", "address", addr, "device", p.name)
	a.tell(addr, h, time.Now())
	return nil
}

func (a *Announcer) tell(addr netip.Addr, h *hold, now time.Time) {
	h.told++
	h.next = now.Add(repeat)
	if h.at.hw == nil {
		return
	}
	if err := a.net.tell(h.at, addr); err != nil {
		a.cfg.Log.Warn("announce: tell the network of an address", "address", addr, "device", h.at.name, "error", err)
	}
}

func (a *Announcer) giveUp(addr netip.Addr, h *hold) error {
	delete(a.held, addr)
	a.cfg.Log.Info("announce: this node gives an address up", "address", addr, "device", h.at.name)
	if err := a.net.drop(h.at, addr); err != nil {
		return fmt.Errorf("announce: give up %s: %w; it goes by itself within %v", addr, err, Lifetime)
	}
	return nil
}

// Run keeps the addresses until ctx ends, and then gives them up.
func (a *Announcer) Run(ctx context.Context) error {
	tick := time.NewTicker(repeat / 2)
	defer tick.Stop()
	refreshed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return a.stop()
		case now := <-tick.C:
			a.keep(now, now.Sub(refreshed) >= refreshEvery)
			if now.Sub(refreshed) >= refreshEvery {
				refreshed = now
			}
		}
	}
}

// keep repeats what was said, and refreshes the addresses.
func (a *Announcer) keep(now time.Time, refresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr, h := range a.held {
		if h.told < repeats && !now.Before(h.next) {
			a.tell(addr, h, now)
		}
		if !refresh {
			continue
		}
		if err := a.net.put(h.at, addr); err != nil {
			// The device went away: look for another one.
			a.cfg.Log.Warn("announce: keep an address", "address", addr, "device", h.at.name, "error", err)
			delete(a.held, addr)
			if err := a.take(addr); err != nil {
				a.cfg.Log.Warn("announce: take an address again", "address", addr, "error", err)
				a.held[addr] = h // to be tried again
			}
		}
	}
}

func (a *Announcer) stop() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	var errs []error
	for addr, h := range a.held {
		errs = append(errs, a.giveUp(addr, h))
	}
	return errors.Join(errs...)
}
