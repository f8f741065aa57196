package nftables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// setName names a set or map of a table.
type setName string

const (
	setPlans setName = "plans"

	setSvc   setName = "svc"
	setLocal setName = "local"
	setSlots setName = "slots"
	setAff   setName = "aff"
	// setLocalAff is for traffic from outside: what it may reach is less.
	setLocalAff setName = "local-aff"
	setPicks    setName = "picks"
	setIDs      setName = "ids"

	setGuarded    setName = "guarded"
	setAllowed    setName = "allowed"
	setClusterIPs setName = "cluster-ips"
	setHairpin    setName = "hairpin"

	// Those that only the configuration fills.
	setPods     setName = "pods"
	setRanges   setName = "ranges"
	setNodeAddr setName = "node-addresses"
)

// node gives the map for node ports.
func (s setName) node() setName { return "node-" + s }

// counted sets have elements that several frontends share.
func (s setName) counted() bool { return s == setClusterIPs || s == setHairpin }

// foreign sets are filled by packets or by the configuration.
func (s setName) foreign() bool {
	switch s {
	case setPlans, setAff, setLocalAff, setAff.node(), setLocalAff.node(), setPods, setRanges, setNodeAddr:
		return true
	}
	return false
}

// place is where an element is.
type place struct {
	v6  bool
	set setName
	key string
}

// content is what stands there.
type content struct {
	val string
	end string // of an interval
}

type element struct {
	place
	content
}

// masq says whose address is replaced by the node's.
type masq uint8

const (
	masqNever   masq = iota
	masqForeign      // of clients that are not pods
	masqAlways
)

// plan is a kind of frontend; each has a chain.
type plan struct {
	what  string // "lb", "reject" or "drop"
	node  bool   // the maps of node ports
	local bool   // the slots for traffic from outside
	masq  masq
	slots int
	hold  time.Duration // affinity
}

// String is the name of the plan's chain.
func (p plan) String() string {
	if p.what != "lb" {
		return p.what
	}
	s := [...]string{"direct", "cluster", "external"}[p.masq]
	if p.local {
		s = "local"
	}
	if p.node {
		s = "node-" + s
	}
	s = fmt.Sprintf("%s-%d", s, p.slots)
	if p.hold > 0 {
		s += fmt.Sprintf("-%ds", int(p.hold.Seconds()))
	}
	return s
}

// id is the plan's number in the maps: the same in every run.
func (p plan) id() uint32 {
	h := hash32(2166136261)
	s := p.String()
	for i := range len(s) {
		h.add(s[i])
	}
	return uint32(h)
}

// localSlots is where the slots for traffic from outside begin.
const localSlots = 1 << 16

// front is a frontend as it is programmed.
type front struct {
	*vip.Frontend
	in  []slot // of Backends
	out []slot // of Local
}

// program gives what a frontend needs, near to what it had before (may be nil).
func program(f *vip.Frontend, before *front) *front {
	p := &front{Frontend: f}
	var in, out []slot
	if before != nil {
		in, out = before.in, before.out
	}
	p.in = arrange(in, f.Backends)
	if f.LocalOnly {
		p.out = arrange(out, f.Local)
	}
	return p
}

// plans gives the plan for everybody, and that for traffic from outside when it
// is another.
func (p *front) plans() (in plan, out *plan) {
	hold := p.Affinity.Round(time.Second)
	if p.Affinity > 0 && hold == 0 {
		hold = time.Second
	}
	in = plan{what: "lb", node: p.Scope == vip.Node, masq: masqAlways, slots: len(p.in), hold: hold}
	if p.Scope == vip.Cluster || p.LocalOnly {
		in.masq = masqForeign
	}
	if len(p.in) == 0 {
		in = plan{what: "reject"}
	}
	if p.LocalOnly {
		out = &plan{what: "lb", node: in.node, local: true, slots: len(p.out), hold: hold}
		switch {
		case len(p.out) > 0:
			out.node = p.Scope == vip.Node
		case len(p.in) > 0:
			out = &plan{what: "drop"}
		default:
			out = &plan{what: "reject"}
		}
	}
	return in, out
}

// shape is what the elements of a frontend depend on besides itself.
type shape struct {
	node  string
	addrs []netip.Addr
}

// elements gives everything that stands for a frontend. Each place occurs once,
// but for counted sets.
func (p *front) elements(sh *shape, out []element) []element {
	v6 := p.Addr.Addr().Is6()
	key := p.key()
	named := func(s setName) setName {
		if p.Scope == vip.Node {
			return s.node()
		}
		return s
	}
	add := func(set setName, key, val string) {
		out = append(out, element{place{v6, set, key}, content{val: val}})
	}
	in, outside := p.plans()
	add(named(setSvc), key, native(in.id()))
	if outside != nil {
		add(named(setLocal), key, native(outside.id()))
	}
	for _, side := range []struct {
		slots []slot
		base  int
		salt  uint32
	}{{p.in, 0, 0}, {p.out, localSlots, 1 << 31}} {
		for i, s := range side.slots {
			at := key + native(uint32(side.base+i))
			if p.Affinity == 0 {
				add(named(setSlots), at, pair(s.addr))
				continue
			}
			id := native(s.id | side.salt)
			add(named(setPicks), at, id)
			if i == slices.IndexFunc(side.slots, func(o slot) bool { return o.id == s.id }) {
				add(named(setIDs), key+id, pair(s.addr))
			}
		}
	}
	if p.Scope == vip.Cluster {
		add(setClusterIPs, raw(p.Addr.Addr()), "")
	}
	out = p.guards(sh, key, out)
	for _, list := range [][]vip.Backend{p.Backends, p.Local} {
		for _, b := range list {
			if b.Node == "" || b.Node == sh.node {
				a := raw(b.Addr.Addr())
				add(setHairpin, a+a, "")
			}
		}
	}
	return out
}

// guards gives the source ranges. A node that is allowed by one of its
// addresses is allowed by all: which one it uses is the kernel's choice.
func (p *front) guards(sh *shape, key string, out []element) []element {
	if len(p.Sources) == 0 {
		return out
	}
	v6 := p.Addr.Addr().Is6()
	ranges := slices.Clone(p.Sources)
	if slices.ContainsFunc(sh.addrs, p.Allowed) {
		for _, a := range sh.addrs {
			ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	out = append(out, element{place{v6, setGuarded, key}, content{}})
	for _, r := range disjoint(ranges, v6) {
		out = append(out, element{place{v6, setAllowed, key + raw(r.Addr())}, content{end: key + raw(last(r))}})
	}
	return out
}

// disjoint gives the prefixes of a family without those inside others, sorted.
func disjoint(all []netip.Prefix, v6 bool) []netip.Prefix {
	var out []netip.Prefix
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Bits() - b.Bits(); c != 0 {
			return c
		}
		return a.Addr().Compare(b.Addr())
	})
	for _, p := range all {
		p = p.Masked()
		if p.IsValid() && p.Addr().Is6() == v6 && !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}

// last gives the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// key is daddr . l4proto . dport, each part padded to four bytes; without daddr
// for a node port.
func (p *front) key() string {
	port := p.Addr.Port()
	tail := string([]byte{protoNumber(p.Proto), 0, 0, 0, byte(port >> 8), byte(port), 0, 0})
	if p.Scope == vip.Node {
		return tail
	}
	return raw(p.Addr.Addr()) + tail
}

func protoNumber(p catalog.Protocol) byte {
	switch p {
	case catalog.UDP:
		return 17
	case catalog.SCTP:
		return 132
	}
	return 6
}

func raw(a netip.Addr) string { return string(a.AsSlice()) }

// pair is addr . port.
func pair(a netip.AddrPort) string {
	return raw(a.Addr()) + string([]byte{byte(a.Port() >> 8), byte(a.Port()), 0, 0})
}

// native is a number as the kernel keeps it in a register.
func native(n uint32) string {
	return string(binary.NativeEndian.AppendUint32(nil, n))
}
