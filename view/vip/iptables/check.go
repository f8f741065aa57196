package iptables

import (
	"time"
)

// expected gives the number of rules of every chain.
func (f *family) expected() map[string]map[string]int {
	out := map[string]map[string]int{tableFilter: {}, tableNAT: {}}
	of := map[shared]int{}
	for s := range sharedCount {
		if s.counted() {
			of[s] = len(f.refs[s])
		}
	}
	for r := range f.all() {
		for _, c := range r.chains {
			out[tableNAT][c.name] = len(c.rules)
		}
		for s := range sharedCount {
			if !s.counted() {
				of[s] += len(r.shared[s])
			}
		}
	}
	for table, fixed := range map[string][]fixedChain{tableFilter: f.place.filterChains(), tableNAT: f.place.natChains()} {
		for _, c := range fixed {
			n := len(c.head) + len(c.tail)
			for _, s := range c.of {
				n += of[s]
			}
			out[table][c.name] = n
		}
	}
	return out
}

// note remembers which chains we have changed, so that they are not taken for
// changed by others.
func (f *family) note(d *delta) {
	for _, c := range d.put {
		f.changed[tableNAT+c.name] = true
	}
	for _, name := range d.gone {
		delete(f.sums, tableNAT+name)
		delete(f.changed, tableNAT+name)
	}
	for s := range sharedCount {
		if len(d.added[s])+len(d.removed[s]) == 0 {
			continue
		}
		table := tableFilter
		if s == natServices || s == natNodePorts {
			table = tableNAT
		}
		f.changed[table+s.chain()] = true
	}
}

// due says whether it is time to compare with the kernel: because its tables
// are of another size than after our last change, or by the clock.
func (f *family) due(now time.Time) bool {
	if !f.begun || now.Before(f.soonest) {
		return false
	}
	return !now.Before(f.checkAt) || f.watch.moved()
}

// check compares the kernel's tables with what they should be. It says what
// is wrong, "" if nothing.
func (f *family) check(now time.Time, clock func() time.Time) (string, error) {
	f.watch.mark()
	s, err := f.tool.save(f.seed)
	if err != nil {
		return "", err
	}
	defer func() {
		took := clock().Sub(now)
		f.checkAt = now.Add(max(f.cfg.Resync, 50*took))
		f.soonest = now.Add(max(0, 10*took))
	}()
	for table, chains := range f.expected() {
		t := s.tables[table]
		if t == nil {
			t = &savedTable{}
		}
		for name, want := range chains {
			c, key := t.chains[name], table+name
			switch known, ok := f.sums[key]; {
			case c == nil:
				return "chain " + name + " of table " + table + " is gone", nil
			case c.rules != want:
				return "chain " + name + " of table " + table + " has other rules", nil
			case ok && !f.changed[key] && known.text != c.sum:
				return "chain " + name + " of table " + table + " has been changed", nil
			}
			f.sums[key] = sum{c.rules, c.sum}
		}
		for name := range t.chains {
			if _, ok := chains[name]; !ok && !t.leads(name) {
				return "chain " + name + " of table " + table + " is not ours any more", nil
			}
		}
		for _, j := range jumps(table) {
			if !s.jumps(table, j) {
				return "the jump from " + j.from + " to " + j.to + " of table " + table + " is gone", nil
			}
		}
	}
	clear(f.changed)
	return "", nil
}

// leads says whether somebody else's rule leads to a chain.
func (t *savedTable) leads(name string) bool {
	for _, r := range t.into {
		if r.to == name && !r.builtin() {
			return true
		}
	}
	return false
}
