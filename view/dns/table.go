package dns

import (
	"hash/maphash"
	"sync/atomic"
)

// table is an open-addressing hash table with one writer and any number of
// readers that take no lock. A slot is an atomic pointer to an immutable node;
// replacing a value is one store. Resizing builds new slots beside the old
// ones; readers keep the slots they started with.
//
// A reader that passes a free slot while its key is deleted and put back there
// misses it: the answer is that of the moment between, when it was gone.
type table[K comparable, V any] struct {
	seed  maphash.Seed
	hash  func(maphash.Seed, K) uint64
	slots atomic.Pointer[[]slot[K, V]]
	tomb  *node[K, V] // marks a slot whose key is gone, so that probing goes on

	live, used int // the writer's: keys, and slots that are not nil
}

type slot[K comparable, V any] struct{ p atomic.Pointer[node[K, V]] }

type node[K comparable, V any] struct {
	key K
	val V
}

const minSlots = 16

func newTable[K comparable, V any](hash func(maphash.Seed, K) uint64) *table[K, V] {
	t := &table[K, V]{seed: maphash.MakeSeed(), hash: hash, tomb: &node[K, V]{}}
	s := make([]slot[K, V], minSlots)
	t.slots.Store(&s)
	return t
}

// get gives the value of a key, nil if there is none. It must not be changed.
func (t *table[K, V]) get(k K) *V {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := t.hash(t.seed, k); ; i++ {
		n := slots[i&mask].p.Load()
		if n == nil {
			return nil
		}
		if n.key == k && n != t.tomb {
			return &n.val
		}
	}
}

// lookup is get for a key that is still bytes of a packet.
func lookup[V any](t *table[string, V], k []byte) *V {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := maphash.Bytes(t.seed, k); ; i++ {
		n := slots[i&mask].p.Load()
		if n == nil {
			return nil
		}
		if n.key == string(k) && n != t.tomb {
			return &n.val
		}
	}
}

// put sets the value of a key.
func (t *table[K, V]) put(k K, v V) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	next := &node[K, V]{k, v}
	var free *slot[K, V]
	for i := t.hash(t.seed, k); ; i++ {
		s := &slots[i&mask]
		n := s.p.Load()
		switch {
		case n == nil:
			if free != nil {
				free.p.Store(next)
				t.live++
				return
			}
			s.p.Store(next)
			t.live++
			t.used++
			if t.used*2 > len(slots) {
				t.resize()
			}
			return
		case n == t.tomb:
			if free == nil {
				free = s
			}
		case n.key == k:
			s.p.Store(next)
			return
		}
	}
}

// del removes a key.
func (t *table[K, V]) del(k K) {
	slots := *t.slots.Load()
	mask := uint64(len(slots) - 1)
	for i := t.hash(t.seed, k); ; i++ {
		s := &slots[i&mask]
		n := s.p.Load()
		if n == nil {
			return
		}
		if n.key != k || n == t.tomb {
			continue
		}
		s.p.Store(t.tomb)
		t.live--
		if len(slots) > minSlots && t.live*8 < len(slots) {
			t.resize()
		}
		return
	}
}

// resize moves the live keys to slots that are at most a third full.
func (t *table[K, V]) resize() {
	size := minSlots
	for size < t.live*3 {
		size *= 2
	}
	old := *t.slots.Load()
	slots := make([]slot[K, V], size)
	mask := uint64(size - 1)
	for i := range old {
		n := old[i].p.Load()
		if n == nil || n == t.tomb {
			continue
		}
		j := t.hash(t.seed, n.key)
		for slots[j&mask].p.Load() != nil {
			j++
		}
		slots[j&mask].p.Store(n)
	}
	t.used = t.live
	t.slots.Store(&slots)
}

// all calls f for every key, in no order.
func (t *table[K, V]) all(f func(K, *V)) {
	slots := *t.slots.Load()
	for i := range slots {
		if n := slots[i].p.Load(); n != nil && n != t.tomb {
			f(n.key, &n.val)
		}
	}
}
