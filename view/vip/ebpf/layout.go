package ebpf

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// layout is the version of the maps' contents: it names the directory below
// PinPath, so that a program never reads maps of another version.
const layout = "v1"

// What the maps hold, byte for byte; the offsets in program_linux.go follow it.
// Ports are in network order, everything else in the machine's. Padding has a
// name because it is part of the keys: it must be zero, which Go does not promise
// for fields without.
type (
	address [16]byte
	port    [2]byte

	svcKey struct {
		Addr  address
		Port  port
		Proto uint8
		Scope uint8 // scopeNode for node ports, whose Addr is 0.0.0.0 or ::
	}
	svcValue struct {
		ID      uint32
		Count   uint32 // with nodeOnly
		Owner   uint64 // who clients with session affinity belong to
		Timeout uint64 // of session affinity in nanoseconds; 0: none
	}
	slotKey struct {
		ID   uint32
		Slot uint32
	}
	slotValue struct {
		Addr  address
		Port  port
		Pad   [6]byte
		Ident uint64
	}
	pickKey struct {
		ID    uint32
		Pad   uint32
		Ident uint64
	}
	addrValue struct {
		Wild address // 0.0.0.0 or ::, as svcKey has it
		Kind uint64
	}
	flowKey struct {
		Cookie uint64
		Addr   address
		Port   port
		Pad    [6]byte
	}
	flowValue struct {
		Addr  address
		Port  port
		Proto uint8
		Pad   [5]byte
		Netns uint64 // of a connected UDP socket, else 0
	}
	clientKey struct {
		Owner  uint64
		Client uint64
	}
	clientValue struct {
		Ident uint64
		Used  uint64 // monotonic nanoseconds
	}
)

// nodeOnly is a bit of svcValue.Count: an endpoint has a loopback address, which
// means it in the node's own namespace only. Other sockets pass untouched, for the
// driver beside this one.
const nodeOnly = 1 << 31

func (v svcValue) slots() uint32 { return v.Count &^ nodeOnly }

const (
	scopeAddr uint8 = 0
	scopeNode uint8 = 1

	protoTCP uint8 = 6
	protoUDP uint8 = 17

	kindNode     uint64 = 1 // node ports answer here
	kindLoopback uint64 = 2 // the same, in the node's own namespace only
	kindCluster  uint64 = 4 // a ClusterIP: ports that nobody has are refused
)

func toPort(n uint16) (p port) {
	binary.BigEndian.PutUint16(p[:], n)
	return p
}

func toAddrPort(a address, p port) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), binary.BigEndian.Uint16(p[:]))
}

// keyOf gives the entry of a frontend; ok is false for what is left to another
// driver.
func keyOf(f vip.Front, scope vip.Scope) (k svcKey, ok bool) {
	k = svcKey{Addr: f.Addr.Addr().As16(), Port: toPort(f.Addr.Port())}
	switch f.Proto {
	case catalog.TCP:
		k.Proto = protoTCP
	case catalog.UDP:
		k.Proto = protoUDP
	default:
		return k, false
	}
	if scope == vip.Node {
		k.Scope = scopeNode
	}
	return k, true
}

// frontOf is the way back.
func (k svcKey) frontOf() vip.Front {
	proto := catalog.TCP
	if k.Proto == protoUDP {
		proto = catalog.UDP
	}
	return vip.Front{Addr: toAddrPort(k.Addr, k.Port), Proto: proto}
}

func wild(a netip.Addr) address {
	if a.Is4() {
		return netip.IPv4Unspecified().As16()
	}
	return address{}
}

// ownerBit keeps the owners of session affinity, which are hashes, apart from
// those of UDP sockets, which are ids of frontends.
const ownerBit = 1 << 63

// ownerOf is the same for all frontends of a service, so that a client which
// needs two of its ports gets both from one endpoint.
func ownerOf(k catalog.Key) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.String()))
	return h.Sum64() | ownerBit
}

// identities gives each backend a number that is the same on all ports of a
// service and in every process. Where that is not unique, as with instances
// typed by hand that share an address, the port counts too.
func identities(all []vip.Backend) []uint64 {
	out := make([]uint64, len(all))
	seen := make(map[uint64]int, len(all))
	for i, b := range all {
		out[i] = identity(b, false)
		if j, taken := seen[out[i]]; taken {
			out[i], out[j] = identity(b, true), identity(all[j], true)
		}
		seen[out[i]] = i
	}
	return out
}

func identity(b vip.Backend, withPort bool) uint64 {
	h := fnv.New64a()
	a := b.Addr.Addr().As16()
	_, _ = h.Write(a[:])
	_, _ = h.Write([]byte(b.Target.Kind + "/" + b.Target.Name))
	if withPort {
		p := toPort(b.Addr.Port())
		_, _ = h.Write(p[:])
	}
	return h.Sum64()
}

// maxSlots is where weights are rounded, if there are fewer backends.
const maxSlots = 1024

// shares gives each backend a number of slots in proportion to its weight, at
// least one.
func shares(all []vip.Backend) []int {
	divisor, sum := 0, 0
	for _, b := range all {
		divisor, sum = gcd(divisor, int(b.Weight)), sum+int(b.Weight)
	}
	limit := max(maxSlots, 2*len(all))
	out := make([]int, len(all))
	for i, b := range all {
		n := int(b.Weight) / divisor
		if sum/divisor > limit {
			n = int(b.Weight) * limit / sum
		}
		out[i] = max(1, n)
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// arrange gives the slots for the backends. Those that stay keep their places,
// newcomers take the places of those that went, and the rest is closed from the
// end, so that a change writes only what it must.
func arrange(before []slotValue, all []vip.Backend) []slotValue {
	ids, n := identities(all), shares(all)
	want := make(map[slotValue]int, len(all))
	values := make([]slotValue, len(all))
	total := 0
	for i, b := range all {
		values[i] = slotValue{Addr: b.Addr.Addr().As16(), Port: toPort(b.Addr.Port()), Ident: ids[i]}
		want[values[i]] = n[i]
		total += n[i]
	}
	out := make([]slotValue, 0, max(total, len(before)))
	var holes []int
	for i, v := range before {
		if want[v] > 0 {
			want[v]--
		} else {
			holes = append(holes, i)
		}
		out = append(out, v)
	}
	for _, v := range values {
		for ; want[v] > 0; want[v]-- {
			if len(holes) > 0 {
				out[holes[0]], holes = v, holes[1:]
			} else {
				out = append(out, v)
			}
		}
	}
	// The last hole first: what is moved into one is never a hole itself.
	for i := len(holes) - 1; i >= 0; i-- {
		last := len(out) - 1
		out[holes[i]] = out[last]
		out = out[:last]
	}
	return out
}
