package ebpf

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip"
)

// leave notes the UDP endpoints that a frontend has lost.
func (d *Driver) leave(before, now []slotValue) {
	for i, v := range before {
		if (i >= len(now) || now[i] != v) && !slices.Contains(now, v) {
			d.leaving[toAddrPort(v.Addr, v.Port)] = struct{}{}
		}
	}
}

// sweeper closes the connected UDP sockets whose endpoint has left. A socket may
// have chosen the endpoint just before that left, and be connected only
// afterwards: so it looks a second time, and again if something went wrong.
type sweeper struct {
	again map[netip.AddrPort]struct{}
	later <-chan time.Time
	tries int
}

// sweepTries is how often it looks for the sockets of an endpoint: a kernel that
// cannot close them will not learn it.
const sweepTries = 5

// first looks for the sockets of the endpoints that have left since.
func (s *sweeper) first(d *Driver) {
	d.mu.Lock()
	gone := d.leaving
	d.leaving = map[netip.AddrPort]struct{}{}
	d.mu.Unlock()
	d.closeSockets(gone)
	if s.again == nil {
		s.again, s.later = gone, time.After(time.Second)
	} else {
		maps.Copy(s.again, gone)
	}
	s.tries = 1
}

// next looks again.
func (s *sweeper) next(d *Driver) {
	if s.tries++; d.closeSockets(s.again) || s.tries == sweepTries {
		s.again, s.later = nil, nil
		return
	}
	s.later = time.After(time.Second)
}

// closeSockets closes the sockets that are connected to one of the endpoints by
// way of a frontend which does not have it any more. Another frontend may still
// have it, and who connected to it directly is none of our business. It says
// whether it could look everywhere.
func (d *Driver) closeSockets(gone map[netip.AddrPort]struct{}) (ok bool) {
	if len(gone) == 0 {
		return true
	}
	flows, err := dump[flowKey, flowValue](d.maps.flow)
	if err != nil {
		d.cfg.Log.Warn("ebpf: read which sockets lost their endpoint", "error", err)
		return false
	}
	byNetns := map[uint64]map[uint64]netip.AddrPort{} // sockets by cookie, with their endpoint
	for k, v := range flows {
		if v.Proto != protoUDP || v.Netns == 0 {
			continue
		}
		to := toAddrPort(k.Addr, k.Port)
		if _, left := gone[to]; !left || d.leads(toAddrPort(v.Addr, v.Port), to) {
			continue
		}
		if byNetns[v.Netns] == nil {
			byNetns[v.Netns] = map[uint64]netip.AddrPort{}
		}
		byNetns[v.Netns][k.Cookie] = to
	}
	if len(byNetns) == 0 {
		return true
	}
	places, err := findNamespaces(byNetns)
	ok = err == nil
	if err != nil {
		d.cfg.Log.Warn("ebpf: find the network namespaces of sockets that lost their endpoint", "error", err)
	}
	for cookie, ns := range places {
		var n int
		err := inNamespace(ns, func() (err error) {
			n, err = destroyUDP(byNetns[cookie])
			return err
		})
		_ = ns.Close()
		d.metrics.destroyed.Add(float64(n))
		if err != nil {
			ok = false
			d.cfg.Log.Warn("ebpf: close the UDP sockets that lost their endpoint", "namespace", ns.Name(), "error", err)
		}
	}
	return ok
}

// leads says whether UDP to a virtual IP may go to an endpoint.
func (d *Driver) leads(vipAddr, to netip.AddrPort) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, _ := keyOf(vip.Front{Addr: vipAddr, Proto: catalog.UDP}, vip.Cluster)
	f := d.fronts[k]
	if f == nil {
		k.Addr, k.Scope = wild(vipAddr.Addr()), scopeNode
		f = d.fronts[k]
	}
	return f != nil && slices.ContainsFunc(f.slots, func(v slotValue) bool { return toAddrPort(v.Addr, v.Port) == to })
}

// findNamespaces opens network namespaces, by cookie; the caller closes them. The
// kernel has no way from a cookie to its namespace, so it goes through those of
// processes, then those that have a name, and, if one is still missing, those
// that a process only holds open.
func findNamespaces[V any](want map[uint64]V) (map[uint64]*os.File, error) {
	found := map[uint64]*os.File{}
	seen := map[uint64]bool{} // inodes
	look := func(pattern string) {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			if len(found) == len(want) {
				return
			}
			if strings.Contains(pattern, "/fd/") {
				if to, err := os.Readlink(path); err != nil || !strings.HasPrefix(to, "net:[") {
					continue
				}
			}
			// Should it be a pipe by now, do not wait for its other end.
			f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				continue
			}
			// From here on it is the file that counts: what a path leads to
			// may change, also that of this process, whose main thread may be
			// in any namespace that InNamespace was asked for.
			cookie, isNew := cookieOf(f, seen)
			if _, wanted := want[cookie]; isNew && wanted {
				found[cookie] = f
				continue
			}
			_ = f.Close()
		}
	}
	look("/proc/thread-self/ns/net")
	look("/run/netns/*")
	look("/proc/[0-9]*/ns/net")
	look("/run/docker/netns/*")
	look("/proc/[0-9]*/fd/*")
	if len(found) < len(want) {
		return found, fmt.Errorf("%d of %d are nowhere under /proc and /run/netns", len(want)-len(found), len(want))
	}
	return found, nil
}

// inNamespace runs f in the network namespace of a file.
func inNamespace(ns *os.File, f func() error) error {
	return kernel.InNamespace(fmt.Sprintf("/proc/self/fd/%d", ns.Fd()), f)
}

// cookieOf gives the cookie of a network namespace that was not seen before.
func cookieOf(ns *os.File, seen map[uint64]bool) (cookie uint64, ok bool) {
	var st unix.Stat_t
	if unix.Fstat(int(ns.Fd()), &st) != nil || seen[st.Ino] {
		return 0, false
	}
	seen[st.Ino] = true
	err := inNamespace(ns, func() (err error) {
		cookie, err = netnsCookie()
		return err
	})
	return cookie, err == nil
}

// netnsCookie gives that of the calling thread's network namespace.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("ebpf: read the cookie of the network namespace: %w", err)
	}
	defer unix.Close(fd)
	n, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("ebpf: read the cookie of the network namespace (Linux 5.14 or later): %w", err)
	}
	return n, nil
}

// destroyUDP closes sockets of this thread's network namespace and gives their
// number.
func destroyUDP(want map[uint64]netip.AddrPort) (n int, err error) {
	s, err := openDiag()
	if err != nil {
		return 0, err
	}
	defer s.close()
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := s.connected(family)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, id := range all {
			if to, ok := want[id.cookie()]; !ok || id.peer(family) != to {
				continue
			}
			switch err := s.destroy(family, id); {
			case err == nil:
				n++
			case !errors.Is(err, unix.ENOENT): // closed by itself meanwhile
				errs = append(errs, fmt.Errorf("ebpf: close a UDP socket (the kernel needs CONFIG_INET_DIAG_DESTROY): %w", err))
			}
		}
	}
	return n, errors.Join(errs...)
}
