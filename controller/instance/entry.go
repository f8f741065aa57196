package instance

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// name is a namespace and a name.
type name = types.NamespacedName

// entry is what Liveness knows of an Instance. It is immutable but for the
// flags of its leases.
type entry struct {
	uid     types.UID
	version string
	service string
	// claims with and without ttl, in the order of the spec; the ttl check,
	// which belongs to no door, last.
	claims []*claim
}

// claim is one registration, or the ttl check.
type claim struct {
	door, id string
	key      string // of the lease; empty: it does not expire
	group    string
	ttl      time.Duration
	check    bool
	said     v1alpha1.Claim // what the door said last

	// heard: there was a heartbeat since the lease was made.
	heard atomic.Bool
	// marked: the status says that it expired or is held.
	marked atomic.Bool
}

const defaultTTL = 30 * time.Second

// newEntry reads an Instance, taking over the claims that stayed. put says
// which leases are to be made, gone which are to end.
func newEntry(in *v1alpha1.Instance, old *entry) (r *entry, put, gone []*claim) {
	r = &entry{uid: in.UID, version: in.ResourceVersion, service: in.Namespace + "/" + in.Spec.Service}
	if old != nil && old.uid != in.UID {
		gone, old = leased(old.claims), nil
	}
	prefix := in.Namespace + "/" + in.Name + "\x00"
	add := func(c *claim) {
		before := old.find(c.door, c.id, c.check)
		switch {
		case before == nil:
			// A claim added to an Instance that we know was just made by its
			// door; one that we meet for the first time may be old.
			c.heard.Store(old != nil)
			if c.key != "" {
				put = append(put, c)
			}
		case before.same(c):
			c = before
		default: // its door has spoken
			c.heard.Store(true)
			if c.key != "" {
				put = append(put, c)
			}
		}
		r.claims = append(r.claims, c)
	}
	for i := range in.Spec.Claims {
		s := &in.Spec.Claims[i]
		c := &claim{door: s.Door, id: s.ID, said: v1alpha1.Claim{State: s.State, Reason: s.Reason, TTL: s.TTL, Origin: s.Origin}}
		if s.TTL != nil {
			c.ttl, c.group, c.key = s.TTL.Duration, s.Door+"\x00"+in.Spec.Zone, prefix+s.Door+"\x00"+s.ID
		}
		add(c)
	}
	if k := in.Spec.Check; k != nil && k.Type == v1alpha1.CheckTTL {
		c := &claim{check: true, ttl: defaultTTL, group: "\x00" + in.Spec.Zone, key: prefix}
		if k.TTL != nil {
			c.ttl = k.TTL.Duration
		}
		add(c)
	}
	if old != nil {
		for _, c := range old.claims {
			if now := r.find(c.door, c.id, c.check); c.key != "" && (now == nil || now.key == "") {
				gone = append(gone, c)
			}
		}
	}
	r.mark(in)
	return r, put, gone
}

// mark notes what the status says.
func (r *entry) mark(in *v1alpha1.Instance) {
	for _, c := range r.claims {
		if c.check {
			k := in.Status.Check
			c.marked.Store(k != nil && (k.State == v1alpha1.HealthExpired || k.State == v1alpha1.HealthStale))
		} else {
			c.marked.Store(expiredEntry(in, c.door, c.id) != nil)
		}
	}
}

func expiredEntry(in *v1alpha1.Instance, door, id string) *v1alpha1.ExpiredClaim {
	for i := range in.Status.Expired {
		if e := &in.Status.Expired[i]; e.Door == door && e.ID == id {
			return e
		}
	}
	return nil
}

func leased(cs []*claim) []*claim {
	var out []*claim
	for _, c := range cs {
		if c.key != "" {
			out = append(out, c)
		}
	}
	return out
}

func (r *entry) find(door, id string, check bool) *claim {
	if r == nil {
		return nil
	}
	for _, c := range r.claims {
		if c.check == check && c.door == door && c.id == id {
			return c
		}
	}
	return nil
}

func (c *claim) same(o *claim) bool {
	a, b := &c.said, &o.said
	return c.ttl == o.ttl && c.group == o.group && (c.key == "") == (o.key == "") &&
		a.State == b.State && a.Reason == b.Reason && a.Origin == b.Origin
}

// newerVersion says whether a is later than b; versions that cannot be
// compared count as later.
func newerVersion(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || n > 0
}

// table holds the records, in parts with a lock each.
type table struct {
	seed  maphash.Seed
	parts [64]part
}

type part struct {
	mu      sync.RWMutex
	records map[name]*entry
	_       [64]byte // its neighbours' locks are not on its cache line
}

func newTable() *table {
	t := &table{seed: maphash.MakeSeed()}
	for i := range t.parts {
		t.parts[i].records = map[name]*entry{}
	}
	return t
}

func (t *table) part(n name) *part {
	return &t.parts[maphash.Comparable(t.seed, n)%uint64(len(t.parts))]
}

func (t *table) get(n name) *entry {
	p := t.part(n)
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.records[n]
}
