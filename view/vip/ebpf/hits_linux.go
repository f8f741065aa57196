package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fingerpost/fingerpost/view/vip"
)

// count counts a client for the endpoint at R9 of the frontend at R7, on this
// processor. What does not fit into the map is not counted.
func (c *code) count(m *store) {
	c.add(
		asm.LoadMem(asm.R2, asm.R7, 0, asm.Word), asm.StoreMem(asm.RFP, stPick, asm.R2, asm.DWord),
		asm.LoadMem(asm.R2, asm.R9, 24, asm.DWord), asm.StoreMem(asm.RFP, stPick+8, asm.R2, asm.DWord),
	)
	c.lookup(m.hits, stPick)
	c.add(
		asm.JEq.Imm(asm.R0, 0, "first"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Ja.Label("counted"),
	)
	c.label("first")
	c.add(asm.Mov.Imm(asm.R2, 1), asm.StoreMem(asm.RFP, stHit, asm.R2, asm.DWord))
	c.update(m.hits, stPick, stHit)
	c.label("counted")
	c.add(asm.Mov.Imm(asm.R0, 0)) // for a label of its own
}

// dropHits forgets the counts of endpoints that left.
func dropHits(w *writes, id uint32, before, now []slotValue) {
	stays := make(map[uint64]struct{}, len(now))
	for _, v := range now {
		stays[v.Ident] = struct{}{}
	}
	for _, v := range before {
		if _, ok := stays[v.Ident]; !ok {
			stays[v.Ident] = struct{}{} // once
			w.hits.del(pickKey{ID: id, Ident: v.Ident})
		}
	}
}

// forgetHits forgets the counts of endpoints that left while no process was
// there.
func (d *Driver) forgetHits(w *writes) {
	counts, err := d.maps.readHits()
	if err != nil {
		d.cfg.Log.Warn("ebpf: counts of endpoints that left may stay", "error", err)
		return
	}
	for _, f := range d.fronts {
		for _, v := range f.slots {
			delete(counts, pickKey{ID: f.id, Ident: v.Ident})
		}
	}
	for k := range counts {
		w.hits.del(k)
	}
}

// readHits gives the counts of all processors together.
func (m *store) readHits() (map[pickKey]uint64, error) {
	out := map[pickKey]uint64{}
	var key pickKey
	var each []uint64
	all := m.hits.Iterate()
	for all.Next(&key, &each) {
		out[key] = 0
		for _, n := range each {
			out[key] += n
		}
	}
	// Entries came and went meanwhile: the others have been read.
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("ebpf: read the counters: %w", err)
	}
	return out, nil
}

// Hits implements [vip.HitCounter]: connections and UDP flows of this machine's
// sockets.
func (d *Driver) Hits() (out []vip.Hit, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, false, nil
	}
	counts, err := d.maps.readHits()
	if err != nil {
		return nil, false, err
	}
	for k, front := range d.fronts {
		f := d.table.Get(k.frontOf())
		if f == nil {
			continue
		}
		for _, v := range front.slots {
			key := pickKey{ID: front.id, Ident: v.Ident}
			if n := counts[key]; n > 0 {
				out = append(out, vip.Hit{Service: f.Service, Port: f.Port, Proto: f.Proto, Backend: toAddrPort(v.Addr, v.Port), Count: n})
				delete(counts, key)
			}
		}
	}
	return out, true, nil
}
