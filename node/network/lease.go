package network

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lease is what a pod holds: one file for each.
type lease struct {
	UID       string       `json:"uid"`
	Addrs     []netip.Addr `json:"addrs"`
	HostPorts []HostPort   `json:"hostPorts,omitempty"`
}

// leases hands out the addresses of a node's ranges and remembers, on disk,
// who has them. The caller serialises the calls.
type leases struct {
	dir    string
	ranges []netip.Prefix
	log    *slog.Logger

	byUID  map[string]*lease
	used   map[netip.Addr]string
	cursor []netip.Addr // the address given last, of each range
}

const (
	leaseSuffix = ".json"
	cursorFile  = "cursor"
)

// openLeases reads what an earlier process left. Files that cannot be read are
// put aside with a warning: the pods that run tell their addresses (adopt).
func openLeases(dir string, ranges []netip.Prefix, log *slog.Logger) (*leases, error) {
	l := &leases{
		dir: dir, ranges: ranges, log: log,
		byUID: map[string]*lease{}, used: map[netip.Addr]string{}, cursor: make([]netip.Addr, len(ranges)),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("network: state directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("network: state directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			os.Remove(filepath.Join(dir, e.Name()))
			continue
		}
		uid, ok := strings.CutSuffix(e.Name(), leaseSuffix)
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("network: state directory: %w", err)
		}
		got, err := parseLease(data)
		if err == nil && got.UID != uid {
			err = fmt.Errorf("it is of pod %q", got.UID)
		}
		if err == nil {
			err = l.take(got)
		}
		if err != nil {
			log.Warn("a record of a pod's address is not usable and was dropped", "file", e.Name(), "err", err)
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, cursorFile)); err == nil {
		for _, s := range strings.Fields(string(data)) {
			a, err := netip.ParseAddr(s)
			if i := l.rangeOf(a); err == nil && i >= 0 {
				l.cursor[i] = a
			}
		}
	}
	return l, nil
}

// parseLease reads a record and checks what does not depend on the node.
func parseLease(data []byte) (*lease, error) {
	var l lease
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, err
	}
	if err := checkUID(l.UID); err != nil {
		return nil, err
	}
	for _, a := range l.Addrs {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return nil, fmt.Errorf("%q is no pod address", a)
		}
	}
	for _, h := range l.HostPorts {
		if h.Port == 0 || h.ContainerPort == 0 || !slices.Contains([]Protocol{TCP, UDP, SCTP}, h.Protocol) || h.HostIP.Zone() != "" || h.HostIP.Is4In6() {
			return nil, fmt.Errorf("%s is no host port", h)
		}
	}
	return &l, nil
}

func (l *leases) rangeOf(a netip.Addr) int {
	return slices.IndexFunc(l.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// take records a lease in memory, if its addresses are the node's and free.
func (l *leases) take(n *lease) error {
	if len(n.Addrs) != len(l.ranges) {
		return fmt.Errorf("it has %d addresses, the node %d ranges", len(n.Addrs), len(l.ranges))
	}
	for i, a := range n.Addrs {
		if l.rangeOf(a) != i || a == gatewayOf(l.ranges[i]) {
			return fmt.Errorf("%s is not of the range %s", a, l.ranges[i])
		}
		if other, ok := l.used[a]; ok && other != n.UID {
			return fmt.Errorf("%s belongs to pod %s", a, other)
		}
	}
	l.byUID[n.UID] = n
	for _, a := range n.Addrs {
		l.used[a] = n.UID
	}
	return nil
}

// adopt records the addresses of a pod that runs with them.
func (l *leases) adopt(uid string, addrs []netip.Addr) error {
	n := &lease{UID: uid, Addrs: addrs}
	if err := l.take(n); err != nil {
		return err
	}
	return l.save(n)
}

// get gives the lease of a pod, a new one if it has none.
func (l *leases) get(uid string) (*lease, error) {
	if n := l.byUID[uid]; n != nil {
		return n, nil
	}
	n := &lease{UID: uid, Addrs: make([]netip.Addr, len(l.ranges))}
	cursor := make([]netip.Addr, len(l.ranges))
	for i, p := range l.ranges {
		a, ok := l.free(p, l.cursor[i])
		if !ok {
			return nil, fmt.Errorf("network: pod %s: %w in %s: all %d are in use; delete pods, or give the node a larger range", uid, ErrExhausted, p, len(l.byUID))
		}
		n.Addrs[i], cursor[i] = a, a
	}
	// The cursor first: after a crash between the two, an address is skipped.
	// The other way round it would be given again at once.
	var words []string
	for _, a := range cursor {
		words = append(words, a.String())
	}
	if err := writeFile(filepath.Join(l.dir, cursorFile), []byte(strings.Join(words, " ")+"\n")); err != nil {
		return nil, fmt.Errorf("network: pod %s: record its address: %w", uid, err)
	}
	if err := l.save(n); err != nil {
		return nil, err
	}
	l.cursor = cursor
	return n, l.take(n)
}

// free finds the next free address after the one given last.
func (l *leases) free(p netip.Prefix, after netip.Addr) (netip.Addr, bool) {
	first := gatewayOf(p).Next()
	last := lastOf(p)
	if p.Addr().Is4() {
		last = last.Prev() // broadcast
	}
	a := first
	if after.IsValid() && after.Compare(first) >= 0 && after.Compare(last) < 0 {
		a = after.Next()
	}
	// At most as many are in use as there are pods, so one more look than that
	// finds a free one, if there is one.
	for range len(l.used) + 1 {
		if _, taken := l.used[a]; !taken {
			return a, true
		}
		if a = a.Next(); a.Compare(last) > 0 {
			a = first
		}
	}
	return netip.Addr{}, false
}

// lastOf is the last address of a range.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (l *leases) save(n *lease) error {
	data, err := json.Marshal(n)
	if err == nil {
		err = writeFile(filepath.Join(l.dir, n.UID+leaseSuffix), data)
	}
	if err != nil {
		return fmt.Errorf("network: pod %s: record its address: %w", n.UID, err)
	}
	return nil
}

func (l *leases) drop(uid string) error {
	n := l.byUID[uid]
	if n == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(l.dir, uid+leaseSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network: pod %s: forget its address: %w", uid, err)
	}
	delete(l.byUID, uid)
	for _, a := range n.Addrs {
		delete(l.used, a)
	}
	return nil
}

// setHostPorts records the host ports of a pod, or says who has one of them.
func (l *leases) setHostPorts(uid string, ports []HostPort) error {
	n := l.byUID[uid]
	if n == nil {
		return fmt.Errorf("network: host ports of pod %s: %w", uid, ErrNotAttached)
	}
	ports = slices.Clone(ports)
	for i := range ports {
		p := &ports[i]
		p.HostIP = p.HostIP.Unmap()
		if p.Protocol == "" {
			p.Protocol = TCP
		}
		if p.Port == 0 || p.ContainerPort == 0 || !slices.Contains([]Protocol{TCP, UDP, SCTP}, p.Protocol) || p.HostIP.Zone() != "" {
			return fmt.Errorf("network: host ports of pod %s: %s to %d is no host port: ports are 1 to 65535, protocols TCP, UDP and SCTP", uid, *p, p.ContainerPort)
		}
		if !p.everywhere() && !slices.ContainsFunc(l.ranges, func(r netip.Prefix) bool { return r.Addr().Is4() == p.HostIP.Is4() }) {
			return fmt.Errorf("network: host ports of pod %s: %s: pods of this node have no address of that family", uid, *p)
		}
		for _, o := range ports[:i] {
			if o.clashes(*p) {
				return fmt.Errorf("network: host ports of pod %s: %w: it asks for %s and %s itself", uid, ErrPortTaken, o, *p)
			}
		}
		for _, other := range l.byUID {
			if other.UID == uid {
				continue
			}
			for _, o := range other.HostPorts {
				if o.clashes(*p) {
					return fmt.Errorf("network: host ports of pod %s: %w: pod %s has %s", uid, ErrPortTaken, other.UID, o)
				}
			}
		}
	}
	if slices.Equal(ports, n.HostPorts) {
		return nil
	}
	next := *n
	next.HostPorts = ports
	if err := l.save(&next); err != nil {
		return err
	}
	l.byUID[uid] = &next
	return nil
}

// sorted gives the leases in the order of their pods.
func (l *leases) sorted() []*lease {
	all := make([]*lease, 0, len(l.byUID))
	for _, n := range l.byUID {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *lease) int { return strings.Compare(a.UID, b.UID) })
	return all
}

// hardwareAddr derives a link's address from its IP address, so that nobody's
// neighbour table is wrong when an IP address goes to another pod.
func hardwareAddr(a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return append([]byte{0x0a, 0x58}, b[:]...)
	}
	b := a.As16()
	low := make([]byte, 0, 8)
	low = binary.BigEndian.AppendUint64(low, binary.BigEndian.Uint64(b[8:]))
	return append([]byte{0x0a, 0x59}, low[4:]...)
}
