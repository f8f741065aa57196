package viptest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// random makes random changes; after each batch everything that answers must
// be what the table says, and with enough connections all of it.
func (r *run) random(t *testing.T) {
	seed := r.s.Seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	defer r.begin(t)()
	rnd := rand.New(rand.NewPCG(seed, 0))
	table := vip.NewTable(vip.Place{Node: r.cfg.Node, Zone: r.cfg.Zone})
	var history []string
	for range r.s.Random {
		lines := randomBatch(rnd)
		history = append(history, append(lines, "")...)
		touched := map[catalog.Key]bool{}
		var ops []op
		for _, l := range lines {
			o, err := r.m.do(r.w, strings.Fields(l))
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, o)
			touched[o.Key] = true
		}
		var changes []catalog.Change
		for k := range touched {
			c := catalog.Change{Key: k}
			if s := r.m.services[k]; s != nil {
				c.New = &catalog.Entry{Service: s, Endpoints: r.m.endpoints[k]}
			}
			changes = append(changes, c)
		}
		table.Apply(changes)
		r.changed = true
		err := r.child.apply(ops)
		if err == nil {
			err = r.each()
		}
		if err == nil {
			err = r.against(table)
		}
		if err != nil {
			t.Fatalf("%v\nafter:\n%s", err, strings.Join(history, "\n"))
		}
	}
}

// randomBatch gives a few commands.
func randomBatch(rnd *rand.Rand) (lines []string) {
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	for range 1 + rnd.IntN(4) {
		n := rnd.IntN(4)
		name := fmt.Sprintf("s%d", n)
		switch rnd.IntN(10) {
		case 0:
			lines = append(lines, "delete "+name)
		case 1, 2, 3:
			l := fmt.Sprintf("service %s ports=x:80@%d,y:53/udp clusterip=10.96.1.%d,fd96::10%d", name, 31000+rnd.IntN(4), n, n)
			l += pick("", "", fmt.Sprintf(" externalip=203.0.113.%d", 20+rnd.IntN(3)), fmt.Sprintf(" lb=203.0.113.%d,2001:db8:77::%d", 30+n, 30+n))
			l += pick("", "", "", " external-local", " internal-local", " distribution=PreferClose")
			lines = append(lines, l)
		case 4, 5:
			lines = append(lines, fmt.Sprintf("remove %s %s", name, pick("p1", "p2", "q1", "q2")))
		default:
			lines = append(lines, fmt.Sprintf("endpoint %s %s x=8080,y=5353/udp%s", name, pick("p1", "p2", "q1", "q2"),
				pick("", "", "", " failing", " terminating", " weight=0", " weight=20", " forzones=z1")))
		}
	}
	return lines
}

// against connects to every frontend from a pod, the node and outside.
func (r *run) against(table *vip.Table) error {
	for f := range table.All() {
		to := f.Addr
		if f.Scope == vip.Node {
			i := 0
			if to.Addr().Is6() {
				i = 1
			}
			to = netip.AddrPortFrom(r.cfg.NodeAddrs[i], to.Port())
		}
		for _, name := range []string{"p3", "a", "o"} {
			if name == "p3" && f.LocalOnly && !r.s.can("shortcut") {
				continue
			}
			list, others := f.For(name == "o"), f.Backends
			var want []string
			for _, b := range list {
				want = append(want, r.w.name(b.Addr.Addr()))
			}
			slices.Sort(want)
			n, within := 20, patience
			if len(want) == 0 {
				n, want = 4, []string{"refused"}
				if len(others) > 0 && r.s.can("drop") {
					within, want = quiet, []string{"no answer"}
				}
			}
			want = slices.Compact(want)
			if f.Proto == catalog.UDP && r.s.can("udp-cleanup") {
				// A flow may stay at an endpoint that new ones from there would not get.
				all := slices.Clone(want)
				for _, b := range slices.Concat(f.Backends, f.Local) {
					all = append(all, r.w.name(b.Addr.Addr()))
				}
				if err := r.flow(name, to.String(), all, within); err != nil {
					return err
				}
			}
			got := map[string]bool{}
			for tries := 0; tries < 40 && len(got) < len(want); tries++ {
				for _, who := range r.w.answers(name, strings.ToLower(string(f.Proto)), to.String(), n, within) {
					got[who] = true
				}
			}
			if all := slices.Sorted(maps.Keys(got)); !slices.Equal(all, want) {
				return fmt.Errorf("%s from %s to %s: got %v, want %v", f.Scope, name, f.Front, all, want)
			}
		}
	}
	return nil
}

// flow asks on a UDP flow that stays, as resolvers have it: when its endpoint
// goes, it must lead to another.
func (r *run) flow(name, to string, want []string, within time.Duration) error {
	id := name + " " + to
	end := time.Now().Add(patience)
	for {
		who := ""
		if r.conns[id] == nil {
			from := r.w.hosts[name]
			if c, err := from.dial("udp", to, within); err == nil {
				r.conns[id] = &held{from, "udp", to, c}
			} else if who = failure(err); !r.s.can("closes") { // else it refuses already
				return err
			}
		}
		if who == "" {
			got, err := r.talk(id, within)
			if err != nil {
				return err
			}
			who, _, _ = strings.Cut(got[0], " sees ")
		}
		switch {
		case slices.Contains(want, who):
			return nil
		case !r.s.can("closes") || time.Now().After(end):
			return fmt.Errorf("the UDP flow from %s to %s leads to %s, want one of %v", name, to, who, want)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// answers gives who answers, without which address it saw.
func (w *world) answers(from, network, to string, n int, within time.Duration) (out []string) {
	for _, s := range w.connect(w.hosts[from], network, to, n, within) {
		who, _, _ := strings.Cut(s, " sees ")
		out = append(out, who)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// churn changes endpoints as fast as it can while others connect. p1 stays; the
// others come and go, each change noted before and after.
func (r *run) churn(t *testing.T) {
	defer r.begin(t)()
	do := func(lines ...string) {
		var ops []op
		for _, l := range lines {
			o, err := r.m.do(r.w, strings.Fields(l))
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, o)
		}
		if err := r.child.apply(ops); err != nil {
			t.Fatal(err)
		}
	}
	do("service web ports=http:80@30300 clusterip=10.96.0.10", "endpoint web p1 http=8080")
	movers := []string{"p2", "q1", "q2"}
	// out counts the changes of each: even is out, since the change was applied.
	var out [3]atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var connections atomic.Int64
	var mu sync.Mutex
	wrong := map[string]int{}
	for name, to := range map[string]string{"p3": "10.96.0.10:80", "a": "10.96.0.10:80", "o": "192.168.77.1:30300"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var before [3]int64
				for i := range out {
					before[i] = out[i].Load()
				}
				got := r.w.connect(r.w.hosts[name], "tcp", to, 1, patience)[0]
				connections.Add(1)
				who, _, ok := strings.Cut(got, " sees ")
				if i := slices.Index(movers, who); i >= 0 && before[i]%2 == 0 && out[i].Load() == before[i] {
					got = who + " answered though it was out before the connection began"
				} else if ok {
					continue
				}
				mu.Lock()
				wrong[name+": "+got]++
				mu.Unlock()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	for range r.s.Churn {
		i := rnd.IntN(len(movers))
		if out[i].Load()%2 == 0 {
			out[i].Add(1) // from here on it may answer
			do("endpoint web " + movers[i] + " http=8080")
		} else {
			do("remove web " + movers[i])
			out[i].Add(1) // from here on it may not
		}
	}
	took := time.Since(began)
	close(stop)
	wg.Wait()
	t.Logf("%d changes in %v (%.0f a second), %d connections", r.s.Churn, took, float64(r.s.Churn)/took.Seconds(), connections.Load())
	for what, n := range wrong {
		t.Errorf("%s (%d times)", what, n)
	}
}
