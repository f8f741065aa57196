package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableName is the one nftables table of a pod network, of family inet.
const tableName = "fingerpost-pods"

// maxElements of a set go into one message; the kernel refuses very long ones.
const maxElements = 400

// Chains that need only be right together with the sets: the whole table is
// written anew with each change, in one transaction. Connections that are
// translated already are the business of conntrack and notice nothing.
//
//	prerouting  fib daddr type local            -> jump host-ports
//	output      fib daddr type local, not lo    -> jump host-ports
//	host-ports  [ip daddr A] tcp dport P        -> dnat to POD:Q
//	postrouting ct status dnat, from pod to itself          -> masquerade
//	            from this node's pods to outside the cluster -> masquerade

// transaction opens a batch of changes in the node's namespace.
func (n *Network) transaction() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(n.host.fd()), nftables.WithSockOptions(func(c *netlink.Conn) error {
		// A table with many host ports or peers is one message to the socket.
		return errors.Join(c.SetWriteBuffer(8<<20), c.SetReadBuffer(8<<20))
	}))
}

// applyRules writes the table as the leases and peers say it should be, unless
// it is that already. With look, what is in the kernel counts, too.
func (n *Network) applyRules(look bool) error {
	n.rules.Lock()
	defer n.rules.Unlock()
	n.mu.Lock()
	cluster := slices.Concat(n.cfg.PodCIDRs, n.cfg.ClusterCIDRs, n.peers)
	leases := n.leases.sorted()
	n.mu.Unlock()

	c, err := n.transaction()
	if err != nil {
		return fmt.Errorf("network: nftables: %w", err)
	}
	madeOf := fmt.Sprint(cluster)
	for _, l := range leases {
		if len(l.HostPorts) > 0 {
			madeOf += fmt.Sprint(*l)
		}
	}
	if n.written == madeOf && (!look || tableThere(c)) {
		return nil
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	hook := func(name string, h *nftables.ChainHook, priority nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeNAT, Hooknum: h, Priority: nftables.ChainPriorityRef(priority)})
	}
	ports := c.AddChain(&nftables.Chain{Table: t, Name: "host-ports"})
	pre := hook("prerouting", nftables.ChainHookPrerouting, -100)
	out := hook("output", nftables.ChainHookOutput, -100)
	post := hook("postrouting", nftables.ChainHookPostrouting, 100)

	jump := &expr.Verdict{Kind: expr.VerdictJump, Chain: ports.Name}
	c.AddRule(&nftables.Rule{Table: t, Chain: pre, Exprs: append(toLocal(), jump)})
	c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: append(append(toLocal(), oif("lo", expr.CmpOpEq)...), notLoopback(jump, 4)...)})
	c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: append(append(toLocal(), oif("lo", expr.CmpOpEq)...), notLoopback(jump, 6)...)})

	var pairs [2][]nftables.SetElement // pods that may reach themselves
	for _, l := range leases {
		for _, h := range l.HostPorts {
			for _, a := range l.Addrs {
				if !h.everywhere() && h.HostIP.Is4() != a.Is4() {
					continue
				}
				c.AddRule(&nftables.Rule{Table: t, Chain: ports, Exprs: translate(h, a), UserData: comment("pod " + l.UID)})
			}
		}
		if len(l.HostPorts) == 0 {
			continue
		}
		for _, a := range l.Addrs {
			b := a.AsSlice()
			i := familyIndex(a)
			pairs[i] = append(pairs[i], nftables.SetElement{Key: slices.Concat(b, b)})
		}
	}
	for i, f := range families() {
		self := &nftables.Set{
			Table: t, Name: "self" + f.suffix, Concatenation: true,
			KeyType: nftables.MustConcatSetType(f.key, f.key),
		}
		own := &nftables.Set{Table: t, Name: "own" + f.suffix, KeyType: f.key, Interval: true, KeyByteOrder: binaryutil.BigEndian}
		all := &nftables.Set{Table: t, Name: "cluster" + f.suffix, KeyType: f.key, Interval: true, KeyByteOrder: binaryutil.BigEndian}
		err := errors.Join(addSet(c, self, pairs[i]),
			addSet(c, own, intervals(n.cfg.PodCIDRs, i)), addSet(c, all, intervals(cluster, i)))
		if err != nil {
			return fmt.Errorf("network: nftables: %w", err)
		}
		masquerade := &expr.Masq{FullyRandom: true}
		// ct status dnat, ip saddr . ip daddr in self
		r := slices.Concat(f.is(), []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native32(1 << 5), Xor: native32(0)}, // IPS_DST_NAT
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native32(0)},
			f.address(f.src, 1), f.address(f.dst, f.second),
			&expr.Lookup{SourceRegister: 1, SetName: self.Name, SetID: self.ID},
			masquerade,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: r})
		r = slices.Concat(f.is(), []expr.Any{
			f.address(f.src, 1), &expr.Lookup{SourceRegister: 1, SetName: own.Name, SetID: own.ID},
			f.address(f.dst, 1), &expr.Lookup{SourceRegister: 1, SetName: all.Name, SetID: all.ID, Invert: true},
			// Many groups have no way back through a translation.
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(unix.RTN_UNICAST)},
			masquerade,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: r})
	}
	n.written = ""
	if err := c.Flush(); err != nil {
		return fmt.Errorf("network: write the nftables table %s: %w", tableName, err)
	}
	n.written = madeOf
	return nil
}

// tableThere says whether nobody has removed our table. To compare its rules
// would cost more than to write them.
func tableThere(c *nftables.Conn) bool {
	t, err := c.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	return err == nil && t != nil
}

// removeRules deletes the table.
func (n *Network) removeRules() error {
	n.rules.Lock()
	defer n.rules.Unlock()
	n.written = ""
	c, err := n.transaction()
	if err == nil {
		t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
		c.AddTable(t) // so that it is no error if there is none
		c.DelTable(t)
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("network: remove the nftables table %s: %w", tableName, err)
	}
	return nil
}

// family is what differs between IPv4 and IPv6.
type family struct {
	suffix   string
	proto    byte
	key      nftables.SetDatatype
	src, dst uint32 // offsets in the header
	size     uint32
	second   uint32 // register after an address in register 1
}

func families() [2]family {
	return [2]family{
		{"4", unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16, 4, unix.NFT_REG32_01},
		{"6", unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24, 16, unix.NFT_REG_2},
	}
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (f family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
	}
}

func (f family) address(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.size}
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(unix.RTN_LOCAL)},
	}
}

// oif matches the interface a packet leaves by.
func oif(name string, op expr.CmpOp) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: b}}
}

// notLoopback goes on to then unless the destination is a loopback address.
func notLoopback(then expr.Any, version int) []expr.Any {
	if version == 4 {
		f := families()[0]
		return append(f.is(),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.dst, Len: 1},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{127}}, then)
	}
	f := families()[1]
	return append(f.is(), f.address(f.dst, 1),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: netip.IPv6Loopback().AsSlice()}, then)
}

// translate leads a host port to an address of a pod.
func translate(h HostPort, pod netip.Addr) []expr.Any {
	f := families()[familyIndex(pod)]
	r := f.is()
	if !h.everywhere() {
		r = append(r, f.address(f.dst, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: h.HostIP.AsSlice()})
	}
	number := map[Protocol]byte{TCP: unix.IPPROTO_TCP, UDP: unix.IPPROTO_UDP, SCTP: unix.IPPROTO_SCTP}[h.Protocol]
	return append(r,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, h.Port)},
		&expr.Immediate{Register: 1, Data: pod.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, h.ContainerPort)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: 1, RegProtoMin: 2},
	)
}

func comment(text string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, text)
}

func addSet(c *nftables.Conn, s *nftables.Set, elements []nftables.SetElement) error {
	if err := c.AddSet(s, nil); err != nil {
		return err
	}
	for part := range slices.Chunk(elements, maxElements) {
		if err := c.SetAddElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

// intervals writes ranges of one family as the borders an interval set wants,
// without those that lie in others.
func intervals(ranges []netip.Prefix, family int) []nftables.SetElement {
	var mine []netip.Prefix
	for _, p := range ranges {
		if p.IsValid() && familyIndex(p.Addr()) == family {
			mine = append(mine, p.Masked())
		}
	}
	slices.SortFunc(mine, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	type span struct{ from, to netip.Addr } // both belong to it
	var spans []span
	for _, p := range mine {
		last := lastOf(p)
		if k := len(spans) - 1; k >= 0 {
			if next := spans[k].to.Next(); !next.IsValid() || p.Addr().Compare(next) <= 0 {
				if last.Compare(spans[k].to) > 0 {
					spans[k].to = last
				}
				continue
			}
		}
		spans = append(spans, span{p.Addr(), last})
	}
	var out []nftables.SetElement
	for _, s := range spans {
		out = append(out, nftables.SetElement{Key: s.from.AsSlice()})
		if end := s.to.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
