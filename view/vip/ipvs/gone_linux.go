package ipvs

import (
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// refuseFor is how long a node port that was removed is refused by a rule. The
// kernel forgets its flows a moment after their servers went; until then it
// drops every packet of them but the first, where others refuse them.
const refuseFor = 5 * time.Second

// refuse begins that. Addresses on the device need none: what has no service
// there is refused, or does not come here.
func (d *Driver) refuse(f vip.Front) {
	if e := d.servers.servers[f]; f.Proto != catalog.UDP || e == nil || e.bound {
		return
	}
	if _, there := d.gone[f]; !there {
		d.filter.change(nil, refusal(f))
	}
	d.gone[f] = d.cfg.Now().Add(refuseFor)
	d.flows[f] = struct{}{}
}

// admit ends it.
func (d *Driver) admit(f vip.Front) {
	if _, there := d.gone[f]; there {
		d.filter.change(refusal(f), nil)
		delete(d.gone, f)
	}
}

func refusal(f vip.Front) []element {
	return []element{{place{f.Addr.Addr().Is6(), setSvc, keyOf(f.Addr, f.Proto)}, content{chain: toReject}}}
}

// admitAll ends what lasted long enough.
func (d *Driver) admitAll(now time.Time) error {
	for f, until := range d.gone {
		if !now.Before(until) {
			d.admit(f)
		}
	}
	return d.filter.commit(false)
}

// forget removes what was adopted and nobody wants.
func (d *Driver) forget() error {
	for f := range d.servers.old {
		d.refuse(f)
	}
	if err := d.filter.commit(false); err != nil {
		return err
	}
	return d.servers.Forget()
}
