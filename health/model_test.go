package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// model is Leases written to be read: it looks at every lease every time.
type model struct {
	cfg  LeaseConfig
	rows map[string]*row
}

type row struct {
	group, service string
	ttl            time.Duration
	last           time.Time
	state          State
	late           bool
	window         time.Time // Expired: until when it counts; zero: for ever
	look           time.Time // Stale: when it is judged again
	until          time.Time
	clear, kept    bool
	revived        bool
}

func (m *model) put(key, group, service string, ttl time.Duration, now time.Time) {
	r := m.rows[key]
	if r == nil {
		m.rows[key] = &row{group: group, service: service, ttl: ttl, last: now, state: Passing}
		return
	}
	if r.ttl != ttl {
		r.late = false
	}
	m.renew(key, now)
	r.group, r.service, r.ttl = group, service, ttl
}

func (m *model) renew(key string, now time.Time) Renewal {
	r := m.rows[key]
	if r == nil {
		return Unknown
	}
	if gap := now.Sub(r.last); gap >= r.ttl/4*3 {
		r.late = r.state == Passing
	} else if gap < r.ttl/2 {
		r.late = false
	}
	r.last = now
	if r.state == Passing {
		return Renewed
	}
	r.state, r.clear, r.kept, r.revived = Passing, false, false, true
	return Returned
}

func (m *model) expire(now time.Time) (told []string) {
	tell := func(key string, k Kind) { told = append(told, fmt.Sprint(key, " ", k)) }
	ranOut := func(r *row) bool { return r.state == Passing && !r.last.Add(r.ttl).After(now) }
	counts := func(r *row) bool { return r.state != Expired || r.window.IsZero() || r.window.After(now) }
	mass := map[string]bool{}
	for _, g := range m.rows {
		size, out := 0, 0
		for _, r := range m.rows {
			if r.group != g.group || !counts(r) {
				continue
			}
			size++
			silent := r.state == Passing && !r.late && !r.last.Add(r.ttl/4*3).After(now)
			if r.state != Passing || ranOut(r) || silent {
				out++
			}
		}
		mass[g.group] = size >= m.cfg.MinGroup && out >= m.cfg.MinOut && float64(out) > m.cfg.Share*float64(size)
	}
	living := map[string]bool{}
	for _, r := range m.rows {
		if r.state == Passing && !ranOut(r) {
			living[r.service] = true
		}
	}
	for key, r := range m.rows {
		if r.revived {
			r.revived = false
			tell(key, Revived)
		}
		switch {
		case ranOut(r) && mass[r.group]:
			r.state, r.until, r.clear, r.kept = Stale, now.Add(m.cfg.HoldFor), false, false
			r.look = earliest(now.Add(r.ttl), r.until)
			tell(key, WentHeld)
		case ranOut(r):
			r.state, r.window = Expired, now.Add(r.ttl)
			tell(key, WentOut)
		case r.state == Stale && !r.look.After(now):
			r.look = now.Add(r.ttl)
			if r.kept || mass[r.group] && !now.Before(r.until) {
				r.clear = false
				if r.kept = !living[r.service]; !r.kept {
					r.state, r.window = Expired, time.Time{}
					tell(key, WentOut)
				}
			} else if mass[r.group] {
				r.clear = false
				r.look = earliest(r.look, r.until)
			} else if r.clear {
				r.state, r.window = Expired, now.Add(r.ttl)
				tell(key, WentOut)
			} else {
				r.clear = true
			}
		}
	}
	slices.SortStableFunc(told, func(a, b string) int {
		ka, _, _ := strings.Cut(a, " ")
		kb, _, _ := strings.Cut(b, " ")
		return strings.Compare(ka, kb)
	})
	return told
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// A random history where whole groups fall silent and come back.
func TestAgainstModel(t *testing.T) {
	var kinds [3]int
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 11))
		cfg := LeaseConfig{HoldFor: 2 * time.Minute, MinGroup: 6}.withDefaults()
		ls := NewLeases(cfg, t0)
		m := &model{cfg: cfg, rows: map[string]*row{}}
		var log []string
		groups := []string{"g0", "g1"}
		cut := map[string]bool{}                                                    // groups whose heartbeats do not arrive
		dead := map[string]bool{}                                                   // keys that do not beat
		ttls := []time.Duration{8 * time.Second, 12 * time.Second, 1 * time.Second} // divisible by 4
		now := t0
		for range 400 {
			now = now.Add(time.Duration(r.IntN(2000)) * time.Millisecond)
			i := r.IntN(40)
			key := fmt.Sprintf("k%02d", i)
			switch n := r.IntN(100); {
			case n < 25:
				g := groups[i%2]
				if r.IntN(20) == 0 {
					g = groups[r.IntN(2)]
				}
				ttl := ttls[r.IntN(2)]
				if r.IntN(30) == 0 {
					ttl = ttls[2]
				}
				sv := fmt.Sprint("s", i%8)
				ls.Put(key, g, sv, ttl, now)
				m.put(key, g, sv, ttl, now)
				log = append(log, fmt.Sprint(now.Sub(t0), " put ", key, g, sv, ttl))
			case n < 28:
				if got, want := ls.Remove(key), m.rows[key] != nil; got != want {
					t.Fatalf("seed %d: remove %s says %t", seed, key, got)
				}
				delete(m.rows, key)
				log = append(log, fmt.Sprint(now.Sub(t0), " remove ", key))
			case n < 31:
				g := groups[r.IntN(2)]
				cut[g] = !cut[g]
			case n < 34:
				dead[key] = !dead[key]
			case n < 70: // everybody who can beats
				for j := range 40 {
					key := fmt.Sprintf("k%02d", j)
					if dead[key] || m.rows[key] != nil && cut[m.rows[key].group] || r.IntN(4) == 0 {
						continue
					}
					if got, want := ls.Renew(key, now), m.renew(key, now); got != want {
						t.Fatalf("seed %d: renew %s says %d, the model says %d", seed, key, got, want)
					}
				}
				log = append(log, fmt.Sprint(now.Sub(t0), " beats"))
			default:
				var got []string
				for _, tr := range ls.Expire(now) {
					got = append(got, fmt.Sprint(tr.Key, " ", tr.Kind))
					kinds[tr.Kind]++
				}
				want := m.expire(now)
				log = append(log, fmt.Sprint(now.Sub(t0), " expire ", want))
				if !slices.Equal(got, want) {
					t.Fatalf("seed %d at %s:\n got %v\nwant %v\n%s", seed, now.Sub(t0), got, want, strings.Join(log, "\n"))
				}
				for key, r := range m.rows {
					if st, _ := ls.Get(key); st.State != r.state || !st.Last.Equal(r.last) {
						t.Fatalf("seed %d at %s: %s is %s, want %s", seed, now.Sub(t0), key, st.State, r.state)
					}
				}
			}
		}
	}
	for k, n := range kinds {
		if n < 500 {
			t.Errorf("%s: told only %d times: the test does not try it", Kind(k), n)
		}
	}
}
