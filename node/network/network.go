package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
)

// Errors that callers tell apart.
var (
	// ErrExhausted: every address of a range is in use.
	ErrExhausted = errors.New("no free pod address")
	// ErrPortTaken: another pod has the host port.
	ErrPortTaken = errors.New("host port in use")
	// ErrNotAttached: the pod has no network here.
	ErrNotAttached = errors.New("pod has no network on this node")
	// ErrUnsupported: this system has no network namespaces.
	ErrUnsupported = errors.New("pod networks need Linux")
)

// Config of a node's pod network.
type Config struct {
	// Dir keeps what must outlive the process. One node, one directory.
	Dir string
	// Bridge is the name of the bridge; "fp0" if empty.
	Bridge string
	// PodCIDRs are the node's own ranges: one, or one of each family.
	PodCIDRs []netip.Prefix
	// ClusterCIDRs are the ranges of all pods of the cluster; traffic to them
	// keeps the pod's address. Those of this node and of SetRoutes' peers
	// count without being named.
	ClusterCIDRs []netip.Prefix
	// MTU of the pods' links; 0 takes the smallest of the machine's own links
	// that are up, at most 1500.
	MTU int
	// NetNSDir holds one file for each pod; "/run/fingerpost/netns" if empty.
	// One node, one directory.
	NetNSDir string
	Log      *slog.Logger
}

// Attachment is the network of one pod.
type Attachment struct {
	PodUID   string
	NetNS    string       // path of the namespace
	Addrs    []netip.Addr // in the order of Config.PodCIDRs
	Gateways []netip.Addr // likewise
}

// Peer is another node, reached directly (one L2 network). A node with two
// families of addresses is two peers.
type Peer struct {
	Node     string
	PodCIDRs []netip.Prefix // those of Via's family count
	Via      netip.Addr
}

// Protocol of a host port.
type Protocol string

// Protocols that host ports can have.
const (
	TCP  Protocol = "TCP"
	UDP  Protocol = "UDP"
	SCTP Protocol = "SCTP"
)

// HostPort leads from a port of the node to one of a pod.
type HostPort struct {
	// HostIP limits the port to one address of the node. The zero value,
	// 0.0.0.0 and :: are every address of both families.
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	Port          uint16     `json:"port"`
	Protocol      Protocol   `json:"protocol"` // TCP if empty
	ContainerPort uint16     `json:"containerPort"`
}

// everywhere says whether the port is open on every address of the node.
func (h HostPort) everywhere() bool { return !h.HostIP.IsValid() || h.HostIP.IsUnspecified() }

func (h HostPort) String() string {
	if h.everywhere() {
		return fmt.Sprintf("%d/%s", h.Port, h.Protocol)
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(h.HostIP, h.Port), h.Protocol)
}

// clashes says whether both cannot be open on one node.
func (h HostPort) clashes(o HostPort) bool {
	return h.Port == o.Port && h.Protocol == o.Protocol &&
		(h.everywhere() || o.everywhere() || h.HostIP == o.HostIP)
}

// gatewayOf is the first address of a range.
func gatewayOf(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// complete checks a configuration and fills in what it leaves open.
func (c Config) complete() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("network: no directory for the state")
	}
	if c.Bridge == "" {
		c.Bridge = "fp0"
	}
	if len(c.Bridge) > 15 || !regexp.MustCompile(`^[A-Za-z0-9_.-]+$`).MatchString(c.Bridge) || c.Bridge == "." || c.Bridge == ".." {
		return c, fmt.Errorf("network: bridge name %q: at most 15 letters, digits, '.', '-' and '_'", c.Bridge)
	}
	if c.NetNSDir == "" {
		c.NetNSDir = "/run/fingerpost/netns"
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err == nil {
		c.NetNSDir, err = filepath.Abs(c.NetNSDir)
	}
	if err != nil {
		return c, fmt.Errorf("network: %w", err)
	}
	if len(c.PodCIDRs) == 0 || len(c.PodCIDRs) > 2 {
		return c, fmt.Errorf("network: %d pod ranges: give the node one, or one IPv4 and one IPv6", len(c.PodCIDRs))
	}
	ranges := make([]netip.Prefix, len(c.PodCIDRs))
	for i, p := range c.PodCIDRs {
		if !p.IsValid() || p.Addr().Is4In6() {
			return c, fmt.Errorf("network: pod range %q is not an address range", p)
		}
		ranges[i] = p.Masked()
		if p.Addr().BitLen()-p.Bits() < 2 {
			return c, fmt.Errorf("network: pod range %s has no room for a pod besides the gateway; give the node a larger one", p)
		}
	}
	if len(ranges) == 2 && ranges[0].Addr().Is4() == ranges[1].Addr().Is4() {
		return c, fmt.Errorf("network: pod ranges %s and %s are of one family; give one, or one IPv4 and one IPv6", ranges[0], ranges[1])
	}
	c.PodCIDRs = ranges
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65535) {
		return c, fmt.Errorf("network: MTU %d is outside of 576 to 65535", c.MTU)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// checkUID refuses what must not become the name of a file.
func checkUID(uid string) error {
	if len(uid) > 128 || !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`).MatchString(uid) {
		return fmt.Errorf("network: pod UID %q: letters, digits, '-', '_' and '.' are allowed", uid)
	}
	return nil
}

// vethPrefix begins the names of the pods' links on the node. The rest is a
// hash: a UID is longer than the 15 characters a link can be named with.
const vethPrefix = "fpv"

func vethName(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return vethPrefix + hex.EncodeToString(sum[:6])
}

// writeFile replaces a file in one step. It is not forced to the disk: what is
// kept here describes pods that do not outlive the machine either.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
