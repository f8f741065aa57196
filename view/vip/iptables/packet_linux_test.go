package iptables

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// flavourEnv tells the driver's process which flavour to use.
const flavourEnv = "FINGERPOST_IPTABLES_FLAVOUR"

func TestMain(m *testing.M) {
	viptest.Main(m, func(c viptest.NodeConfig) (viptest.Driver, error) {
		return New(Config{
			Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
			Flavour: os.Getenv(flavourEnv), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
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

func TestPackets(t *testing.T) {
	for _, flavour := range []string{Legacy, NFT} {
		t.Run(flavour, func(t *testing.T) {
			t.Setenv(flavourEnv, flavour)
			save := program(t, flavour, "iptables-save")
			s := viptest.Suite{
				Random: 30, Churn: 300,
				Can: []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut", "early"},
				Each: func() error {
					if out, err := exec.Command(save[0], save[1:]...).CombinedOutput(); err != nil {
						return fmt.Errorf("iptables-save: %w: %s", err, out[max(0, len(out)-500):])
					}
					return nil
				},
			}
			s.Run(t)
		})
	}
}
