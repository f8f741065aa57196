package userspace

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

func TestMain(m *testing.M) {
	viptest.Main(m, func(c viptest.NodeConfig) (viptest.Driver, error) {
		return New(Config{
			Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, Drain: -1,
			Owned: func(a netip.Addr) bool {
				return slices.ContainsFunc(outside(), func(p netip.Prefix) bool { return p.Contains(a) })
			},
		})
	})
}

func outside() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:77::/64")}
}

func TestPackets(t *testing.T) {
	s := viptest.Suite{Can: []string{"affinity", "ipv6", "udp-cleanup", "loopback"}, Prepare: func() error {
		for _, p := range append(outside(), netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/112")) {
			if err := kernel.AddLocalRange(p); err != nil {
				return err
			}
		}
		return nil
	}}
	s.Run(t)
}
