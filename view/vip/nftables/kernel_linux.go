package nftables

import (
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
	sent  int // messages in the current transaction

	refuse func() error // of tests: an error instead of a commit
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
		_ = c.SetWriteBuffer(socketBuffer)
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

// intact says whether the base chains have the rules that they should, and the
// sets are there.
func (k *kernel) intact(f *family) (bool, error) {
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
	for _, ch := range f.chains {
		ok, err := k.same(f, ch)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

// same says whether a chain is there with its rules and no others.
func (k *kernel) same(f *family, ch *chain) (bool, error) {
	labels, err := k.labels(f, ch.Name)
	if err != nil || len(labels) != len(ch.rules) {
		return false, err
	}
	for i, r := range ch.rules {
		if labels[i] != string(f.label(r)) {
			return false, nil
		}
	}
	return true, nil
}

// labels gives the user data of the rules of a chain. The expressions are not
// looked at: the library cannot decode all of them.
func (k *kernel) labels(f *family, chain string) ([]string, error) {
	if _, err := k.generation(); err != nil { // opens the connection
		return nil, err
	}
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(f.table.Name + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
	})
	if err != nil {
		return nil, err
	}
	replies, err := k.gens.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(f.table.Family), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		_ = k.gens.Close()
		k.gens = nil
		return nil, err
	}
	var out []string
	for _, m := range replies {
		label, ok, err := ruleLabel(m.Data, chain)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, label)
		}
	}
	return out, nil
}

// ruleLabel decodes one rule of a dump: its user data, if it is of the chain.
func ruleLabel(data []byte, chain string) (label string, ok bool, err error) {
	if len(data) < 4 {
		return "", false, errors.New("short message")
	}
	ad, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return "", false, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_RULE_CHAIN:
			ok = ad.String() == chain
		case unix.NFTA_RULE_USERDATA:
			label = string(ad.Bytes())
		}
	}
	return label, ok, ad.Err()
}

// read adds the elements of a family that depend on services.
func (k *kernel) read(f *family, out map[place]content) error {
	c, err := k.open()
	if err != nil {
		return err
	}
	for name, s := range f.sets {
		if name.foreign() {
			continue
		}
		all, err := c.GetSetElements(s)
		if err != nil {
			k.close()
			return fmt.Errorf("read %s: %w", name, err)
		}
		for _, e := range all {
			out[place{f.v6, name, string(e.Key)}] = content{string(e.Val), string(e.KeyEnd)}
		}
	}
	return nil
}

// known gives the numbers of the plans that are there.
func (k *kernel) known(f *family) (map[string]bool, error) {
	c, err := k.open()
	if err != nil {
		return nil, err
	}
	all, err := c.GetSetElements(f.sets[setPlans])
	if err != nil {
		k.close()
		return nil, fmt.Errorf("read plans: %w", err)
	}
	out := map[string]bool{}
	for _, e := range all {
		out[string(e.Key)] = true
	}
	return out, nil
}
