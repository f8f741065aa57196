package vip

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// Diff is what changed for a driver. A Front is in Put or in Removed, never in
// both. Remove first: a socket given up may be wanted by another frontend.
type Diff struct {
	Put       []*Frontend // new, or with other content than before
	Removed   []Front
	Conflicts []Conflict // that stand on the frontends of this batch
}

// Empty says whether there is nothing to do.
func (d *Diff) Empty() bool {
	return len(d.Put) == 0 && len(d.Removed) == 0 && len(d.Conflicts) == 0
}

// Conflict is a frontend that a service asked for and another has.
type Conflict struct {
	Front  Front
	Winner catalog.Key
	Loser  catalog.Key
}

// String says what the loser's owner can do.
func (c Conflict) String() string {
	return fmt.Sprintf("%s is served for service %s; choose another address or port", c.Front, c.Winner)
}

// Table is what the proxy of one node must show. It is for one goroutine.
type Table struct {
	at     Place
	byKey  map[catalog.Key][]*Frontend
	claims map[Front][]*Frontend // the first one has it
	told   map[Conflict]struct{} // that News gave
}

// NewTable makes an empty table.
func NewTable(at Place) *Table {
	return &Table{at: at, byKey: map[catalog.Key][]*Frontend{}, claims: map[Front][]*Frontend{}, told: map[Conflict]struct{}{}}
}

// Len is the number of frontends.
func (t *Table) Len() int { return len(t.claims) }

// Get gives the frontend, nil if there is none.
func (t *Table) Get(f Front) *Frontend {
	if c := t.claims[f]; len(c) > 0 {
		return c[0]
	}
	return nil
}

// All yields every frontend, in no order.
func (t *Table) All() iter.Seq[*Frontend] {
	return func(yield func(*Frontend) bool) {
		for _, c := range t.claims {
			if !yield(c[0]) {
				return
			}
		}
	}
}

// Service yields the frontends that a service has, without those it lost to
// another.
func (t *Table) Service(k catalog.Key) iter.Seq[*Frontend] {
	return func(yield func(*Frontend) bool) {
		for _, f := range t.byKey[k] {
			if t.Get(f.Front) == f && !yield(f) {
				return
			}
		}
	}
}

// Apply takes the changes of a batch and gives what to do.
func (t *Table) Apply(changes []catalog.Change) Diff {
	touched := map[Front]*Frontend{} // the owner before
	touch := func(f Front) {
		if _, seen := touched[f]; !seen {
			touched[f] = t.Get(f)
		}
	}
	var d Diff
	for _, c := range changes {
		old, now := t.byKey[c.Key], unique(Compile(c.New, t.at))
		for i, f := range now {
			// Keep the value that everybody holds already, if it says the same.
			if j := slices.IndexFunc(old, func(o *Frontend) bool { return o.Front == f.Front }); j >= 0 && old[j].Equal(f) {
				now[i] = old[j]
			}
		}
		for _, o := range old {
			if !slices.Contains(now, o) {
				touch(o.Front)
				t.drop(o)
			}
		}
		for _, f := range now {
			if !slices.Contains(old, f) {
				touch(f.Front)
				t.claims[f.Front] = append(t.claims[f.Front], f)
			}
		}
		if len(now) == 0 {
			delete(t.byKey, c.Key)
		} else {
			t.byKey[c.Key] = now
		}
	}
	for front, before := range touched {
		claims := t.claims[front]
		slices.SortFunc(claims, seniority)
		switch {
		case len(claims) == 0 && before != nil:
			d.Removed = append(d.Removed, front)
		case len(claims) > 0 && claims[0] != before:
			d.Put = append(d.Put, claims[0])
		}
		for i := 1; i < len(claims); i++ {
			d.Conflicts = append(d.Conflicts, Conflict{front, claims[0].Service, claims[i].Service})
		}
	}
	return d
}

// News gives those conflicts of a difference that it has not given yet: each is
// told once, and again when it comes back after it was over.
func (t *Table) News(conflicts []Conflict) []Conflict {
	for c := range t.told {
		if f := t.Get(c.Front); f == nil || f.Service != c.Winner {
			delete(t.told, c)
		}
	}
	var news []Conflict
	for _, c := range conflicts {
		if _, known := t.told[c]; !known && c.Winner != c.Loser {
			t.told[c] = struct{}{}
			news = append(news, c)
		}
	}
	return news
}

func (t *Table) drop(f *Frontend) {
	left := slices.DeleteFunc(t.claims[f.Front], func(o *Frontend) bool { return o == f })
	if len(left) == 0 {
		delete(t.claims, f.Front)
		return
	}
	t.claims[f.Front] = left
}

// seniority puts the owner first: the stronger scope, then the older service,
// and of the same age the one whose name sorts first, so that every node
// decides alike.
func seniority(a, b *Frontend) int {
	return cmp.Or(
		cmp.Compare(a.Scope, b.Scope),
		a.Created.Compare(b.Created),
		strings.Compare(a.Service.Namespace, b.Service.Namespace),
		strings.Compare(a.Service.Name, b.Service.Name),
	)
}

// unique drops a frontend that the same service asks for twice.
func unique(all []*Frontend) []*Frontend {
	for i := 1; i < len(all); i++ {
		if slices.ContainsFunc(all[:i], func(f *Frontend) bool { return f.Front == all[i].Front }) {
			all = slices.Delete(all, i, i+1)
			i--
		}
	}
	return all
}
