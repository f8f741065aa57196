package ebpf

import (
	"errors"

	"github.com/cilium/ebpf"
)

// table is the writes to one map.
type table[K, V comparable] struct {
	putKeys []K
	puts    []V
	dels    []K
	owners  []*front // of puts
}

func (t *table[K, V]) put(k K, v V, owner *front) {
	t.putKeys, t.puts, t.owners = append(t.putKeys, k), append(t.puts, v), append(t.owners, owner)
}

func (t *table[K, V]) del(k K) { t.dels = append(t.dels, k) }

func (t *table[K, V]) empty() bool { return len(t.puts)+len(t.dels) == 0 }

// chunk is how many entries one system call writes: the time in which no other
// change gets through stays in the low milliseconds.
const chunk = 4096

// write makes the puts true. An entry that is refused marks its frontend and
// stops no other.
func (t *table[K, V]) write(m *ebpf.Map) error {
	var all error
	keep := 0
	for i := range t.puts { // not those of frontends that failed in an earlier table
		if o := t.owners[i]; o == nil || o.failed == nil {
			t.putKeys[keep], t.puts[keep], t.owners[keep] = t.putKeys[i], t.puts[i], o
			keep++
		}
	}
	for at := 0; at < keep; {
		n := min(chunk, keep-at)
		if n > 1 {
			if done, err := m.BatchUpdate(t.putKeys[at:at+n], t.puts[at:at+n], nil); err == nil && done == n {
				at += n
				continue
			}
		}
		for i := at; i < at+n; i++ {
			err := m.Put(&t.putKeys[i], &t.puts[i])
			if err == nil {
				continue
			}
			all = err
			if t.owners[i] != nil {
				t.owners[i].failed = err
			}
		}
		at += n
	}
	return all
}

func (t *table[K, V]) remove(m *ebpf.Map) error {
	var all error
	for at := 0; at < len(t.dels); {
		n := min(chunk, len(t.dels)-at)
		if n > 1 {
			if done, err := m.BatchDelete(t.dels[at:at+n], nil); err == nil && done == n {
				at += n
				continue
			}
		}
		for i := at; i < at+n; i++ {
			if err := m.Delete(&t.dels[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				all = err
			}
		}
		at += n
	}
	return all
}

// dump gives all entries of a map.
func dump[K, V comparable](m *ebpf.Map) (map[K]V, error) {
	out := map[K]V{}
	keys, values := make([]K, chunk), make([]V, chunk)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			out[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// writes is everything that a batch of changes does to the maps.
type writes struct {
	svc  table[svcKey, svcValue]
	slot table[slotKey, slotValue]
	pick table[pickKey, slotValue]
	addr table[address, addrValue]
	hits table[pickKey, uint64] // deletions only
}

func (w *writes) empty() bool {
	return w.svc.empty() && w.slot.empty() && w.pick.empty() && w.addr.empty() && w.hits.empty()
}

// flush writes in the order that is right at every moment: what a frontend
// leads to, then the frontends, then what nothing leads to any more.
func (w *writes) flush(m *store) error {
	return errors.Join(
		w.slot.write(m.slot), w.pick.write(m.pick), w.svc.write(m.svc), w.addr.write(m.addr),
		w.addr.remove(m.addr), w.svc.remove(m.svc), w.slot.remove(m.slot), w.pick.remove(m.pick), w.hits.remove(m.hits),
	)
}
