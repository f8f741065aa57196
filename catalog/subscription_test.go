package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// told writes a batch as sorted lines "key: old => new".
func told(b Batch) string {
	var lines []string
	for _, c := range b.Changes {
		lines = append(lines, fmt.Sprintf("%s: %s => %s", c.Key.Name, text(c.Old), text(c.New)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestSubscription(t *testing.T) {
	put := func(name, ip string) func(*Txn) {
		return func(tx *Txn) { tx.PutService(service(name, ip)) }
	}
	del := func(name string) func(*Txn) { return func(tx *Txn) { tx.DeleteService(key(name)) } }
	eps := func(name string, addrs ...string) func(*Txn) {
		return func(tx *Txn) { tx.PutEndpoints(key(name), endpoints(addrs...)) }
	}
	for _, tc := range []struct {
		name    string
		before  []func(*Txn) // what the subscriber was given
		between []func(*Txn) // what happened since
		want    string
	}{
		{"one change", []func(*Txn){put("web", "10.96.0.1")}, []func(*Txn){eps("web", "10.0.0.1")},
			"web: default/web[10.96.0.1] => default/web[10.96.0.1] 10.0.0.1"},
		{"coalesced: Old is what was given", []func(*Txn){put("web", "10.96.0.1")},
			[]func(*Txn){put("web", "10.96.0.2"), put("web", "10.96.0.3"), eps("web", "10.0.0.1")},
			"web: default/web[10.96.0.1] => default/web[10.96.0.3] 10.0.0.1"},
		{"come and gone", nil, []func(*Txn){put("web", ""), eps("web", "10.0.0.1"), del("web")}, ""},
		{"gone", []func(*Txn){put("web", "10.96.0.1")}, []func(*Txn){put("web", "10.96.0.2"), del("web")},
			"web: default/web[10.96.0.1] => -"},
		{"gone and another in its place", []func(*Txn){put("web", "10.96.0.1")}, []func(*Txn){del("web"), put("web", "10.96.0.9")},
			"web: default/web[10.96.0.1] => default/web[10.96.0.9]"},
		{"gone, come, gone", []func(*Txn){put("web", "10.96.0.1")}, []func(*Txn){del("web"), put("web", "10.96.0.9"), del("web")},
			"web: default/web[10.96.0.1] => -"},
		{"two services", []func(*Txn){put("a", "")}, []func(*Txn){put("b", ""), eps("a", "10.0.0.1")},
			"a: default/a[] => default/a[] 10.0.0.1\nb: - => default/b[]"},
		{"orphans only", nil, []func(*Txn){eps("web", "10.0.0.1")}, ""},
		{"orphans' service came and went", nil, []func(*Txn){eps("web", "10.0.0.1"), put("web", ""), del("web")}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(nil)
			sub := c.Subscribe()
			defer sub.Close()
			for _, f := range tc.before {
				c.Update(f)
			}
			sub.TryNext()
			for _, f := range tc.between {
				c.Update(f)
			}
			b := sub.TryNext()
			if got := told(b); got != tc.want {
				t.Errorf("told\n%s\nwant\n%s", got, tc.want)
			}
			if b.Snapshot != c.Snapshot() {
				t.Error("the batch's snapshot is not the last")
			}
			if b := sub.TryNext(); len(b.Changes) > 0 || b.Snapshot != c.Snapshot() || !b.Oldest.IsZero() {
				t.Errorf("told twice: %v", told(b))
			}
			select {
			case <-sub.Wake():
				t.Error("awake with nothing pending")
			default:
			}
		})
	}
}

func TestFirstBatchIsEverything(t *testing.T) {
	c := New(nil)
	c.Update(func(tx *Txn) {
		tx.PutService(service("web", ""))
		tx.PutEndpoints(key("orphan"), endpoints("10.0.0.1"))
		tx.PutNamespace("default")
	})
	sub := c.Subscribe()
	defer sub.Close()
	c.Update(func(tx *Txn) { tx.PutService(service("db", "")) })
	b, err := sub.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := told(b), "db: - => default/db[]\nweb: - => default/web[]"; got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
	if len(b.Namespaces) != 1 || b.Namespaces[0] != (NamespaceChange{"default", true}) {
		t.Errorf("namespaces %v", b.Namespaces)
	}
}

func TestOldest(t *testing.T) {
	now := start
	c := New(func() time.Time { return now })
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()
	for i := range 3 {
		now = now.Add(time.Second)
		c.Update(func(tx *Txn) { tx.PutService(service(fmt.Sprint("s", i), "")) })
	}
	if b := sub.TryNext(); !b.Oldest.Equal(start.Add(time.Second)) {
		t.Errorf("oldest change at %s, want %s", b.Oldest, start.Add(time.Second))
	}
}

// A reader that never reads costs what exists, not what ever happened.
func TestSlowSubscriberIsBounded(t *testing.T) {
	c := New(nil)
	sub := c.Subscribe()
	defer sub.Close()
	sub.TryNext()
	for i := range 10000 {
		k := key(fmt.Sprint("job-", i))
		c.Update(func(tx *Txn) {
			tx.PutService(&Service{Key: k})
			tx.PutNamespace(k.Name)
		})
		c.Update(func(tx *Txn) {
			tx.DeleteService(k)
			tx.DeleteNamespace(k.Name)
		})
	}
	if n := len(sub.pending.keys) + len(sub.pending.spaces); n > 0 {
		t.Errorf("%d names pending after 10000 services came and went", n)
	}
	if b := sub.TryNext(); len(b.Changes)+len(b.Namespaces) > 0 {
		t.Errorf("told %v", b)
	}
}

func TestNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		sub := c.Subscribe()
		defer sub.Close()
		slow := c.Subscribe() // never read: must not matter
		defer slow.Close()
		sub.TryNext()
		got := make(chan string)
		go func() {
			b, _ := sub.Next(t.Context())
			got <- told(b)
		}()
		synctest.Wait()
		select {
		case s := <-got:
			t.Fatalf("Next returned %q before anything happened", s)
		default:
		}
		c.Update(func(tx *Txn) { tx.PutService(service("web", "")) })
		if s := <-got; s != "web: - => default/web[]" {
			t.Errorf("told %q", s)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sub.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Next with an ended context: %v", err)
		}
	})
}

func TestClose(t *testing.T) {
	c := New(nil)
	sub := c.Subscribe()
	sub.TryNext()
	sub.Close()
	sub.Close()
	c.Update(func(tx *Txn) { tx.PutService(service("web", "")) })
	if len(c.subs) != 0 || sub.pending.keys != nil {
		t.Error("a closed subscription still collects")
	}
}

type viewFunc func(context.Context, Batch) error

func (f viewFunc) Apply(ctx context.Context, b Batch) error { return f(ctx, b) }

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var applied, failed int
		stopped := make(chan error)
		go func() {
			stopped <- Follow(ctx, c, viewFunc(func(_ context.Context, b Batch) error {
				applied++
				if len(b.Changes) > 0 {
					return errors.New("a view's trouble")
				}
				return nil
			}), func(error) { failed++ })
		}()
		synctest.Wait()
		for i := range 3 {
			c.Update(func(tx *Txn) { tx.PutService(service(fmt.Sprint("s", i), "")) })
			synctest.Wait()
		}
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
		if applied != 4 || failed != 3 {
			t.Errorf("applied %d, failed %d, want 4 and 3: an error must not end the stream", applied, failed)
		}
		if len(c.subs) != 0 {
			t.Error("Follow left its subscription")
		}
	})
}

// Replaying the changes must give the snapshot, however reads and writes
// interleave, and Old must be what the replay holds.
func TestReplayConcurrently(t *testing.T) {
	c := New(nil)
	var wg sync.WaitGroup
	const last = "the-end"
	for range 3 {
		sub := c.Subscribe()
		wg.Go(func() {
			defer sub.Close()
			have := map[Key]*Entry{}
			for revision := uint64(0); ; {
				b, err := sub.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if b.Snapshot.Revision() < revision {
					t.Error("an older state after a newer one")
				}
				revision = b.Snapshot.Revision()
				for _, ch := range b.Changes {
					if have[ch.Key] != ch.Old {
						t.Errorf("%s: Old is not what was given before", ch.Key)
					}
					if ch.New == nil {
						delete(have, ch.Key)
					} else {
						have[ch.Key] = ch.New
					}
				}
				want := map[Key]*Entry{}
				for e := range b.Snapshot.All() {
					want[e.Service.Key] = e
				}
				if !maps.Equal(have, want) {
					t.Error("the replay differs from the snapshot")
				}
				if have[key(last)] != nil {
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		c.Update(func(tx *Txn) {
			name := fmt.Sprint("s", r.IntN(10))
			switch r.IntN(3) {
			case 0:
				tx.DeleteService(key(name))
			case 1:
				tx.PutService(service(name, fmt.Sprint("10.96.0.", r.IntN(5))))
			case 2:
				tx.PutEndpoints(key(name), endpoints(fmt.Sprint("10.0.0.", r.IntN(5))))
			}
		})
	}
	c.Update(func(tx *Txn) { tx.PutService(service(last, "")) })
	wg.Wait()
}
