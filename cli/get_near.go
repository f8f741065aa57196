package cli

import (
	"cmp"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// notFound says that a service is not there, and what may have been meant.
func notFound(s *catalog.Snapshot, k catalog.Key, whole bool) error {
	return exitWith(ExitNotFound, "%s", strings.Join(append([]string{"service " + k.Name + " not found in namespace " + k.Namespace}, hintsNotFound(s, k, whole)...), "\n"))
}

// hintsNotFound gives what may have been meant by a name that does not exist.
// whole says that the snapshot holds all namespaces.
func hintsNotFound(s *catalog.Snapshot, k catalog.Key, whole bool) (hints []string) {
	var elsewhere, names []string
	for e := range s.All() {
		switch {
		case e.Service.Namespace == k.Namespace:
			names = append(names, e.Service.Name)
		case e.Service.Name == k.Name:
			elsewhere = append(elsewhere, e.Service.Namespace)
		}
	}
	if whole && !s.HasNamespace(k.Namespace) {
		hints = append(hints, "There is no namespace "+k.Namespace+".")
		if near := nearest(k.Namespace, slices.Collect(s.Namespaces())); len(near) > 0 {
			hints = append(hints, "Did you mean the namespace "+strings.Join(near, " or ")+"?")
		}
	}
	if slices.Sort(elsewhere); len(elsewhere) > 0 {
		if len(elsewhere) > 5 {
			elsewhere = append(elsewhere[:5], "others")
		}
		hints = append(hints, "There is one in namespace "+strings.Join(elsewhere, ", ")+": add -n "+elsewhere[0]+".")
	}
	if near := nearest(k.Name, names); len(near) > 0 {
		hints = append(hints, "Did you mean "+strings.Join(near, " or ")+"?")
	}
	return hints
}

// nearest gives up to three names that are a slip of the finger away from
// name, the nearest first.
func nearest(name string, names []string) []string {
	type candidate struct {
		name string
		far  int
	}
	var near []candidate
	limit := 1 + len(name)/4
	for _, n := range names {
		far := distance(name, n)
		if far > limit && len(name) >= 3 && strings.Contains(n, name) {
			far = limit
		}
		if far <= limit && n != name {
			near = append(near, candidate{n, far})
		}
	}
	slices.SortFunc(near, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name)) })
	var out []string
	for _, c := range near[:min(3, len(near))] {
		out = append(out, c.name)
	}
	return out
}

// distance counts the letters to add, remove, change or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	before, row, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			d := row[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			next[j+1] = d
		}
		before, row, next = row, next, before
	}
	return row[len(b)]
}
