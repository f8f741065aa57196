package iptables

import (
	"bufio"
	"io"
	"iter"
	"slices"
)

// text is the input of iptables-restore: a function, so that the text of a
// large table need not be in memory at once, and so that a line of it can be
// found again when the program complains about it.
type text func(w *lines)

// lines writes lines. Errors come out of the program that reads them.
type lines struct{ *bufio.Writer }

func (w *lines) line(parts ...string) {
	for _, p := range parts {
		_, _ = w.WriteString(p)
	}
	_ = w.WriteByte('\n')
}

func (t text) to(w io.Writer) error {
	b := lines{bufio.NewWriterSize(w, 64<<10)}
	t(&b)
	return b.Flush()
}

// at gives line n, from 1.
func (t text) at(n int) string {
	p := picker{want: n, line: 1}
	_ = t.to(&p)
	return string(p.found)
}

type picker struct {
	want, line int
	found      []byte
}

func (p *picker) Write(b []byte) (int, error) {
	for _, c := range b {
		switch {
		case c == '\n':
			p.line++
		case p.line == p.want:
			p.found = append(p.found, c)
		}
	}
	return len(b), nil
}

const empty = " - [0:0]"

// collect gives the rules that ports have in shared chains, and for those that
// several may have the number of users.
func collect(all iter.Seq[rules]) (lists [sharedCount][]string, refs [sharedCount]map[string]int) {
	for s := range refs {
		refs[s] = map[string]int{}
	}
	for r := range all {
		for s := range sharedCount {
			for _, rule := range r.shared[s] {
				if s.counted() {
					if refs[s][rule]++; refs[s][rule] > 1 {
						continue
					}
				}
				lists[s] = append(lists[s], rule)
			}
		}
	}
	return lists, refs
}

// full writes everything anew. all yields the rules of every port, always the
// same; lists are those of shared chains; was is what is there.
func (at *place) full(all iter.Seq[rules], lists *[sharedCount][]string, was *saved) text {
	return func(w *lines) {
		fullTable(w, tableFilter, at.filterChains(), func(func(rules) bool) {}, lists, was)
		fullTable(w, tableNAT, at.natChains(), all, lists, was)
	}
}

func fullTable(w *lines, table string, fixed []fixedChain, all iter.Seq[rules], lists *[sharedCount][]string, was *saved) {
	w.line("*", table)
	known := map[string]bool{}
	for _, c := range fixed {
		w.line(":", c.name, empty)
		known[c.name] = true
	}
	for r := range all {
		for _, c := range r.chains {
			w.line(":", c.name, empty)
			known[c.name] = true
			for _, rule := range c.rules {
				w.line("-A ", c.name, " ", rule)
			}
		}
	}
	for _, c := range fixed {
		for _, rule := range c.head {
			w.line("-A ", c.name, " ", rule)
		}
		for _, s := range c.of {
			for _, rule := range lists[s] {
				w.line("-A ", c.name, " ", rule)
			}
		}
		for _, rule := range c.tail {
			w.line("-A ", c.name, " ", rule)
		}
	}
	for _, j := range jumps(table) {
		if !was.jumps(table, j) {
			w.line("-I ", j.from, " ", j.match, " -j ", j.to)
		}
	}
	was.stale(table, known, w)
	w.line("COMMIT")
}

// delta writes what differs between the rules before and after, of some ports.
// refs counts the users of the rules that several have.
type delta struct {
	put     []chain
	gone    []string
	added   [sharedCount][]string
	removed [sharedCount][]string
}

// size is how many rules of shared chains change: each makes iptables search
// the whole chain.
func (d *delta) size() (n int) {
	for s := range sharedCount {
		n += len(d.added[s]) + len(d.removed[s])
	}
	return n
}

func (d *delta) empty() bool { return len(d.put) == 0 && len(d.gone) == 0 && d.size() == 0 }

// add takes the rules of one port before and after.
func (d *delta) add(old, now rules) {
	for _, c := range now.chains {
		i := slices.IndexFunc(old.chains, func(o chain) bool { return o.name == c.name })
		if i < 0 || !slices.Equal(old.chains[i].rules, c.rules) {
			d.put = append(d.put, c)
		}
	}
	for _, o := range old.chains {
		if !slices.ContainsFunc(now.chains, func(c chain) bool { return c.name == o.name }) {
			d.gone = append(d.gone, o.name)
		}
	}
	for s := range sharedCount {
		for _, r := range now.shared[s] {
			if !slices.Contains(old.shared[s], r) {
				d.added[s] = append(d.added[s], r)
			}
		}
		for _, r := range old.shared[s] {
			if !slices.Contains(now.shared[s], r) {
				d.removed[s] = append(d.removed[s], r)
			}
		}
	}
}

// settle leaves out what others keep, or have already, and what one port gives
// up and another takes.
func (d *delta) settle(refs *[sharedCount]map[string]int) {
	for s := range sharedCount {
		if !s.counted() {
			d.added[s], d.removed[s] = without(d.added[s], d.removed[s]), without(d.removed[s], d.added[s])
			continue
		}
		before := map[string]int{}
		note := func(r string, by int) {
			if _, ok := before[r]; !ok {
				before[r] = refs[s][r]
			}
			if refs[s][r] += by; refs[s][r] == 0 {
				delete(refs[s], r)
			}
		}
		for _, r := range d.added[s] {
			note(r, 1)
		}
		for _, r := range d.removed[s] {
			note(r, -1)
		}
		d.added[s], d.removed[s] = nil, nil
		for r, n := range before {
			switch {
			case n == 0 && refs[s][r] > 0:
				d.added[s] = append(d.added[s], r)
			case n > 0 && refs[s][r] == 0:
				d.removed[s] = append(d.removed[s], r)
			}
		}
		slices.Sort(d.added[s])
		slices.Sort(d.removed[s])
	}
}

func without(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// text writes the difference: rejections come before translations go, and go
// after translations have come.
func (d *delta) text(w *lines) {
	filter := func(lists *[sharedCount][]string, how string) {
		begun := false
		for s := filterServices; s < sharedCount; s++ {
			for _, r := range lists[s] {
				if !begun {
					w.line("*", tableFilter)
					begun = true
				}
				w.line(how, s.chain(), " ", r)
			}
		}
		if begun {
			w.line("COMMIT")
		}
	}
	filter(&d.added, "-I ")
	d.nat(w)
	filter(&d.removed, "-D ")
}

func (d *delta) nat(w *lines) {
	if len(d.put)+len(d.gone)+len(d.added[natServices])+len(d.removed[natServices])+len(d.added[natNodePorts])+len(d.removed[natNodePorts]) == 0 {
		return
	}
	w.line("*", tableNAT)
	for _, c := range d.put {
		w.line(":", c.name, empty)
	}
	for _, name := range d.gone {
		w.line(":", name, empty)
	}
	for _, c := range d.put {
		for _, r := range c.rules {
			w.line("-A ", c.name, " ", r)
		}
	}
	for _, s := range []shared{natServices, natNodePorts} {
		for _, r := range d.removed[s] {
			w.line("-D ", s.chain(), " ", r)
		}
		for _, r := range d.added[s] {
			w.line("-I ", s.chain(), " ", r)
		}
	}
	// One that jumps goes before the one it jumps to.
	for _, name := range d.gone {
		w.line("-X ", name)
	}
	w.line("COMMIT")
}
