package viewtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/script"
)

var update = flag.Bool("update", false, "rewrite testdata")

// The answers in the scripts are the model's, in all sorts of views.
func TestScriptsAgreeWithModel(t *testing.T) {
	script.Run(t, "testdata/*.txt", *update, func(t *testing.T) func(*script.Step) string {
		st := newStage(nil)
		t.Cleanup(st.close)
		st.can = abilities{virtual: true, headless: true}
		st.view = modelView{st}
		return func(s *script.Step) string {
			if slices.Contains(s.Lines, "require fallback") {
				st.can.fallback = true
			}
			return st.step(s)
		}
	})
}

// modelView answers from the truth, without following the catalog.
type modelView struct{ *stage }

func (modelView) Apply(context.Context, catalog.Batch) error { return nil }

func (v modelView) Reach(k catalog.Key, port string, proto catalog.Protocol) []string {
	return v.truth.reach(v.can, k, port, proto)
}

func TestFake(t *testing.T) {
	for name, newFake := range map[string]func() *Fake{
		"plain":    func() *Fake { return &Fake{Node: Node} },
		"fallback": func() *Fake { return &Fake{Node: Node, Fallback: true} },
		"headless": func() *Fake { return &Fake{Node: Node, Headless: true} },
	} {
		t.Run(name, func(t *testing.T) { Run(t, func(*testing.T) View { return newFake() }) })
	}
}

// A view that carries nothing but headless services, as DNS does.
func TestHeadlessOnly(t *testing.T) {
	Run(t, func(*testing.T) View { return onlyHeadless{&Fake{Node: Node, Headless: true}} })
}

type onlyHeadless struct{ *Fake }

func (onlyHeadless) Carries(s *catalog.Service) bool { return s.Headless }

func (v onlyHeadless) Reach(k catalog.Key, port string, proto catalog.Protocol) []string {
	if e := v.entries[k]; e == nil || !e.Service.Headless {
		return nil
	}
	return v.Fake.Reach(k, port, proto)
}

func TestFakeDump(t *testing.T) {
	f := &Fake{Node: Node, Fallback: true}
	st := newStage(f)
	defer st.close()
	for _, l := range []string{
		"service default/web clusterip=10.96.0.1 ports=http:80->8080,metrics:9100",
		"endpoint default/web 10.0.0.2 ports=http:8080 ready",
		"endpoint default/web 10.0.0.1 ports=http:8081 ready",
		"stale",
	} {
		if _, err := st.do(l); err != nil {
			t.Fatal(err)
		}
	}
	want := `stale
default/web http 80/TCP 10.96.0.1 -> 10.0.0.1:8081 10.0.0.2:8080
default/web metrics 9100/TCP 10.96.0.1 -> none
`
	if got := f.Dump(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if f.Applied() != 4 {
		t.Errorf("%d batches, want 4", f.Applied())
	}
}

func TestFakeNoticesWrongOld(t *testing.T) {
	f := &Fake{}
	k := catalog.Key{Namespace: "default", Name: "web"}
	b := catalog.Batch{Snapshot: catalog.New(nil).Snapshot(), Changes: []catalog.Change{{Key: k, Old: &catalog.Entry{}}}}
	if err := f.Apply(t.Context(), b); err == nil {
		t.Error("an Old that was never given passes")
	}
}

// wrong is a fake with one mistake.
type wrong struct {
	*Fake
	apply func(*Fake, catalog.Batch) error
	reach func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string
}

func (w *wrong) Apply(ctx context.Context, b catalog.Batch) error {
	if w.apply != nil {
		return w.apply(w.Fake, b)
	}
	return w.Fake.Apply(ctx, b)
}

func (w *wrong) Reach(k catalog.Key, port string, proto catalog.Protocol) []string {
	if w.reach != nil {
		return w.reach(w.Fake, k, port, proto)
	}
	return w.Fake.Reach(k, port, proto)
}

// edited is a fake that sees every endpoint through the eyes of edit.
func edited(edit func(e *catalog.Endpoint)) func() View {
	return func() View {
		return &wrong{Fake: &Fake{Node: Node}, reach: func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string {
			e := f.entries[k]
			if e == nil {
				return nil
			}
			c := *e
			c.Endpoints = slices.Clone(e.Endpoints)
			for i := range c.Endpoints {
				edit(&c.Endpoints[i])
			}
			g := &Fake{Node: f.Node, entries: map[catalog.Key]*catalog.Entry{k: &c}}
			return g.Reach(k, port, proto)
		}}
	}
}

func applying(apply func(*Fake, catalog.Batch) error) func() View {
	return func() View {
		return &wrong{Fake: &Fake{Node: Node, entries: map[catalog.Key]*catalog.Entry{}}, apply: apply}
	}
}

// A suite that cannot fail proves nothing: each of these mistakes must be
// found, by the scenario that is about it and (but for the first) by chance.
func TestSuiteFindsMistakes(t *testing.T) {
	for _, tc := range []struct {
		mistake string
		view    func() View
		finds   string // the scenario that must fail
		byLuck  bool   // the random runs must find it too
	}{
		{"it says that it fails", applying(func(f *Fake, b catalog.Batch) error {
			_ = f.Apply(context.Background(), b)
			return errors.New("no")
		}), "readiness", true},
		{"readiness does not matter", edited(func(e *catalog.Endpoint) { e.Ready = true }), "readiness", true},
		{"terminating ones are used without saying so", edited(func(e *catalog.Endpoint) { e.Ready = e.Ready || e.Serving && e.Terminating }), "terminating-no-fallback", true},
		{"what serves is taken for ready", edited(func(e *catalog.Endpoint) { e.Ready = e.Serving }), "readiness", true},
		{"weight 0 is taken", edited(func(e *catalog.Endpoint) { e.Weight = 1 }), "weight", true},
		{"other nodes' local addresses are used", edited(func(e *catalog.Endpoint) { e.Local = false }), "local", true},
		{"own local addresses are not used", edited(func(e *catalog.Endpoint) { e.Ready = e.Ready && !e.Local }), "local", true},
		{"the first port number is taken for all", edited(func(e *catalog.Endpoint) {
			e.Ports = slices.Clone(e.Ports)
			for i := range e.Ports {
				e.Ports[i].Port = e.Ports[0].Port
			}
		}), "ports", true},
		{"the protocol does not matter", func() View {
			return &wrong{Fake: &Fake{Node: Node}, reach: func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string {
				return slices.Compact(slices.Sorted(slices.Values(append(f.Reach(k, port, catalog.TCP), f.Reach(k, port, catalog.UDP)...))))
			}}
		}, "ports", true},
		{"deleted services stay", applying(func(f *Fake, b catalog.Batch) error {
			for _, c := range b.Changes {
				if c.New != nil {
					f.entries[c.Key] = c.New
				}
			}
			return nil
		}), "recreate", true},
		{"only the first change of a batch is done", applying(func(f *Fake, b catalog.Batch) error {
			for _, c := range b.Changes[:min(1, len(b.Changes))] {
				if c.New == nil {
					delete(f.entries, c.Key)
				} else {
					f.entries[c.Key] = c.New
				}
			}
			return nil
		}), "vip-moves", true},
		{"a stale catalog is forgotten", applying(func(f *Fake, b catalog.Batch) error {
			if b.Snapshot.Freshness().Stale() {
				clear(f.entries)
				return nil
			}
			for _, c := range b.Changes {
				f.entries[c.Key] = c.New
			}
			return nil
		}), "stale", true},
		{"endpoints that were there before their service are missed", applying(func(f *Fake, b catalog.Batch) error {
			for _, c := range b.Changes {
				switch {
				case c.New == nil:
					delete(f.entries, c.Key)
				case c.Old == nil:
					f.entries[c.Key] = &catalog.Entry{Service: c.New.Service}
				default:
					f.entries[c.Key] = c.New
				}
			}
			return nil
		}), "endpoints-first", true},
		{"the answer is not sorted", func() View {
			return &wrong{Fake: &Fake{Node: Node}, reach: func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string {
				at := f.Reach(k, port, proto)
				slices.Reverse(at)
				return at
			}}
		}, "readiness", true},
		{"it falls back but does not when asked", func() View {
			return &wrong{Fake: &Fake{Node: Node, Fallback: true}, reach: func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string {
				g := &Fake{Node: f.Node, entries: f.entries}
				return g.Reach(k, port, proto)
			}}
		}, "terminating-fallback", true},
		{"a virtual IP that moved is lost", vipMap, "vip-moves", true},
	} {
		t.Run(tc.mistake, func(t *testing.T) {
			failed := Check(tc.view)
			if failed[tc.finds] == nil {
				t.Errorf("the scenario %s passes; failed: %v", tc.finds, failures(failed))
			}
			lucky := slices.ContainsFunc(failures(failed), func(n string) bool { return strings.HasPrefix(n, "random") })
			if tc.byLuck && !lucky {
				t.Errorf("no random run found it; failed: %v", failures(failed))
			}
		})
	}
}

func failures(failed map[string]error) []string {
	var all []string
	for n := range failed {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// vipMap keys its table by virtual IP and adds before it deletes, as a careless
// packet filter view would.
func vipMap() View {
	table := map[string]catalog.Key{}
	return &wrong{
		Fake: &Fake{Node: Node},
		apply: func(f *Fake, b catalog.Batch) error {
			for _, c := range b.Changes {
				if c.New != nil {
					table[fmt.Sprint(c.New.Service.ClusterIPs)] = c.Key
				}
			}
			for _, c := range b.Changes {
				if c.Old != nil && (c.New == nil || !slices.Equal(c.New.Service.ClusterIPs, c.Old.Service.ClusterIPs)) {
					delete(table, fmt.Sprint(c.Old.Service.ClusterIPs))
				}
			}
			return f.Apply(context.Background(), b)
		},
		reach: func(f *Fake, k catalog.Key, port string, proto catalog.Protocol) []string {
			e := f.entries[k]
			if e == nil || table[fmt.Sprint(e.Service.ClusterIPs)] != k {
				return nil
			}
			return f.Reach(k, port, proto)
		},
	}
}

// A random failure is a script that shows the same failure again.
func TestRandomFailureIsAScript(t *testing.T) {
	view := edited(func(e *catalog.Endpoint) { e.Weight = 1 })
	err := Check(view)["random-0"]
	if err == nil {
		t.Fatal("random-0 passes")
	}
	_, text, _ := strings.Cut(err.Error(), "again:\n")
	text = strings.Replace(text, "-- got", "----", 1)
	text, want, _ := strings.Cut(text, "-- want\n")
	text, _, _ = strings.Cut(text, "----\n")
	s, err := script.Parse("pasted", []byte(text+"----\n"+want))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, tc := range []struct {
		view View
		fine bool
	}{{view(), false}, {&Fake{Node: Node}, true}} {
		st := newStage(tc.view)
		if _, err := s.Play(st.step); (err == nil) != tc.fine {
			t.Errorf("%T: replay gives %v, want fine = %t", tc.view, err, tc.fine)
		}
		st.close()
	}
}
