package dns

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// index is what queries are answered from. One goroutine changes it; readers
// take no lock.
type index struct {
	zone       string // wire form, with root
	zoneLabels int
	search     [3]string // what the names of a search list end in, after the client's own
	ttl        atomic.Uint32
	build      builder
	hosts      atomic.Pointer[[]netip.Addr] // addresses of ns.dns.<zone>
	upstream   atomic.Bool                  // there is a forwarder
	customs    atomic.Pointer[customs]      // nil: none
	options    atomic.Pointer[options]

	services *table[string, *entry]  // by wire form of <service>.<namespace>
	spaces   *table[string, space]   // by wire form of the namespace
	ips      *table[[16]byte, owned] // cluster IPs and endpoints
	synced   atomic.Bool
	serial   atomic.Uint32 // of the SOA: seconds at the last change
}

// PodMode says which names of pods, 1-2-3-4.<namespace>.pod.<zone>, exist.
type PodMode string

// The modes, in the words of CoreDNS.
const (
	PodsDisabled PodMode = "disabled" // none
	PodsInsecure PodMode = "insecure" // any address in a namespace that exists
	PodsVerified PodMode = "verified" // addresses of endpoints of services in the namespace that are in
)

// options are what can change without building an entry anew.
type options struct {
	pods PodMode
	auto bool // autopath
}

func newOptions(cfg *Config) (*options, error) {
	o := &options{pods: cfg.Pods, auto: cfg.Autopath}
	switch cfg.Pods {
	case "":
		o.pods = PodsInsecure
	case PodsDisabled, PodsInsecure, PodsVerified:
	default:
		return nil, fmt.Errorf("pod mode %q: it must be %s, %s or %s", cfg.Pods, PodsDisabled, PodsInsecure, PodsVerified)
	}
	return o, nil
}

// configure takes what is not needed to build entries.
func (x *index) configure(cfg *Config) error {
	o, err := newOptions(cfg)
	if err != nil {
		return err
	}
	x.options.Store(o)
	c, err := parseCustoms(cfg.Records, x.ttl.Load())
	x.customs.Store(c)
	return err
}

// space is a namespace: it exists if the catalog says so or a service is in it.
type space struct {
	declared bool
	services int
}

// owned lists the services that an address leads back to. What it is to them
// their entries say. Nearly always there is one.
type owned struct {
	owner *owner
	next  *owned
}

func newIndex(zone string, labels int, ttl uint32, node string) *index {
	x := &index{
		zone: zone, zoneLabels: labels, search: [3]string{"\x03svc" + zone, zone, "\x00"},
		build:    builder{node: node, ttl: ttl},
		services: newTable[string, *entry](maphash.String),
		spaces:   newTable[string, space](maphash.String),
		ips:      newTable[[16]byte, owned](func(s maphash.Seed, k [16]byte) uint64 { return maphash.Bytes(s, k[:]) }),
	}
	x.ttl.Store(ttl)
	x.options.Store(&options{pods: PodsInsecure})
	return x
}

// apply makes the index show a batch. The work is that of the changes.
func (x *index) apply(b *catalog.Batch, now time.Time) {
	for i := range b.Changes {
		c := &b.Changes[i]
		x.service(c.Key, c.New)
	}
	for _, n := range b.Namespaces {
		if label, ok := wireLabel(n.Name); ok {
			x.space(label, func(s *space) { s.declared = n.Exists })
		}
	}
	if s := uint32(now.Unix()); s > x.serial.Load() || x.serial.Load() == 0 {
		x.serial.Store(s)
	}
	if b.Snapshot != nil {
		x.synced.Store(b.Snapshot.Freshness().Synced)
	}
}

// service brings one service up to date. What it was before is taken from the
// index itself, so that the index cannot drift from what it was told.
func (x *index) service(k catalog.Key, src *catalog.Entry) {
	label, ok := wireLabel(k.Name)
	ns, ok2 := wireLabel(k.Namespace)
	if !ok || !ok2 || len(label)+len(ns)+len("\x03svc")+len(x.zone) > maxName {
		return // no name in DNS can stand for it
	}
	var old *entry
	key := label + ns
	if p := x.services.get(key); p != nil {
		old = *p
	}
	if src == nil || src.Service == nil {
		if old == nil {
			return
		}
		x.services.del(key)
		x.owners(old.owner, old.addrs(), nil)
		x.space(old.owner.space, func(s *space) { s.services-- })
		return
	}
	if old == nil {
		e := x.build.build(&owner{k, key, key[len(label):]}, src)
		x.space(ns, func(s *space) { s.services++ })
		x.services.put(key, e)
		x.owners(e.owner, nil, e.addrs())
		return
	}
	e := x.build.build(old.owner, src)
	x.services.put(key, e)
	if !slices.Equal(e.v4, old.v4) || !slices.Equal(e.v6, old.v6) || !slices.Equal(e.vips, old.vips) || len(e.hosts)+len(old.hosts) > 0 {
		x.owners(e.owner, old.addrs(), e.addrs())
	}
}

func (x *index) space(label string, change func(*space)) {
	var s space
	if p := x.spaces.get(label); p != nil {
		s = *p
	}
	before := s
	if change(&s); s == before {
		return
	}
	if s == (space{}) {
		x.spaces.del(label)
		return
	}
	x.spaces.put(strings.Clone(label), s)
}

// owners makes o an owner of the addresses it gained and no owner of those it
// lost. Both lists are sorted.
func (x *index) owners(o *owner, old, now []netip.Addr) {
	for len(old) > 0 || len(now) > 0 {
		c := -1
		switch {
		case len(old) == 0:
			c = 1
		case len(now) > 0:
			c = old[0].Compare(now[0])
		}
		switch {
		case c < 0:
			x.disown(old[0].As16(), o)
			old = old[1:]
		case c > 0:
			x.own(now[0].As16(), o)
			now = now[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
}

func (x *index) own(ip [16]byte, o *owner) {
	first := x.ips.get(ip)
	for p := first; p != nil; p = p.next {
		if p.owner == o {
			return
		}
	}
	x.ips.put(ip, owned{o, first})
}

func (x *index) disown(ip [16]byte, o *owner) {
	var rest *owned
	for p := x.ips.get(ip); p != nil; p = p.next {
		if p.owner != o {
			rest = &owned{p.owner, rest}
		}
	}
	if rest == nil {
		x.ips.del(ip)
		return
	}
	x.ips.put(ip, *rest)
}

// find gives the entry of a service, nil if there is none.
func (x *index) find(key []byte) *entry {
	if p := lookup(x.services, key); p != nil {
		return *p
	}
	return nil
}
