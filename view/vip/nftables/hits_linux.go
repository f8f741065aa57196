package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/view/vip"
)

// Hits implements [vip.HitCounter] where Config.Counters says so.
func (d *Driver) Hits() (out []vip.Hit, ok bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.cfg.Counters {
		return nil, false, nil
	}
	counts := map[place]uint64{}
	for _, f := range d.families {
		if f == nil {
			continue
		}
		for _, name := range []setName{setSlots, setSlots.node(), setIDs, setIDs.node()} {
			if err := d.k.readCounters(f, name, counts); err != nil {
				return nil, false, err
			}
		}
	}
	for _, p := range d.fronts {
		key, v6 := p.key(), p.Addr.Addr().Is6()
		slots, ids := setSlots, setIDs
		if p.Scope == vip.Node {
			slots, ids = slots.node(), ids.node()
		}
		for _, side := range []struct {
			slots []slot
			base  int
			salt  uint32
		}{{p.in, 0, 0}, {p.out, localSlots, 1 << 31}} {
			for i, s := range side.slots {
				at := place{v6, slots, key + native(uint32(side.base+i))}
				if p.Affinity > 0 {
					at = place{v6, ids, key + native(s.id|side.salt)}
				}
				if n := counts[at]; n > 0 {
					out = append(out, vip.Hit{Service: p.Service, Port: p.Port, Proto: p.Proto, Backend: s.addr, Count: n})
					delete(counts, at) // an id stands for several slots
				}
			}
		}
	}
	return out, true, nil
}

// readCounters adds the packets that elements of a set have counted: the first
// of each connection.
func (k *kernel) readCounters(f *family, s setName, out map[place]uint64) error {
	err := k.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, byte(f.table.Family), []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(f.table.Name + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(string(s) + "\x00")},
	}, func() {}, func(b []byte) error {
		return countersOf(b, func(key []byte, n uint64) {
			if n > 0 {
				out[place{f.v6, s, string(key)}] = n
			}
		})
	})
	if err != nil {
		return fmt.Errorf("nftables: read the counters of %s: %w", s, err)
	}
	return nil
}

// countersOf decodes a message with elements of a set that count.
func countersOf(b []byte, f func(key []byte, packets uint64)) error {
	list, err := first(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if err != nil {
		return err
	}
	var inner error
	err = attributes(list, func(_ uint16, e []byte) {
		var key []byte
		var packets uint64
		inner = errors.Join(inner, attributes(e, func(kind uint16, v []byte) {
			var err error
			switch kind {
			case unix.NFTA_SET_ELEM_KEY:
				key, err = first(v, unix.NFTA_DATA_VALUE)
			case unix.NFTA_SET_ELEM_EXPR:
				packets, err = packetsOf(v)
			}
			inner = errors.Join(inner, err)
		}))
		f(key, packets)
	})
	return errors.Join(err, inner)
}

// packetsOf decodes an expression; what is no counter has counted nothing.
func packetsOf(b []byte) (uint64, error) {
	name, err := first(b, unix.NFTA_EXPR_NAME)
	if err != nil || string(name) != "counter\x00" {
		return 0, err
	}
	data, err := first(b, unix.NFTA_EXPR_DATA)
	if err != nil {
		return 0, err
	}
	n, err := first(data, unix.NFTA_COUNTER_PACKETS)
	if err != nil || len(n) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(n), nil
}
