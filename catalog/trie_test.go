package catalog

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// op is one step of a random history.
type op struct {
	key int
	del bool
}

// weak makes many keys collide, wholly and in the low bits.
func weak(k int) uint64 {
	switch k % 4 {
	case 0:
		return 7 // all of these are one hash
	case 1:
		return uint64(k%3)<<60 | 7 // agree in all bits but the last four, also with the above
	case 2:
		return uint64(k) << 40 // agree in the low bits
	default:
		return uint64(k) * 0x9e3779b97f4a7c15
	}
}

// checkHistory plays ops on a trie and on a map, keeps every trie there ever
// was, and compares them all at the end: that finds both wrong answers and
// nodes that were changed after they were shared.
func checkHistory(t *testing.T, ops []op, hash func(int) uint64) {
	t.Helper()
	type version struct {
		root *node[int, int]
		want map[int]int
	}
	var now version
	now.want = map[int]int{}
	history := []version{now}
	for i, o := range ops {
		next := version{want: maps.Clone(now.want)}
		_, had := next.want[o.key]
		if o.del {
			root, removed := now.root.del(hash(o.key), o.key, 0)
			if removed != had {
				t.Fatalf("op %d: del %d says removed %t, the map says %t", i, o.key, removed, had)
			}
			if !had && root != now.root {
				t.Fatalf("op %d: del of the absent %d made a new trie", i, o.key)
			}
			next.root = root
			delete(next.want, o.key)
		} else {
			root, added := now.root.put(leaf[int, int]{hash(o.key), o.key, i}, 0)
			if added == had {
				t.Fatalf("op %d: put %d says added %t, the map says %t", i, o.key, added, !had)
			}
			next.root = root
			next.want[o.key] = i
		}
		now = next
		history = append(history, now)
	}
	for i, v := range history {
		if got := collect(t, v.root); !maps.Equal(got, v.want) {
			t.Fatalf("version %d: got %v, want %v", i, got, v.want)
		}
		checkShape(t, v.root, 0)
	}
}

func collect(t *testing.T, n *node[int, int]) map[int]int {
	t.Helper()
	got := map[int]int{}
	n.walk(func(k, v int) bool {
		if _, twice := got[k]; twice {
			t.Fatalf("key %d is in the trie twice", k)
		}
		got[k] = v
		return true
	})
	return got
}

// checkShape wants no empty node, and no branch that leads to one leaf only:
// after deletes look-ups are as short as if the deleted had never been there.
func checkShape(t *testing.T, n *node[int, int], shift int) {
	t.Helper()
	switch {
	case n == nil:
	case n.bitmap == 0 && len(n.leaf) == 0:
		t.Fatalf("an empty leaf at shift %d", shift)
	case n.bitmap != 0 && len(n.leaf) != 0:
		t.Fatalf("a branch with leaves at shift %d", shift)
	case n.bitmap != 0 && len(n.children) == 1 && len(n.children[0].leaf) == 1:
		t.Fatalf("a branch with one leaf at shift %d", shift)
	}
	if n != nil {
		for _, c := range n.children {
			checkShape(t, c, shift+trieBits)
		}
	}
}

func TestTrieAgainstMap(t *testing.T) {
	hashes := map[string]func(int) uint64{
		"spread":  func(k int) uint64 { return uint64(k) * 0x9e3779b97f4a7c15 },
		"weak":    weak,
		"one":     func(int) uint64 { return 42 },
		"low":     func(k int) uint64 { return uint64(k) },
		"highest": func(k int) uint64 { return uint64(k) << 59 },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(30) {
				r := rand.New(rand.NewPCG(seed, 1))
				ops := make([]op, 200)
				for i := range ops {
					ops[i] = op{key: r.IntN(40), del: r.IntN(5) < 2}
				}
				checkHistory(t, ops, hash)
			}
		})
	}
}

func FuzzTrie(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x81, 0x82, 0x83})
	f.Add([]byte{4, 8, 12, 1, 5, 9, 0x84, 0x81, 13, 0x88})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 300 {
			b = b[:300]
		}
		ops := make([]op, len(b))
		for i, x := range b {
			ops[i] = op{key: int(x & 0x7f), del: x&0x80 != 0}
		}
		checkHistory(t, ops, weak)
	})
}

func TestTrieByKey(t *testing.T) {
	var tr trie[string, int]
	want := map[string]int{}
	r := rand.New(rand.NewPCG(3, 3))
	for i := range 5000 {
		k := string(rune('a'+r.IntN(26))) + string(rune('a'+r.IntN(26)))
		if r.IntN(3) == 0 {
			tr = tr.del(k)
			delete(want, k)
		} else {
			tr = tr.put(k, i)
			want[k] = i
		}
		if tr.size != len(want) {
			t.Fatalf("step %d: size %d, want %d", i, tr.size, len(want))
		}
		got, ok := tr.get(k)
		if w, has := want[k]; ok != has || got != w {
			t.Fatalf("step %d: get %s = %d %t, want %d %t", i, k, got, ok, w, has)
		}
	}
	if got := maps.Collect(tr.all()); !maps.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for range tr.all() {
		break // stopping early must not panic
	}
	if _, ok := tr.get("nobody"); ok {
		t.Fatal("found a key that was never put")
	}
}
