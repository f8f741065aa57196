package nftables

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/vip/relay"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

func TestMain(m *testing.M) {
	viptest.Main(m, func(c viptest.NodeConfig) (viptest.Driver, error) {
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		d, err := New(Config{
			Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
			Resync: time.Second, FlowsFirst: true, Log: log,
		})
		if err != nil {
			return nil, err
		}
		return relay.New(relay.Config{Node: c.Node, Log: log}, d)
	})
}

// TestAnyAddress: without a list node ports answer on all addresses.
func TestAnyAddress(t *testing.T) {
	t.Parallel()
	s := viptest.Suite{
		Can: []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut"}, Only: "core-",
		Config: func(c *viptest.NodeConfig) { c.NodeAddrs = nil },
	}
	s.Run(t)
}

// TestNoPodCIDRs: the ranges of pods are not known.
func TestNoPodCIDRs(t *testing.T) {
	t.Parallel()
	s := viptest.Suite{
		Can: []string{"source"}, Extra: os.DirFS("testdata/nopods"), Only: "nopods",
		Config: func(c *viptest.NodeConfig) { c.PodCIDRs = nil },
	}
	s.Run(t)
}

func TestPackets(t *testing.T) {
	t.Parallel()
	s := viptest.Suite{
		Extra:  os.DirFS("testdata"),
		Random: 15, Churn: 5000,
		Can: []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut", "early", "loopback", "relay"},
	}
	if _, err := exec.LookPath("nft"); err == nil {
		s.Each = func() error {
			if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil {
				return fmt.Errorf("nft list ruleset: %w: %s", err, out[max(0, len(out)-500):])
			}
			return nil
		}
	}
	s.Run(t)
}
