package ebpf

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// image is what the kernel has.
type image struct {
	svc  map[svcKey]svcValue
	slot map[slotKey]slotValue
	pick map[pickKey]slotValue
	addr map[address]addrValue
}

func (m *store) read() (img image, err error) {
	if img.svc, err = dump[svcKey, svcValue](m.svc); err == nil {
		if img.slot, err = dump[slotKey, slotValue](m.slot); err == nil {
			if img.pick, err = dump[pickKey, slotValue](m.pick); err == nil {
				img.addr, err = dump[address, addrValue](m.addr)
			}
		}
	}
	if err != nil {
		return img, fmt.Errorf("ebpf: read the maps: %w", err)
	}
	return img, nil
}

// take believes the kernel. What belongs to no frontend is left out: it gives
// the keys of that, to be deleted.
func (d *Driver) take(img image) (orphans writes) {
	d.fronts, d.addrs = make(map[svcKey]*front, len(img.svc)), img.addr
	byID := make(map[uint32]*front, len(img.svc))
	for k, v := range img.svc {
		f := &front{id: v.ID, value: v, slots: make([]slotValue, v.slots()), picks: map[uint64]slotValue{}}
		d.fronts[k], byID[v.ID] = f, f
		d.lastID = max(d.lastID, v.ID)
	}
	for k, v := range img.slot {
		d.lastID = max(d.lastID, k.ID)
		if f := byID[k.ID]; f != nil && int(k.Slot) < len(f.slots) {
			f.slots[k.Slot] = v
		} else {
			orphans.slot.del(k)
		}
	}
	for k, v := range img.pick {
		if f := byID[k.ID]; f != nil {
			f.picks[k.Ident] = v
		} else {
			orphans.pick.del(k)
		}
	}
	return orphans
}

// is says whether the kernel has what it should.
func (d *Driver) is(img image) bool {
	if len(img.svc) != len(d.fronts) || !maps.Equal(img.addr, d.addrs) {
		return false
	}
	slots, picks := 0, 0
	for k, f := range d.fronts {
		if img.svc[k] != f.value {
			return false
		}
		for i, v := range f.slots {
			if img.slot[slotKey{f.id, uint32(i)}] != v {
				return false
			}
		}
		for ident, v := range f.picks {
			if img.pick[pickKey{ID: f.id, Ident: ident}] != v {
				return false
			}
		}
		slots, picks = slots+len(f.slots), picks+len(f.picks)
	}
	return slots == len(img.slot) && picks == len(img.pick)
}

// restore makes the kernel, which has img, be as it should, and says whether
// there was a difference.
func (d *Driver) restore(img image) (bool, error) {
	w := d.take(img)
	d.broken = false
	clear(d.claims)
	for f := range d.table.All() {
		d.put(&w, f)
	}
	if !d.adopted {
		d.forget(&w)
	}
	for a := range img.addr {
		d.putAddr(&w, netip.AddrFrom16(a).Unmap())
	}
	for _, a := range slices.Concat(d.nodes, loopbacks()) {
		d.putAddr(&w, a)
	}
	differs := !w.empty()
	err := d.flush(&w)
	if err == nil {
		clear(d.full) // what does not fit a second time is said a second time
	}
	return differs, err
}

// forget drops what nobody wants: services that went while no process was here.
func (d *Driver) forget(w *writes) {
	d.adopted = false
	for k, f := range d.fronts {
		if !f.wanted {
			d.remove(w, k)
		}
	}
	for a := range d.addrs {
		d.putAddr(w, netip.AddrFrom16(a).Unmap())
	}
	d.forgetHits(w)
}

// audit compares everything with the kernel. Reading takes a while when there
// are many services, so it is done beside the changes; if one came meanwhile,
// the next audit will do.
func (d *Driver) audit() {
	d.mu.Lock()
	before := d.changes
	d.mu.Unlock()
	img, err := d.maps.read()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changes != before && err == nil {
		return
	}
	var differs bool
	if err == nil && (d.broken || !d.is(img)) {
		differs, err = d.restore(img)
	}
	if err != nil {
		d.cfg.Log.Warn("ebpf: compare with the kernel", "error", err)
		return
	}
	if differs {
		d.metrics.repairs.Inc()
		d.cfg.Log.Warn("ebpf: the kernel's maps were not as they should be and have been put right")
	}
}

// tick does what time brings: new addresses of the node, and what the kernel
// refused before.
func (d *Driver) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cfg.NodeAddresses) == 0 {
		if err := d.refreshNodes(); err != nil {
			d.cfg.Log.Warn("ebpf: follow the node's addresses", "error", err)
		}
	}
	if !d.broken {
		return
	}
	img, err := d.maps.read()
	if err == nil {
		_, err = d.restore(img)
	}
	if err != nil {
		d.cfg.Log.Warn("ebpf: the kernel still refuses a change", "error", err)
	}
}
