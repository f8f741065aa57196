package ebpf

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestPackets runs the common suite with the nftables driver beside this one.
func TestPackets(t *testing.T) {
	needKernel(t)
	s := viptest.Suite{
		Can:     []string{"source", "own", "udp-cleanup", "closes", "affinity", "kept", "ipv6", "check", "drop", "shortcut", "early", "loopback", "relay"},
		Prepare: prepare, Random: 12, Churn: 2000,
	}
	s.Run(t)
	cleanup(t)
}

func cleanup(t *testing.T) {
	dir := filepath.Join(pinRoot, "suite")
	if err := Cleanup(Config{PinPath: dir}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
}

// prepare finds out which machines are the node's. All of the suite's run under
// this kernel and in one process; the driver must see the node and its pods.
func prepare() error {
	all, err := ofNode()
	if err != nil {
		return err
	}
	return os.Setenv(netnsEnv, all)
}

// ofNode gives the cookies of the namespaces that have the addresses of node a
// and its pods, among those that this process holds open.
func ofNode() (string, error) {
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return "", err
	}
	found := map[uint64]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, "net:[") {
			continue
		}
		err := kernel.InNamespace(fd, func() error {
			cookie, err := netnsCookie()
			if err != nil {
				return err
			}
			addrs, err := net.InterfaceAddrs()
			if err != nil {
				return err
			}
			for _, a := range addrs {
				p := netip.MustParsePrefix(a.String())
				if p.Addr() == netip.MustParseAddr("192.168.77.1") || netip.MustParsePrefix("10.244.1.0/24").Contains(p.Addr()) {
					found[cookie] = true
				}
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			return "", err
		}
	}
	return strings.Trim(fmt.Sprint(keys(found)), "[]"), nil
}

func keys(m map[uint64]bool) (out []uint64) {
	for k := range m {
		out = append(out, k)
	}
	return out
}
