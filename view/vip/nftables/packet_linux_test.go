package nftables

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

func TestMain(m *testing.M) {
	viptest.Main(m, func(c viptest.NodeConfig) (viptest.Driver, error) {
		return New(Config{
			Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
	})
}

func TestPackets(t *testing.T) {
	s := viptest.Suite{
		Random: 60, Churn: 3000,
		Can: []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut"},
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
