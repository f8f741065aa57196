package ipvs

import (
	"fmt"

	"github.com/fingerpost/fingerpost/view/vip"
)

// Hits gives how many connections IPVS has led to each endpoint since that came
// the last time. The kernel sums them up every two seconds.
func (d *Driver) Hits() (hits []vip.Hit, ok bool, err error) {
	fronts := map[vip.Front]*vip.Frontend{}
	d.mu.Lock()
	for f := range d.table.All() {
		for _, at := range d.places(f) {
			front := vip.Front{Addr: at, Proto: f.Proto}
			if fronts[front] == nil || f.Scope != vip.Node {
				fronts[front] = f
			}
		}
	}
	servers := d.servers
	d.mu.Unlock()
	if servers == nil {
		return nil, true, nil
	}
	for at, f := range fronts { // without the lock: each is a question to the kernel
		reals, err := servers.k.reals(server{addr: at.Addr, proto: protocol(at.Proto)})
		if err != nil && missing(err) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, true, fmt.Errorf("ipvs: count connections: %s: %w", at, err)
		}
		for _, r := range reals {
			if r.hits > 0 {
				hits = append(hits, vip.Hit{Service: f.Service, Port: f.Port, Proto: f.Proto, Backend: r.addr, Count: r.hits})
			}
		}
	}
	return hits, true, nil
}
