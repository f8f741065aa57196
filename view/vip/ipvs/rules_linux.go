package ipvs

import (
	"encoding/binary"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is of our tables of nftables, one for each family.
const tableName = "fingerpost-ipvs"

// Sets of a table. K is "daddr . l4proto . dport".
const (
	setSvc     = "svc"     // K : what happens to a frontend
	setLocal   = "local"   // K : the same for traffic from outside, policy Local
	setShort   = "short"   // K : addr . port, the ClusterIP that this node and its pods use instead
	setGuarded = "guarded" // K, of frontends with source ranges
	setAllowed = "allowed" // K . saddr
	setVIPs    = "vips"    // addresses on the device
	setHairpin = "hairpin" // saddr . daddr of an endpoint that meets itself
	setPods    = "pods"
	setRanges  = "ranges"
)

// Chains that frontends lead to.
const (
	toCluster  = "cluster"  // a ClusterIP
	toExternal = "external" // from outside, policy Cluster
	toShortcut = "shortcut" // policy Local, but from this node or a pod
	toPlain    = "plain"    // as it is
	toReject   = "reject"
	toDrop     = "drop"
)

// family is the layout of one address family.
type family struct {
	v6     bool
	table  *nft.Table
	sets   map[string]*nft.Set
	order  []string
	fixed  map[string][]nft.SetElement
	chains []*nft.Chain
	rules  [][]rule // of chains
	mark   uint32
}

type rule []expr.Any

func newFamily(cfg *Config, v6 bool) *family {
	f := &family{v6: v6, sets: map[string]*nft.Set{}, fixed: map[string][]nft.SetElement{}, mark: cfg.MasqueradeMark}
	addr := nft.TypeIPAddr
	f.table = &nft.Table{Family: nft.TableFamilyIPv4, Name: tableName}
	if v6 {
		addr = nft.TypeIP6Addr
		f.table.Family = nft.TableFamilyIPv6
	}
	concat := nft.MustConcatSetType
	key := concat(addr, nft.TypeInetProto, nft.TypeInetService)
	add := func(s *nft.Set) {
		s.Table = f.table
		f.sets[s.Name] = s
		f.order = append(f.order, s.Name)
	}
	add(&nft.Set{Name: setSvc, IsMap: true, Concatenation: true, KeyType: key, DataType: nft.TypeVerdict})
	add(&nft.Set{Name: setLocal, IsMap: true, Concatenation: true, KeyType: key, DataType: nft.TypeVerdict})
	add(&nft.Set{Name: setShort, IsMap: true, Concatenation: true, KeyType: key, DataType: concat(addr, nft.TypeInetService)})
	add(&nft.Set{Name: setGuarded, Concatenation: true, KeyType: key})
	add(&nft.Set{Name: setAllowed, Concatenation: true, Interval: true, KeyType: concat(addr, nft.TypeInetProto, nft.TypeInetService, addr)})
	add(&nft.Set{Name: setVIPs, KeyType: addr})
	add(&nft.Set{Name: setHairpin, Concatenation: true, KeyType: concat(addr, addr)})
	add(&nft.Set{Name: setPods, KeyType: addr, Interval: true})
	add(&nft.Set{Name: setRanges, KeyType: addr, Interval: true})
	f.fixed[setPods], f.fixed[setRanges] = intervals(cfg.PodCIDRs, v6), intervals(cfg.ServiceCIDRs, v6)
	f.base()
	return f
}

func intervals(all []netip.Prefix, v6 bool) (out []nft.SetElement) {
	for _, p := range disjoint(all, v6) {
		out = append(out, nft.SetElement{Key: p.Addr().AsSlice()})
		if end := last(p).Next(); end.IsValid() {
			out = append(out, nft.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// disjoint gives the prefixes of a family without those inside others.
func disjoint(all []netip.Prefix, v6 bool) (out []netip.Prefix) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
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

// base makes the chains. Those for new connections stand before IPVS in both
// directions: it takes packets for this machine in the input hook, and in the
// output hook behind priority -100.
func (f *family) base() {
	chain := func(c *nft.Chain, rules ...rule) {
		c.Table = f.table
		f.chains, f.rules = append(f.chains, c), append(f.rules, rules)
	}
	plain := func(name string, rules ...rule) { chain(&nft.Chain{Name: name}, rules...) }
	hooked := func(name string, kind nft.ChainType, hook *nft.ChainHook, priority nft.ChainPriority, rules ...rule) {
		chain(&nft.Chain{Name: name, Type: kind, Hooknum: hook, Priority: &priority}, rules...)
	}
	saddr, daddr := f.addr(true), f.addr(false)
	masquerade := []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: r0}, bits(r0, ^f.mark, f.mark),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r0}}
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	unreachable := uint8(3) // of ports
	fam := uint32(unix.NFPROTO_IPV4)
	if f.v6 {
		unreachable, fam = 4, unix.NFPROTO_IPV6
	}
	plain(toPlain)
	plain(toDrop, rule{drop})
	plain(toReject,
		rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r0}, &expr.Cmp{Op: expr.CmpOpEq, Register: r0, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
		rule{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: unreachable}})
	if len(f.fixed[setPods]) > 0 {
		plain(toCluster, append(rule{saddr(r0), in(setPods, r0, true)}, masquerade...))
	} else {
		plain(toCluster) // this machine's own is masqueraded anyway
	}
	plain(toExternal, rule(masquerade))
	plain(toShortcut, append(f.key(), &expr.Lookup{SetName: setShort, SourceRegister: r0, DestRegister: r8, IsDestRegSet: true},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: r8, RegProtoMin: r8 + f.words()}))
	guard := append(append(f.key(), in(setGuarded, r0, false)), append(f.key(), saddr(r0+f.words()+2), in(setAllowed, r0, true), drop)...)
	services := []rule{
		append(f.key(), verdicts(setSvc)),
		// These addresses are this machine's own, but its programs are not
		// offered there.
		{daddr(r0), in(setVIPs, r0, false), goTo(toReject)},
	}
	if len(f.fixed[setRanges]) > 0 {
		services = append(services, rule{daddr(r0), in(setRanges, r0, false), drop})
	}
	plain("services", services...)
	// A refusal that goes to one of these addresses must not be refused.
	known := rule{&expr.Ct{Register: r0, Key: expr.CtKeySTATE}, bits(r0, expr.CtStateBitNEW, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: r0, Data: make([]byte, 4)}, &expr.Verdict{Kind: expr.VerdictAccept}}
	entry := []rule{known, guard}
	if len(f.fixed[setPods]) > 0 {
		entry = append(entry, rule{saddr(r0), in(setPods, r0, false), goTo("services")})
	}
	entry = append(entry, append(f.key(), verdicts(setLocal)), rule{goTo("services")})
	hooked("prerouting", nft.ChainTypeNAT, nft.ChainHookPrerouting, *nft.ChainPriorityNATDest, entry...)
	hooked("output", nft.ChainTypeNAT, nft.ChainHookOutput, *nft.ChainPriorityNATDest,
		known,
		guard,
		// The kernel sends from the very address that it sends to.
		append(rule{daddr(r0), in(setVIPs, r0, false)}, masquerade...),
		rule{goTo("services")})
	random := &expr.Masq{FullyRandom: true}
	hooked("postrouting", nft.ChainTypeNAT, nft.ChainHookPostrouting, *nft.ChainPriorityNATSource,
		rule{&expr.Meta{Key: expr.MetaKeyMARK, Register: r0}, bits(r0, f.mark, 0), isNot0(r0),
			&expr.Meta{Key: expr.MetaKeyMARK, Register: r0}, bits(r0, ^f.mark, 0),
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r0}, random},
		// Only what IPVS sends comes here from an endpoint to itself, but for
		// this machine's own addresses.
		rule{&expr.Meta{Key: expr.MetaKeyOIFTYPE, Register: r0},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK)},
			saddr(r0), daddr(r0 + f.words()), in(setHairpin, r0, false), random})
	hooked("forward", nft.ChainTypeFilter, nft.ChainHookForward, *nft.ChainPriorityFilter,
		rule{&expr.Ct{Register: r0, Key: expr.CtKeySTATE}, bits(r0, expr.CtStateBitINVALID, 0), isNot0(r0),
			saddr(r0), saddr(r0 + f.words()), in(setHairpin, r0, false), drop})
}

// The registers of four bytes each. A key begins at r0, a result stands at r8.
const (
	r0 = unix.NFT_REG32_00
	r8 = unix.NFT_REG32_00 + 8
)

func (f *family) words() uint32 {
	if f.v6 {
		return 4
	}
	return 1
}

func (f *family) addr(source bool) func(r uint32) expr.Any {
	offset, size := uint32(16), uint32(4)
	if f.v6 {
		offset, size = 24, 16
	}
	if source {
		offset -= size
	}
	return func(r uint32) expr.Any {
		return &expr.Payload{DestRegister: r, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
	}
}

// key loads K to r0.
func (f *family) key() rule {
	return rule{f.addr(false)(r0), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r0 + f.words()},
		&expr.Payload{DestRegister: r0 + f.words() + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}}
}

func in(set string, r uint32, not bool) expr.Any {
	return &expr.Lookup{SetName: set, SourceRegister: r, Invert: not}
}

func verdicts(set string) expr.Any {
	return &expr.Lookup{SetName: set, SourceRegister: r0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}
}

func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func isNot0(r uint32) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: r, Data: make([]byte, 4)}
}

// bits makes a register what is left of it by a mask, with the bits of xor
// turned over.
func bits(r, mask, xor uint32) expr.Any {
	b := binary.NativeEndian
	return &expr.Bitwise{SourceRegister: r, DestRegister: r, Len: 4, Mask: b.AppendUint32(nil, mask), Xor: b.AppendUint32(nil, xor)}
}
