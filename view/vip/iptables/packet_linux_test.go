package iptables

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
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		d, err := New(Config{
			Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
			Flavour: c.Variant, slowLook: time.Hour, Log: log,
		})
		if err != nil {
			return nil, err
		}
		return relay.New(relay.Config{Node: c.Node, Log: log}, d)
	})
}

// program gives the words that run one of the programs of a flavour.
func program(t testing.TB, flavour, name string) []string {
	t.Helper()
	p, err := exec.LookPath("xtables-" + flavour + "-multi")
	if err != nil {
		t.Skipf("%v; install the package iptables", err)
	}
	return []string{p, name}
}

// packets runs the suite with each flavour, side by side: it mostly waits for
// the kernel.
func packets(t *testing.T, s viptest.Suite) {
	t.Parallel()
	for _, flavour := range []string{Legacy, NFT} {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			save := program(t, flavour, "iptables-save")
			s := s
			s.Variant = flavour
			s.Can = []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut", "early", "loopback", "relay"}
			s.Each = func() error {
				if out, err := exec.Command(save[0], save[1:]...).CombinedOutput(); err != nil {
					return fmt.Errorf("iptables-save: %w: %s", err, out[max(0, len(out)-500):])
				}
				return nil
			}
			s.Run(t)
		})
	}
}

func TestPackets(t *testing.T) { packets(t, viptest.Suite{}) }

func TestRandom(t *testing.T) { packets(t, viptest.Suite{NoScripts: true, Random: 30, Churn: 300}) }
