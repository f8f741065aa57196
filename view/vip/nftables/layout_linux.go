package nftables

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"

	nft "github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// layoutVersion changes when sets change their types: rules of another version
// are replaced in one transaction. Rules themselves are told by their hash.
const layoutVersion = "1"

// family is the layout of one address family: its sets, the chains that are
// always there, and how the chain of a plan is made.
type family struct {
	v6     bool
	table  *nft.Table
	sets   map[setName]*nft.Set
	order  []setName
	fixed  map[setName][]nft.SetElement // filled by the configuration only
	chains []*chain
	counts bool
	pods   bool
	anyNP  bool // node ports answer on every address
	mark   uint32
}

// chain is a chain with its rules.
type chain struct {
	*nft.Chain
	rules []rule
}

type rule []expr.Any

func newFamily(cfg *Config, v6 bool) *family {
	f := &family{v6: v6, sets: map[setName]*nft.Set{}, fixed: map[setName][]nft.SetElement{}, mark: cfg.MasqueradeMark, counts: cfg.Counters}
	addr := nft.TypeIPAddr
	f.table = &nft.Table{Family: nft.TableFamilyIPv4, Name: cfg.Table}
	if v6 {
		addr = nft.TypeIP6Addr
		f.table.Family = nft.TableFamilyIPv6
	}
	concat := nft.MustConcatSetType
	for _, node := range []bool{false, true} {
		key := []nft.SetDatatype{addr, nft.TypeInetProto, nft.TypeInetService}
		client := concat(addr, addr)
		name := func(s setName) setName { return s }
		if node {
			key = key[1:]
			client = concat(addr, nft.TypeInetProto, nft.TypeInetService)
			name = setName.node
		}
		indexed := concat(append(append([]nft.SetDatatype(nil), key...), nft.TypeMark)...)
		dest := concat(addr, nft.TypeInetService)
		f.add(&nft.Set{Name: string(name(setSvc)), IsMap: true, Concatenation: true, KeyType: concat(key...), DataType: nft.TypeMark})
		f.add(&nft.Set{Name: string(name(setLocal)), IsMap: true, Concatenation: true, KeyType: concat(key...), DataType: nft.TypeMark})
		f.add(&nft.Set{Name: string(name(setSlots)), IsMap: true, Concatenation: true, KeyType: indexed, DataType: dest, Counter: f.counts})
		f.add(&nft.Set{Name: string(name(setPicks)), IsMap: true, Concatenation: true, KeyType: indexed, DataType: nft.TypeMark})
		f.add(&nft.Set{Name: string(name(setIDs)), IsMap: true, Concatenation: true, KeyType: indexed, DataType: dest, Counter: f.counts})
		for _, aff := range []setName{setAff, setLocalAff} {
			f.add(&nft.Set{Name: string(name(aff)), IsMap: true, Concatenation: true, KeyType: client, DataType: nft.TypeMark,
				Dynamic: true, HasTimeout: true, Size: maxAffinity})
		}
	}
	key := concat(addr, nft.TypeInetProto, nft.TypeInetService)
	f.add(&nft.Set{Name: string(setPlans), IsMap: true, KeyType: nft.TypeMark, DataType: nft.TypeVerdict, KeyByteOrder: binaryutil.NativeEndian})
	f.add(&nft.Set{Name: string(setGuarded), Concatenation: true, KeyType: key})
	f.add(&nft.Set{Name: string(setAllowed), Concatenation: true, Interval: true, KeyType: concat(addr, nft.TypeInetProto, nft.TypeInetService, addr)})
	f.add(&nft.Set{Name: string(setClusterIPs), KeyType: addr})
	f.add(&nft.Set{Name: string(setHairpin), Concatenation: true, KeyType: concat(addr, addr)})
	f.configured(cfg, addr)
	f.base()
	return f
}

func (f *family) add(s *nft.Set) {
	s.Table = f.table
	f.sets[setName(s.Name)] = s
	f.order = append(f.order, setName(s.Name))
}

// configured adds the sets that the configuration fills.
func (f *family) configured(cfg *Config, addr nft.SetDatatype) {
	f.add(&nft.Set{Name: string(setPods), KeyType: addr, Interval: true})
	f.add(&nft.Set{Name: string(setRanges), KeyType: addr, Interval: true})
	f.add(&nft.Set{Name: string(setNodeAddr), KeyType: addr})
	interval := func(all []netip.Prefix) (out []nft.SetElement) {
		for _, p := range disjoint(all, f.v6) {
			out = append(out, nft.SetElement{Key: []byte(raw(p.Addr()))})
			if end := last(p).Next(); end.IsValid() {
				out = append(out, nft.SetElement{Key: []byte(raw(end)), IntervalEnd: true})
			}
		}
		return out
	}
	f.fixed[setPods], f.fixed[setRanges] = interval(cfg.PodCIDRs), interval(cfg.ServiceCIDRs)
	f.pods = len(f.fixed[setPods]) > 0
	f.anyNP = len(cfg.NodeAddresses) == 0
	for _, a := range cfg.NodeAddresses {
		if a.Is6() == f.v6 && !a.IsLoopback() {
			f.fixed[setNodeAddr] = append(f.fixed[setNodeAddr], nft.SetElement{Key: []byte(raw(a))})
		}
	}
}

// base makes the chains that do not depend on services.
func (f *family) base() {
	hooked := func(name string, kind nft.ChainType, hook *nft.ChainHook, priority nft.ChainPriority, rules ...rule) {
		f.chains = append(f.chains, &chain{&nft.Chain{Name: name, Table: f.table, Type: kind, Hooknum: hook, Priority: &priority}, rules})
	}
	plain := func(name string, rules ...rule) {
		f.chains = append(f.chains, &chain{&nft.Chain{Name: name, Table: f.table}, rules})
	}
	key, proto := f.key(false), f.proto()
	daddr := f.addr(false)
	plain("reject",
		rule{proto(r0), is(r0, 6), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}},
		rule{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: f.portUnreachable()}},
	)
	plain("drop", rule{&expr.Verdict{Kind: expr.VerdictDrop}})
	guard := rule(join(key(r0), in(setGuarded, r0), key(r0), f.addr(true)(r0+f.words()+2), notIn(setAllowed, r0), &expr.Verdict{Kind: expr.VerdictDrop}))
	services := []rule{
		guard,
		f.dispatch(setSvc, key),
		append(f.toNode(), f.dispatch(setSvc.node(), f.key(true))...),
		{daddr(r0), in(setClusterIPs, r0), goTo("reject")},
	}
	if len(f.fixed[setRanges]) > 0 {
		services = append(services, rule{daddr(r0), in(setRanges, r0), &expr.Verdict{Kind: expr.VerdictDrop}})
	}
	plain("services", services...)
	plain("outside",
		guard,
		f.dispatch(setLocal, key),
		append(f.toNode(), f.dispatch(setLocal.node(), f.key(true))...),
		rule{goTo("services")},
	)
	// What stays on this machine finds its way back as it is, and an address of
	// loopback must stay one.
	away := []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFTYPE, Register: r0},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: binary.NativeEndian.AppendUint16(nil, unix.ARPHRD_LOOPBACK)}}
	plain("masquerade",
		rule{mark(r0), bits(r0, ^f.mark, 0), setMark(r0)},
		rule(join(away, &expr.Masq{FullyRandom: true})),
	)
	entry := []rule{{goTo("outside")}}
	if f.pods {
		entry = []rule{{f.addr(true)(r0), notIn(setPods, r0), goTo("outside")}, {goTo("services")}}
	}
	hooked("prerouting", nft.ChainTypeNAT, nft.ChainHookPrerouting, *nft.ChainPriorityNATDest, entry...)
	hooked("output", nft.ChainTypeNAT, nft.ChainHookOutput, *nft.ChainPriorityNATDest, rule{goTo("services")})
	hooked("postrouting", nft.ChainTypeNAT, nft.ChainHookPostrouting, *nft.ChainPriorityNATSource,
		rule{mark(r0), bits(r0, f.mark, 0), isNot(r0, 0), goTo("masquerade")},
		rule(join(&expr.Ct{Register: r0, Key: expr.CtKeySTATUS}, bits(r0, ctStatusDNAT, 0), isNot(r0, 0), away,
			f.addr(true)(r0), daddr(r0+f.words()), in(setHairpin, r0), &expr.Masq{FullyRandom: true})),
	)
	hooked("forward", nft.ChainTypeFilter, nft.ChainHookForward, *nft.ChainPriorityFilter,
		rule{&expr.Ct{Register: r0, Key: expr.CtKeySTATE}, bits(r0, expr.CtStateBitINVALID, 0), isNot(r0, 0),
			f.addr(true)(r0), f.addr(true)(r0 + f.words()), in(setHairpin, r0), &expr.Verdict{Kind: expr.VerdictDrop}},
	)
}

const ctStatusDNAT = 1 << 5

// toNode matches packets to the addresses where node ports answer.
func (f *family) toNode() rule {
	if !f.anyNP {
		return rule{f.addr(false)(r0), in(setNodeAddr, r0)}
	}
	local := rule{&expr.Fib{Register: r0, ResultADDRTYPE: true, FlagDADDR: true}, is32(r0, unix.RTN_LOCAL)}
	if f.v6 {
		one := netip.IPv6Loopback().As16()
		return append(local, f.addr(false)(r0), &expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: one[:]})
	}
	return append(local, f.addr(false)(r0),
		&expr.Bitwise{SourceRegister: r0, DestRegister: r0, Len: 4, Mask: []byte{255, 0, 0, 0}, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: r0, Data: []byte{127, 0, 0, 0}})
}

// dispatch finds the plan of a key and goes to its chain. nft cannot list a
// lookup of what another one gave, so the plan is put in between.
func (f *family) dispatch(set setName, key func(uint32) []expr.Any) rule {
	return rule(join(key(r0), find(set, r0, r8), setPriority(r8), priority(r8), find(setPlans, r8, unix.NFT_REG_VERDICT)))
}

// planChain makes the chain of a plan.
func (f *family) planChain(p plan) *chain {
	c := &chain{Chain: &nft.Chain{Name: p.String(), Table: f.table}}
	switch {
	case p.masq == masqAlways:
		c.rules = append(c.rules, rule{mark(r0), bits(r0, ^f.mark, f.mark), setMark(r0)})
	case p.masq == masqForeign && !p.local && f.pods:
		c.rules = append(c.rules, rule{f.addr(true)(r0), notIn(setPods, r0), mark(r0), bits(r0, ^f.mark, f.mark), setMark(r0)})
	case p.masq == masqForeign && !p.local:
		c.rules = append(c.rules, rule{&expr.Fib{Register: r0, ResultADDRTYPE: true, FlagSADDR: true}, is32(r0, unix.RTN_LOCAL),
			mark(r0), bits(r0, ^f.mark, f.mark), setMark(r0)})
	}
	slots, picks, ids, aff := setSlots, setPicks, setIDs, setAff
	if p.local {
		aff = setLocalAff
	}
	if p.node {
		slots, picks, ids, aff = slots.node(), picks.node(), ids.node(), aff.node()
	}
	key := f.key(p.node)
	n := f.keyWords(p.node)
	base := uint32(0)
	if p.local {
		base = localSlots
	}
	random := &expr.Numgen{Register: r0 + n, Modulus: uint32(p.slots), Type: unix.NFT_NG_RANDOM, Offset: base}
	nat := func(r uint32) expr.Any {
		fam := uint32(unix.NFPROTO_IPV4)
		if f.v6 {
			fam = unix.NFPROTO_IPV6
		}
		return &expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: r, RegProtoMin: r + f.words()}
	}
	// A packet may find the number of slots before a transaction and the slots
	// after it. The first slot is there as long as any is; when none is, the
	// client sends the packet again and finds what is true by then.
	first := &expr.Numgen{Register: r0 + n, Modulus: 1, Type: unix.NFT_NG_RANDOM, Offset: base}
	drop := rule{&expr.Verdict{Kind: expr.VerdictDrop}}
	const to = r8
	if p.hold == 0 {
		c.rules = append(c.rules,
			rule{&expr.Immediate{Register: r0, Data: make([]byte, 4)}, setPriority(r0)},
			rule(join(key(r0), random, find(slots, r0, to), nat(to))),
			rule(join(key(r0), first, find(slots, r0, to), nat(to))), drop)
		return c
	}
	client := f.client(p.node)
	remembered := join(client(r0), find(aff, r0, r8), setPriority(r8))
	keep := func(op uint32, hold bool) []expr.Any {
		d := &expr.Dynset{SrcRegKey: r0, SrcRegData: r8 + 1, SetName: string(aff), Operation: op}
		if hold {
			d.Timeout = p.hold
		}
		return join(priority(r8+1), client(r0), d)
	}
	use := join(key(r0), priority(r0+n), find(ids, r0, to), nat(to))
	pick := join(key(r0), random, find(picks, r0, to), setPriority(to))
	pickFirst := join(key(r0), first, find(picks, r0, to), setPriority(to))
	const dynsetDelete = 2
	c.rules = append(c.rules,
		rule(join(remembered, keep(unix.NFT_DYNSET_OP_UPDATE, true))), // the time begins again
		rule(join(remembered, use)),                                   // fails when the endpoint has left
		rule(join(remembered, keep(dynsetDelete, false))),
		rule(join(pick, keep(unix.NFT_DYNSET_OP_UPDATE, true))),
		rule(join(remembered, use)),
		rule(join(pick, use)), // nothing more can be remembered
		rule(join(pickFirst, use)), drop,
	)
	return c
}

// verdict is the element of plans for a plan.
func (p plan) verdict() nft.SetElement {
	return nft.SetElement{Key: []byte(native(p.id())), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: p.String()}}
}

// label identifies a rule by a hash of what it does, so that a rule which
// somebody changed, or another version made, is noticed.
func (f *family) label(r rule) []byte {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, layoutVersion)
	if f.counts {
		_, _ = fmt.Fprint(h, " counters")
	}
	for _, e := range r {
		b, _ := expr.Marshal(byte(f.table.Family), e)
		_, _ = h.Write(b)
	}
	return userdata.AppendString(nil, userdata.TypeComment, fmt.Sprintf("fingerpost %08x", h.Sum32()))
}

// The registers of four bytes each. A key begins at r0, a result stands at r8
// or behind the longest key.
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

func (f *family) keyWords(node bool) uint32 {
	if node {
		return 2
	}
	return f.words() + 2
}

func (f *family) portUnreachable() uint8 {
	if f.v6 {
		return 4
	}
	return 3
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

func (f *family) proto() func(r uint32) expr.Any {
	return func(r uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r} }
}

// key loads daddr . l4proto . dport.
func (f *family) key(node bool) func(r uint32) []expr.Any {
	return func(r uint32) (out []expr.Any) {
		if !node {
			out = append(out, f.addr(false)(r))
			r += f.words()
		}
		return append(out, f.proto()(r), &expr.Payload{DestRegister: r + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
	}
}

// client loads what affinity is remembered by.
func (f *family) client(node bool) func(r uint32) []expr.Any {
	return func(r uint32) []expr.Any {
		if node {
			return join(f.addr(true)(r), f.key(true)(r+f.words()))
		}
		return join(f.addr(true)(r), f.addr(false)(r+f.words()))
	}
}

// join makes one list of expressions and lists of them.
func join(parts ...any) (out []expr.Any) {
	for _, p := range parts {
		switch p := p.(type) {
		case []expr.Any:
			out = append(out, p...)
		case expr.Any:
			out = append(out, p)
		}
	}
	return out
}

func find(set setName, from, to uint32) expr.Any {
	return &expr.Lookup{SetName: string(set), SourceRegister: from, DestRegister: to, IsDestRegSet: true}
}

func in(set setName, r uint32) expr.Any {
	return &expr.Lookup{SetName: string(set), SourceRegister: r}
}

func notIn(set setName, r uint32) expr.Any {
	return &expr.Lookup{SetName: string(set), SourceRegister: r, Invert: true}
}

func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func is(r uint32, b byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: r, Data: []byte{b}}
}

func is32(r, n uint32) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: r, Data: binary.NativeEndian.AppendUint32(nil, n)}
}

func isNot(r, n uint32) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: r, Data: binary.NativeEndian.AppendUint32(nil, n)}
}

// bits makes a register what is left of it by a mask, with the bits of xor
// turned over.
func bits(r, mask, xor uint32) expr.Any {
	b := binary.NativeEndian
	return &expr.Bitwise{SourceRegister: r, DestRegister: r, Len: 4, Mask: b.AppendUint32(nil, mask), Xor: b.AppendUint32(nil, xor)}
}

func mark(r uint32) expr.Any     { return &expr.Meta{Key: expr.MetaKeyMARK, Register: r} }
func priority(r uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyPRIORITY, Register: r} }
func setMark(r uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: r}
}
func setPriority(r uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: r}
}
