package ipvs

import (
	"context"
	"maps"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Run answers on health check node ports, takes endpoints away whose last
// connection has ended, watches for what others do, and tries again what
// failed, until ctx ends. What is in the kernel stays.
func (d *Driver) Run(ctx context.Context) error {
	checked := make(chan error, 1)
	go func() { checked <- d.checks.Run(ctx) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.tick()
		case <-ctx.Done():
			return <-checked
		}
	}
}

// tick does what time brings.
func (d *Driver) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.started {
		return
	}
	now := d.cfg.Now()
	if d.broken != nil {
		if now.Before(d.retryAt) {
			return
		}
		if err := d.repair(); err != nil {
			d.cfg.Log.Error("ipvs: the kernel does not take everything; trying again", "error", err)
			return
		}
		d.cfg.Log.Info("ipvs: everything was written anew")
	}
	if err := d.servers.Drain(); err != nil {
		d.cfg.Log.Warn("ipvs: endpoints that left may stay", "error", err)
		d.broken = err
		return
	}
	if err := d.admitAll(now); err != nil {
		d.cfg.Log.Warn("ipvs: node ports that were removed stay refused", "error", err)
		d.broken = err
		return
	}
	strange := false
	if gen, err := generation(); err == nil && gen != d.filter.gen {
		intact, err := d.filter.intact()
		strange = err == nil && !intact
		d.filter.gen = gen
	}
	if !strange && now.Before(d.checkAt) {
		return
	}
	if strange {
		d.cfg.Log.Warn("ipvs: somebody changed our rules of nftables; writing everything anew")
		if err := d.repair(); err != nil {
			d.cfg.Log.Error("ipvs: the kernel does not take everything; trying again", "error", err)
		}
	} else if err := d.resync(); err != nil {
		d.cfg.Log.Warn("ipvs: the kernel cannot be compared", "error", err)
		d.broken = err
	}
	// At size this takes long: it may use a small part of the time only.
	d.checkAt = d.cfg.Now().Add(max(d.cfg.Resync, 50*d.cfg.Now().Sub(now)))
}

// resync compares the virtual servers and the addresses of the machine.
func (d *Driver) resync() error {
	if local := localAddresses(); !maps.Equal(local, d.local) {
		d.local = local
		all := map[catalog.Key]struct{}{}
		for k := range d.services {
			all[k] = struct{}{}
		}
		if err := d.follow(all); err != nil {
			return err
		}
	}
	differs, err := d.servers.differs()
	if err != nil || !differs {
		return err
	}
	d.cfg.Log.Warn("ipvs: somebody changed our virtual servers; writing everything anew")
	return d.repair()
}
