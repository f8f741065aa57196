package catalog

import (
	"hash/maphash"
	"iter"
	"math/bits"
)

// trie is a persistent hash trie: put and del return a new trie that shares
// all untouched nodes with the old one, so that a snapshot costs the path to
// one key. The zero value is empty.
type trie[K comparable, V any] struct {
	root *node[K, V]
	size int
}

const (
	trieBits  = 5
	trieDepth = 60 // shifts at and beyond this hold colliding hashes in a list
)

var trieSeed = maphash.MakeSeed()

// node is either a branch (children, one per set bit of bitmap) or, with
// bitmap 0, a leaf list of entries whose hashes agree this far.
type node[K comparable, V any] struct {
	bitmap   uint32
	children []*node[K, V]
	leaf     []leaf[K, V]
}

type leaf[K comparable, V any] struct {
	hash uint64
	key  K
	val  V
}

func (t trie[K, V]) get(k K) (v V, ok bool) {
	h := maphash.Comparable(trieSeed, k)
	n := t.root
	for shift := 0; n != nil; shift += trieBits {
		if n.bitmap == 0 {
			for i := range n.leaf {
				if n.leaf[i].key == k {
					return n.leaf[i].val, true
				}
			}
			return v, false
		}
		bit := uint32(1) << ((h >> shift) & (1<<trieBits - 1))
		if n.bitmap&bit == 0 {
			return v, false
		}
		n = n.children[bits.OnesCount32(n.bitmap&(bit-1))]
	}
	return v, false
}

func (t trie[K, V]) put(k K, v V) trie[K, V] {
	root, added := t.root.put(leaf[K, V]{maphash.Comparable(trieSeed, k), k, v}, 0)
	if added {
		return trie[K, V]{root, t.size + 1}
	}
	return trie[K, V]{root, t.size}
}

func (t trie[K, V]) del(k K) trie[K, V] {
	root, removed := t.root.del(maphash.Comparable(trieSeed, k), k, 0)
	if !removed {
		return t
	}
	return trie[K, V]{root, t.size - 1}
}

func (t trie[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.root.walk(yield) }
}

func (n *node[K, V]) walk(yield func(K, V) bool) bool {
	if n == nil {
		return true
	}
	for i := range n.leaf {
		if !yield(n.leaf[i].key, n.leaf[i].val) {
			return false
		}
	}
	for _, c := range n.children {
		if !c.walk(yield) {
			return false
		}
	}
	return true
}

func (n *node[K, V]) put(l leaf[K, V], shift int) (_ *node[K, V], added bool) {
	if n == nil {
		return &node[K, V]{leaf: []leaf[K, V]{l}}, true
	}
	if n.bitmap == 0 {
		for i := range n.leaf {
			if n.leaf[i].key == l.key {
				c := append([]leaf[K, V](nil), n.leaf...)
				c[i] = l
				return &node[K, V]{leaf: c}, false
			}
		}
		if n.leaf[0].hash == l.hash || shift >= trieDepth {
			return &node[K, V]{leaf: append(append([]leaf[K, V](nil), n.leaf...), l)}, true
		}
		// Split: the old leaf list moves one level down, then l is put beside it.
		bit := uint32(1) << ((n.leaf[0].hash >> shift) & (1<<trieBits - 1))
		branch := &node[K, V]{bitmap: bit, children: []*node[K, V]{n}}
		return branch.put(l, shift)
	}
	bit := uint32(1) << ((l.hash >> shift) & (1<<trieBits - 1))
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	if n.bitmap&bit == 0 {
		c := make([]*node[K, V], len(n.children)+1)
		copy(c, n.children[:i])
		c[i] = &node[K, V]{leaf: []leaf[K, V]{l}}
		copy(c[i+1:], n.children[i:])
		return &node[K, V]{bitmap: n.bitmap | bit, children: c}, true
	}
	child, added := n.children[i].put(l, shift+trieBits)
	c := append([]*node[K, V](nil), n.children...)
	c[i] = child
	return &node[K, V]{bitmap: n.bitmap, children: c}, added
}

func (n *node[K, V]) del(h uint64, k K, shift int) (_ *node[K, V], removed bool) {
	if n == nil {
		return nil, false
	}
	if n.bitmap == 0 {
		for i := range n.leaf {
			if n.leaf[i].key == k {
				if len(n.leaf) == 1 {
					return nil, true
				}
				c := append([]leaf[K, V](nil), n.leaf[:i]...)
				return &node[K, V]{leaf: append(c, n.leaf[i+1:]...)}, true
			}
		}
		return n, false
	}
	bit := uint32(1) << ((h >> shift) & (1<<trieBits - 1))
	if n.bitmap&bit == 0 {
		return n, false
	}
	i := bits.OnesCount32(n.bitmap & (bit - 1))
	child, removed := n.children[i].del(h, k, shift+trieBits)
	if !removed {
		return n, false
	}
	if child != nil {
		// A branch with one leaf below it is that leaf: keeps look-ups short.
		if len(n.children) == 1 && child.bitmap == 0 {
			return child, true
		}
		c := append([]*node[K, V](nil), n.children...)
		c[i] = child
		return &node[K, V]{bitmap: n.bitmap, children: c}, true
	}
	if len(n.children) == 1 {
		return nil, true
	}
	if len(n.children) == 2 {
		if rest := n.children[1-i]; rest.bitmap == 0 {
			return rest, true
		}
	}
	c := make([]*node[K, V], 0, len(n.children)-1)
	c = append(append(c, n.children[:i]...), n.children[i+1:]...)
	return &node[K, V]{bitmap: n.bitmap &^ bit, children: c}, true
}
