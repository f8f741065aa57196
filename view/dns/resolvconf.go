package dns

import (
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// resolvConf is a resolver configuration file. It is looked at again when
// questions come, at most every few seconds.
type resolvConf struct {
	path string
	own  func(netip.AddrPort) bool
	log  *slog.Logger
	now  func() time.Time

	list    atomic.Pointer[[]netip.AddrPort]
	checked atomic.Int64 // when, in nanoseconds

	mu sync.Mutex // one reader of the file
	as string     // its text
}

const recheck = 5 * time.Second

func (r *resolvConf) servers() []netip.AddrPort {
	now := r.now().UnixNano()
	if list := r.list.Load(); list != nil && now-r.checked.Load() < int64(recheck) {
		return *list
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if list := r.list.Load(); list != nil && now-r.checked.Load() < int64(recheck) {
		return *list
	}
	r.checked.Store(now)
	list := r.list.Load()
	b, err := os.ReadFile(r.path)
	switch {
	case err != nil:
		r.log.Warn("cannot read the upstream name servers: names outside the zone are answered as before", "error", err)
		if list == nil {
			list = &[]netip.AddrPort{}
		}
	case list == nil || string(b) != r.as:
		parsed := slices.DeleteFunc(nameservers(string(b)), r.own)
		list, r.as = &parsed, string(b)
		r.log.Info("upstream name servers", "file", r.path, "servers", parsed)
	}
	r.list.Store(list)
	return *list
}

// forget makes the next call of servers read the file: what this server's own
// addresses are may have changed.
func (r *resolvConf) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list.Store(nil)
}

// nameservers reads the nameserver lines of a resolv.conf(5).
func nameservers(text string) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	return list
}
