package ebpf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cilium "github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip/nftables"
	"github.com/fingerpost/fingerpost/view/vip/relay"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// The environment of the process in which the tests run.
const (
	cgroupEnv = "FINGERPOST_EBPF_CGROUP" // its control group
	netnsEnv  = "FINGERPOST_EBPF_NETNS"  // cookies of the namespaces that belong to the node
)

// TestMain starts the test binary again in a control group and a mount
// namespace of its own, so that programs act on the tests' sockets only and a
// bpf file system goes away with the process, however that ends.
func TestMain(m *testing.M) {
	if os.Getenv(cgroupEnv) == "" && os.Geteuid() == 0 {
		if root, err := findCgroup(&Config{}); err == nil {
			os.Exit(inCgroup(root))
		}
	}
	viptest.Main(m, beside)
}

// beside makes the driver with that of nftables next to it, as on a real node:
// this one has the sockets of the node and its pods, the other what comes from
// outside.
func beside(c viptest.NodeConfig) (viptest.Driver, error) {
	n, err := nftables.New(nftables.Config{
		Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, PodCIDRs: c.PodCIDRs, ServiceCIDRs: c.ServiceCIDRs,
		FlowsFirst: true, // scripts look at once, and source ports come again
	})
	if err != nil {
		return nil, err
	}
	outside, err := relay.New(relay.Config{Node: c.Node}, n)
	if err != nil {
		return nil, err
	}
	e, err := New(Config{
		Node: c.Node, NodeZone: c.Zone, NodeAddresses: c.NodeAddrs, CgroupPath: os.Getenv(cgroupEnv),
		PinPath: filepath.Join(pinRoot, "suite"), onlyNetns: cookies(os.Getenv(netnsEnv)), MaxSlots: 1 << 14,
		Resync: time.Second, NoLoopback: true,
	})
	return both{outside, e}, err
}

type both struct{ nft, bpf viptest.Driver }

func (b both) Apply(ctx context.Context, batch catalog.Batch) error {
	return errors.Join(b.nft.Apply(ctx, batch), b.bpf.Apply(ctx, batch))
}

func (b both) Run(ctx context.Context) error {
	nft := make(chan error, 1)
	go func() { nft <- b.nft.Run(ctx) }()
	return errors.Join(b.bpf.Run(ctx), <-nft)
}

// pinRoot is where the tests mount a bpf file system.
const pinRoot = "/sys/fs/bpf"

func inCgroup(root string) int {
	runtime.LockOSThread() // for Pdeathsig
	dir, err := os.MkdirTemp(root, "fingerpost-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.Remove(dir)
	group, err := os.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer group.Close()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), cgroupEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(group.Fd()), Pdeathsig: syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
		}
		return 1
	}
	return 0
}

// needKernel skips where the kernel or the user cannot, and mounts a bpf file
// system that only this process sees.
func needKernel(t testing.TB) (cgroup string) {
	t.Helper()
	cgroup = os.Getenv(cgroupEnv)
	if cgroup == "" {
		t.Skip("programs at control groups need root and a cgroup2 hierarchy")
	}
	if err := Probe(Config{CgroupPath: cgroup}); errors.Is(err, unix.EPERM) || errors.Is(err, cilium.ErrNotSupported) {
		t.Skip(err)
	} else if err != nil { // a program that is wrong
		t.Fatal(err)
	}
	if !isFilesystem(pinRoot, bpfMagic) {
		if err := unix.Mount("bpf", pinRoot, "bpf", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	return cgroup
}

func cookies(text string) (out []uint64) {
	for w := range strings.FieldsSeq(text) {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			panic(err)
		}
		out = append(out, n)
	}
	return out
}
