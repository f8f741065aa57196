package nftables

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	nft "github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel is the connection to nftables. It opens a new one after any failure:
// acknowledgements of what failed must not be taken for others.
type kernel struct {
	netns int
	conn  *nft.Conn
	gens  *netlink.Conn

	refuse func() error // of tests: an error instead of a commit
	buffer int          // of tests: what the socket can send; 0: socketBuffer
}

// The whole of 10,000 services with 10 endpoints is a message of about 10 MB.
const socketBuffer = 64 << 20

func (k *kernel) open() (*nft.Conn, error) {
	if k.conn != nil {
		return k.conn, nil
	}
	opts := []nft.ConnOption{nft.AsLasting(), nft.WithSockOptions(func(c *netlink.Conn) error {
		// Without CAP_NET_ADMIN over the host these may be refused; then the
		// transactions must fit what there is.
		_ = c.SetWriteBuffer(cmp.Or(k.buffer, socketBuffer))
		_ = c.SetReadBuffer(socketBuffer)
		return nil
	})}
	if k.netns != 0 {
		opts = append(opts, nft.WithNetNSFd(k.netns))
	}
	c, err := nft.New(opts...)
	if err != nil {
		return nil, err
	}
	k.conn = c
	return c, nil
}

func (k *kernel) close() {
	if k.conn != nil {
		_ = k.conn.CloseLasting()
		k.conn = nil
	}
	if k.gens != nil {
		_ = k.gens.Close()
		k.gens = nil
	}
}

// commit makes one transaction of what fill adds.
func (k *kernel) commit(fill func(*nft.Conn) error) error {
	c, err := k.open()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err = fill(c); err == nil && k.refuse != nil {
		err = k.refuse()
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		k.close()
	}
	return err
}

// generation gives the number of the ruleset: each transaction, of anybody,
// makes it one more.
func (k *kernel) generation() (uint32, error) {
	if k.gens == nil {
		c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.netns})
		if err != nil {
			return 0, err
		}
		k.gens = c
	}
	replies, err := k.gens.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4),
	})
	if err != nil {
		_ = k.gens.Close()
		k.gens = nil
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

// addElements adds or deletes elements of one set, in messages that fit.
func addElements(c *nft.Conn, s *nft.Set, all []nft.SetElement) error {
	for part := range slices.Chunk(all, elementsPerMessage) {
		if err := c.SetAddElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

func deleteElements(c *nft.Conn, s *nft.Set, all []nft.SetElement) error {
	for part := range slices.Chunk(all, elementsPerMessage) {
		if err := c.SetDeleteElements(s, part); err != nil {
			return err
		}
	}
	return nil
}

// addStructure adds the table with its sets and base chains.
func (f *family) addStructure(c *nft.Conn) error {
	c.AddTable(f.table)
	for _, name := range f.order {
		s := *f.sets[name]
		s.ID = 0
		if err := c.AddSet(&s, nil); err != nil {
			return err
		}
		if err := addElements(c, f.sets[name], f.fixed[name]); err != nil {
			return err
		}
	}
	// Chains first: rules name them.
	for _, ch := range f.chains {
		c.AddChain(ch.Chain)
	}
	for _, ch := range f.chains {
		f.addRules(c, ch)
	}
	return nil
}

func (f *family) addRules(c *nft.Conn, ch *chain) {
	for _, r := range ch.rules {
		c.AddRule(&nft.Rule{Table: f.table, Chain: ch.Chain, Exprs: r, UserData: f.label(r)})
	}
}

// addPlans adds the chains of plans, and their elements in plans.
func (f *family) addPlans(c *nft.Conn, plans []plan) error {
	var verdicts []nft.SetElement
	for _, p := range plans {
		if p.what == "lb" {
			ch := f.planChain(p)
			c.AddChain(ch.Chain)
			c.FlushChain(ch.Chain)
			f.addRules(c, ch)
		}
		verdicts = append(verdicts, p.verdict())
	}
	return addElements(c, f.sets[setPlans], verdicts)
}

// intact says whether the base chains and those of plans have the rules that
// they should, and the sets are there.
func (k *kernel) intact(f *family, plans ...plan) (bool, error) {
	if there, err := k.exists(f); err != nil || !there {
		return false, err
	}
	sets, err := k.conn.GetSets(f.table)
	if err != nil {
		k.close()
		return false, err
	}
	for _, want := range f.sets {
		i := slices.IndexFunc(sets, func(s *nft.Set) bool { return s.Name == want.Name })
		if i < 0 || sets[i].IsMap != want.IsMap || sets[i].Interval != want.Interval || sets[i].Dynamic != want.Dynamic {
			return false, nil
		}
	}
	labels, err := k.labels(f)
	if err != nil {
		return false, err
	}
	for _, p := range plans {
		if p.what == "lb" && !f.same(f.planChain(p), labels) {
			return false, nil
		}
	}
	return !slices.ContainsFunc(f.chains, func(ch *chain) bool { return !f.same(ch, labels) }), nil
}

// same says whether a chain is there with its rules and no others.
func (f *family) same(ch *chain, labels map[string][]string) bool {
	have, there := labels[ch.Name]
	if len(have) != len(ch.rules) || !there && len(ch.rules) > 0 {
		return false
	}
	for i, r := range ch.rules {
		if have[i] != string(f.label(r)) {
			return false
		}
	}
	return true
}

// labels gives the user data of all rules by chain. The expressions are not
// looked at: whoever changes a rule makes one without our label.
func (k *kernel) labels(f *family) (map[string][]string, error) {
	var out map[string][]string
	err := k.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, byte(f.table.Family), []netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(f.table.Name + "\x00")},
	}, func() { out = map[string][]string{} }, func(b []byte) error {
		chain, label, err := ruleLabel(b)
		out[chain] = append(out[chain], label)
		return err
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	return out, err
}

// readSet gives the elements of a set to f, again from the first after begin.
func (k *kernel) readSet(f *family, s setName, begin func(), each func(key, end, val []byte)) error {
	err := k.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSETELEM, byte(f.table.Family), []netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(f.table.Name + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(string(s) + "\x00")},
	}, begin, func(b []byte) error { return elementsOf(b, each) })
	if err != nil {
		return fmt.Errorf("read %s: %w", s, err)
	}
	return nil
}

// read adds the elements of a family that depend on services.
func (k *kernel) read(f *family, out map[place]content) error {
	for name := range f.sets {
		if name.foreign() {
			continue
		}
		var seen []place
		if err := k.readSet(f, name, func() {
			for _, p := range seen {
				delete(out, p)
			}
			seen = seen[:0]
		}, func(key, end, val []byte) {
			p := place{f.v6, name, string(key)}
			out[p], seen = content{string(val), string(end)}, append(seen, p)
		}); err != nil {
			return err
		}
	}
	return nil
}

// known gives the numbers of the plans that are there.
func (k *kernel) known(f *family) (out map[string]bool, err error) {
	err = k.readSet(f, setPlans, func() { out = map[string]bool{} }, func(key, _, _ []byte) { out[string(key)] = true })
	return out, err
}
