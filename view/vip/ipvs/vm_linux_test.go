package ipvs

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestMain: as process 1 of a virtual machine (hack/vm/run.sh) the tests make
// it ready first, and switch it off at the end.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		viptest.Main(m, func(c viptest.NodeConfig) (viptest.Driver, error) {
			return New(Config{
				Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
				Resync: time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		})
		return
	}
	code := 1
	if err := boot(); err != nil {
		fmt.Println("vm:", err)
	} else {
		code = m.Run()
	}
	fmt.Printf("\nVM EXIT %d\n", code)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // qemu ends with -no-reboot
}

func boot() error {
	for _, fs := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(fs[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs[0], fs[1], fs[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", fs[1], err)
		}
	}
	// What scripts call "refused" is an ICMP message each time, and this kernel
	// bounds those of all namespaces together.
	for key, value := range map[string]string{"icmp_msgs_per_sec": "100000", "icmp_msgs_burst": "10000"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0); err != nil {
			return err
		}
	}
	modules, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(modules)
	for _, name := range modules {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	flags, err := os.ReadFile("/flags")
	if err != nil {
		return err
	}
	os.Args = append(os.Args[:1], append([]string{"-test.v"}, strings.Fields(string(flags))...)...)
	flag.Parse()
	return nil
}
