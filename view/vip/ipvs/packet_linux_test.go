package ipvs

import (
	"testing"

	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

func TestPackets(t *testing.T) {
	needIPVS(t)
	s := viptest.Suite{
		Can: []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut"},
	}
	s.Run(t)
}
