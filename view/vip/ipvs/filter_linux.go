package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// place is an element of a set, and content what else it says.
type place struct {
	v6       bool
	set, key string
}

type content struct {
	end   string // of an interval
	value string // of a map
	chain string // of a map of verdicts
}

type element struct {
	place
	content
}

// wanted is what an element should say, with the number of those who want it:
// several frontends may want the same one.
type wanted struct {
	content
	users int
}

// filter is the packet filter beside IPVS.
type filter struct {
	families [2]*family
	want     map[place]*wanted
	have     map[place]content
	touched  map[place]struct{}
	begun    bool
	gen      uint32 // of the ruleset, after our last transaction
}

func newFilter(cfg *Config) *filter {
	return &filter{
		families: [2]*family{newFamily(cfg, false), newFamily(cfg, true)},
		want:     map[place]*wanted{}, have: map[place]content{}, touched: map[place]struct{}{},
	}
}

// change takes the elements of a service from those before to those now.
func (p *filter) change(was, now []element) {
	for _, e := range now {
		w := p.want[e.place]
		if w == nil {
			w = &wanted{}
			p.want[e.place] = w
		}
		w.users++
		w.content = e.content
		p.touched[e.place] = struct{}{}
	}
	for _, e := range was {
		if w := p.want[e.place]; w != nil {
			if w.users--; w.users == 0 {
				delete(p.want, e.place)
			}
		}
		p.touched[e.place] = struct{}{}
	}
}

const elementsPerMessage = 400

// commit makes one transaction of what was changed. The first one, and with
// all, replaces whatever is there.
func (p *filter) commit(all bool) error {
	all = all || !p.begun
	if !all && len(p.touched) == 0 {
		return nil
	}
	if all {
		clear(p.have)
		for at := range p.want {
			p.touched[at] = struct{}{}
		}
	}
	var del, add []element
	for at := range p.touched {
		had, there := p.have[at]
		w := p.want[at]
		if there && (w == nil || w.content != had) {
			del = append(del, element{at, had})
		}
		if w != nil && (!there || w.content != had) {
			add = append(add, element{at, w.content})
		}
	}
	err := transaction(func(c *nft.Conn) error {
		if all {
			for _, f := range p.families {
				f.replace(c)
			}
		}
		if err := p.elements(c, del, c.SetDeleteElements); err != nil {
			return err
		}
		return p.elements(c, add, c.SetAddElements)
	})
	if err != nil {
		p.begun = false
		return err
	}
	for _, e := range del {
		delete(p.have, e.place)
	}
	for _, e := range add {
		p.have[e.place] = e.content
	}
	clear(p.touched)
	p.begun = true
	p.gen, _ = generation()
	return nil
}

// elements groups elements by set and puts them into messages that fit.
func (p *filter) elements(c *nft.Conn, all []element, do func(*nft.Set, []nft.SetElement) error) error {
	groups := map[*nft.Set][]nft.SetElement{}
	for _, e := range all {
		x := nft.SetElement{Key: []byte(e.key)}
		if e.end != "" {
			x.KeyEnd = []byte(e.end)
		}
		if e.value != "" {
			x.Val = []byte(e.value)
		}
		if e.chain != "" {
			x.VerdictData = &expr.Verdict{Kind: expr.VerdictGoto, Chain: e.chain}
		}
		s := p.families[index(e.v6)].sets[e.set]
		groups[s] = append(groups[s], x)
	}
	for s, list := range groups {
		for part := range slices.Chunk(list, elementsPerMessage) {
			if err := do(s, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// replace makes the table anew.
func (f *family) replace(c *nft.Conn) {
	c.AddTable(f.table) // so that there is one to delete
	c.DelTable(f.table)
	c.AddTable(f.table)
	for _, name := range f.order {
		s := *f.sets[name]
		s.ID = 0
		_ = c.AddSet(&s, nil) // fails for anonymous sets only
		if len(f.fixed[name]) > 0 {
			_ = c.SetAddElements(f.sets[name], f.fixed[name])
		}
	}
	for _, ch := range f.chains {
		c.AddChain(ch)
	}
	for i, ch := range f.chains {
		for _, r := range f.rules[i] {
			c.AddRule(&nft.Rule{Table: f.table, Chain: ch, Exprs: r})
		}
	}
}

// transaction commits what fill adds.
func transaction(fill func(*nft.Conn) error) error {
	const socketBuffer = 64 << 20
	c, err := nft.New(nft.AsLasting(), nft.WithSockOptions(func(c *netlink.Conn) error {
		// May be refused; then the transactions must fit what there is.
		_ = c.SetWriteBuffer(socketBuffer)
		_ = c.SetReadBuffer(socketBuffer)
		return nil
	}))
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer c.CloseLasting()
	if err := fill(c); err != nil {
		return err
	}
	return c.Flush()
}

// generation gives the number of the ruleset: each transaction, of anybody,
// makes it one more.
func generation() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	replies, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4),
	})
	if err != nil {
		return 0, err
	}
	for _, m := range replies {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("no generation in the answer")
}

// intact says whether the kernel still has the chains and sets, with as many
// rules and elements as they should have.
func (p *filter) intact() (bool, error) {
	c, err := nft.New()
	if err != nil {
		return false, err
	}
	count := map[place]int{}
	for at := range p.have {
		count[place{v6: at.v6, set: at.set}]++
	}
	for _, f := range p.families {
		tables, err := c.ListTablesOfFamily(f.table.Family)
		if err != nil {
			return false, err
		}
		if !slices.ContainsFunc(tables, func(t *nft.Table) bool { return t.Name == tableName }) {
			return false, nil
		}
		for i, ch := range f.chains {
			rules, err := c.GetRules(f.table, ch)
			if err != nil || len(rules) != len(f.rules[i]) {
				return false, nil
			}
		}
		for name, s := range f.sets {
			if s.Interval { // listed with their ends
				continue
			}
			all, err := c.GetSetElements(s)
			if err != nil || len(all) != count[place{v6: f.v6, set: name}] {
				return false, nil
			}
		}
	}
	return true, nil
}

// left gives the frontends that an earlier process had.
func (p *filter) left() map[vip.Front]bool {
	out := map[vip.Front]bool{}
	c, err := nft.New()
	if err != nil {
		return out
	}
	for _, f := range p.families {
		all, err := c.GetSetElements(f.sets[setSvc])
		if err != nil {
			continue // there is no table
		}
		for _, e := range all {
			n := int(f.words()) * 4
			if len(e.Key) != n+8 {
				continue
			}
			a, _ := netip.AddrFromSlice(e.Key[:n])
			out[frontOf(server{addr: netip.AddrPortFrom(a, binary.BigEndian.Uint16(e.Key[n+4:])), proto: e.Key[n]})] = true
		}
	}
	return out
}

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func raw(a netip.Addr) string { return string(a.AsSlice()) }

// keyOf is K of a frontend, each part padded to four bytes.
func keyOf(at netip.AddrPort, p catalog.Protocol) string {
	return raw(at.Addr()) + string([]byte{protocol(p), 0, 0, 0, byte(at.Port() >> 8), byte(at.Port()), 0, 0})
}

// rulesFor gives the elements of a frontend at one of its addresses. short is the
// ClusterIP that traffic from this node may use instead, nil for none.
func rulesFor(f *vip.Frontend, at netip.AddrPort, bound bool, short *vip.Frontend, nodes []netip.Addr) (out []element) {
	a := at.Addr()
	v6, key := a.Is6(), keyOf(at, f.Proto)
	add := func(set, key string, c content) { out = append(out, element{place{v6, set, key}, c}) }
	if bound {
		add(setVIPs, raw(a), content{})
	}
	chain := toExternal
	switch {
	case len(f.Backends) == 0:
		chain = toReject
	case f.Scope == vip.Cluster && a.IsLoopback():
		chain = toPlain
	case f.Scope == vip.Cluster:
		chain = toCluster
	case f.LocalOnly:
		outside := toPlain
		if len(f.Local) == 0 {
			outside = toDrop
		}
		add(setLocal, key, content{chain: outside})
		switch {
		case short != nil:
			chain = toShortcut
			to := short.Addr
			add(setShort, key, content{value: raw(to.Addr()) + string([]byte{byte(to.Port() >> 8), byte(to.Port()), 0, 0})})
		case len(f.Local) > 0:
			chain = toPlain
		default:
			chain = toDrop
		}
	}
	add(setSvc, key, content{chain: chain})
	if len(f.Sources) > 0 {
		ranges := slices.Clone(f.Sources)
		// A node that may come sends from the address itself.
		if slices.ContainsFunc(nodes, f.Allowed) {
			ranges = append(ranges, netip.PrefixFrom(a, a.BitLen()))
		}
		add(setGuarded, key, content{})
		for _, r := range disjoint(ranges, v6) {
			add(setAllowed, key+raw(r.Addr()), content{end: key + raw(last(r))})
		}
	}
	for _, list := range [][]vip.Backend{f.Backends, f.Local} {
		for _, b := range list {
			if b := b.Addr.Addr(); !b.IsLoopback() {
				add(setHairpin, raw(b)+raw(b), content{})
			}
		}
	}
	return out
}
