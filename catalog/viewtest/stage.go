package viewtest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/script"
)

var sampleIP = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, 1})}

// stage is what a script acts on: the truth, a catalog that is kept equal to
// it as a door would, and the view that follows the catalog.
type stage struct {
	view View
	can  abilities

	truth   truth
	catalog *catalog.Catalog
	sub     *catalog.Subscription
	held    bool
	now     time.Time
}

func newStage(v View) *stage {
	st := &stage{view: v, can: abilitiesOf(v), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	st.truth = truth{services: map[catalog.Key]*catalog.Service{}, endpoints: map[catalog.Key]map[netip.Addr]catalog.Endpoint{}}
	st.catalog = catalog.New(func() time.Time { return st.now })
	st.catalog.Update(func(tx *catalog.Txn) {
		tx.SetFreshness(catalog.Freshness{Synced: true})
		tx.PutNamespace("default")
	})
	st.sub = st.catalog.Subscribe()
	return st
}

func (st *stage) close() { st.sub.Close() }

// meets says whether the view can do what the step requires.
func (st *stage) meets(s *script.Step) bool {
	for _, l := range s.Lines {
		switch strings.Join(strings.Fields(l), " ") {
		case "require headless":
			return st.can.headless
		case "require virtual":
			return st.can.virtual
		case "require fallback":
			return st.can.fallback
		case "require no-fallback":
			return !st.can.fallback
		}
	}
	return true
}

// step does the lines of a step and gives their answers, one below the other.
func (st *stage) step(s *script.Step) string {
	lines := s.Lines
	if lines[0] == "together" {
		var err error
		st.update(func(tx *catalog.Txn) {
			for _, l := range lines[1:] {
				if err == nil {
					err = st.change(tx, strings.Fields(l))
				}
			}
		})
		if err == nil {
			err = st.apply()
		}
		return answer("", err)
	}
	var out strings.Builder
	for _, l := range lines {
		out.WriteString(answer(st.do(l)))
	}
	return out.String()
}

func answer(text string, err error) string {
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	return text
}

// do does one command.
func (st *stage) do(l string) (string, error) {
	words := strings.Fields(l)
	switch words[0] {
	case "require":
		return "", nil
	case "hold":
		st.held = true
		return "", nil
	case "deliver":
		st.held = false
		return "", st.apply()
	case "dump":
		var b strings.Builder
		err := catalog.Dump(&b, st.catalog.Snapshot())
		return b.String(), err
	case "reach":
		if len(words) < 3 || len(words) > 4 {
			return "", fmt.Errorf("want reach NS/NAME PORT [PROTO]")
		}
		k, err := parseKey(words[1])
		if err != nil {
			return "", err
		}
		proto := catalog.TCP
		if len(words) == 4 {
			proto = catalog.Protocol(words[3])
		}
		got := st.view.Reach(k, words[2], proto)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			return "", fmt.Errorf("reach gives %v, which is not sorted and unique", got)
		}
		return answerOf(got), nil
	}
	var err error
	st.update(func(tx *catalog.Txn) { err = st.change(tx, words) })
	if err != nil {
		return "", err
	}
	return "", st.apply()
}

func answerOf(reached []string) string {
	if len(reached) == 0 {
		return "none\n"
	}
	return strings.Join(reached, " ") + "\n"
}

func (st *stage) update(f func(*catalog.Txn)) {
	st.now = st.now.Add(time.Second)
	st.catalog.Update(f)
}

// apply gives the view what is pending, unless it is held back.
func (st *stage) apply() error {
	if st.held {
		return nil
	}
	if err := st.view.Apply(context.Background(), st.sub.TryNext()); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	return nil
}

// change does one command that changes the catalog.
func (st *stage) change(tx *catalog.Txn, words []string) error {
	switch words[0] {
	case "stale":
		tx.SetFreshness(catalog.Freshness{Synced: true, StaleSince: st.now})
		return nil
	case "fresh":
		tx.SetFreshness(catalog.Freshness{Synced: true})
		return nil
	}
	if len(words) < 2 {
		return fmt.Errorf("unknown command %q", strings.Join(words, " "))
	}
	k, err := parseKey(words[1])
	if err != nil {
		return err
	}
	switch words[0] {
	case "service":
		s, err := parseService(k, words[2:])
		if err != nil {
			return err
		}
		if !st.can.virtual {
			s.Headless, s.ClusterIPs = true, nil
		}
		st.truth.services[k] = s
		tx.PutService(s)
	case "delete-service":
		delete(st.truth.services, k)
		tx.DeleteService(k)
		return nil // its endpoints stay as the door left them
	case "endpoint":
		e, err := parseEndpoint(words[2:])
		if err != nil {
			return err
		}
		if st.truth.endpoints[k] == nil {
			st.truth.endpoints[k] = map[netip.Addr]catalog.Endpoint{}
		}
		st.truth.endpoints[k][e.Addr] = e
	case "remove":
		if len(words) != 3 {
			return fmt.Errorf("want remove NS/NAME ADDR")
		}
		addr, err := netip.ParseAddr(words[2])
		if err != nil {
			return err
		}
		delete(st.truth.endpoints[k], addr)
	default:
		return fmt.Errorf("unknown command %q", words[0])
	}
	tx.PutEndpoints(k, st.truth.asDoor(k))
	return nil
}
