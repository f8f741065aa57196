package iptables

import (
	"bufio"
	"hash/maphash"
	"io"
	"slices"
	"strings"
)

// saved is what iptables-save says of the tables that matter here: of our
// chains, and of everybody's rules that lead to them.
type saved struct {
	tables map[string]*savedTable
}

type savedTable struct {
	chains map[string]*savedChain // ours
	// into are the rules of chains that are not ours which lead to ours, as
	// they are written, without "-A ".
	into []reference
}

type savedChain struct {
	rules int
	sum   uint64 // of the rules' text
}

type reference struct {
	from, to, rule string
}

func (r reference) builtin() bool {
	switch r.from {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}

// parseSave reads the output of iptables-save. It takes anything: what it does
// not understand is not ours.
func parseSave(in io.Reader, seed maphash.Seed) (*saved, error) {
	s := &saved{tables: map[string]*savedTable{}}
	var table *savedTable
	var last string // the chain of the line before: they come in groups
	var chain *savedChain
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		line := sc.Bytes()
		if len(line) < 2 {
			continue
		}
		switch line[0] {
		case '*':
			name := string(line[1:])
			if s.tables[name] == nil {
				s.tables[name] = &savedTable{chains: map[string]*savedChain{}}
			}
			table, last, chain = s.tables[name], "", nil
		case ':':
			name, _, _ := strings.Cut(string(line[1:]), " ")
			if table != nil && ours(name) {
				table.chains[name] = &savedChain{}
			}
		case '-':
			rest, ok := strings.CutPrefix(string(line), "-A ")
			if !ok || table == nil {
				continue
			}
			name, rule, _ := strings.Cut(rest, " ")
			if name != last || chain == nil {
				last, chain = name, table.chains[name]
			}
			if chain != nil {
				chain.rules++
				chain.sum = chain.sum*31 + maphash.String(seed, rule)
				continue
			}
			if to := target(rule); ours(to) {
				table.into = append(table.into, reference{name, to, rule})
			}
		}
	}
	return s, sc.Err()
}

// target gives the chain that a rule jumps or goes to.
func target(rule string) string {
	// Comments may hold anything, but the target comes after them; what comes
	// after a jump to a chain is nothing.
	for _, opt := range []string{"-j ", "-g "} {
		if i := strings.LastIndex(rule, opt); i == 0 || i > 0 && rule[i-1] == ' ' {
			word, _, _ := strings.Cut(rule[i+len(opt):], " ")
			return word
		}
	}
	return ""
}

// jumps says whether a jump is there, once.
func (s *saved) jumps(table string, j jump) bool {
	if s == nil || s.tables[table] == nil {
		return false
	}
	n := 0
	for _, r := range s.tables[table].into {
		if r.from == j.from && r.to == j.to {
			n++
		}
	}
	return n > 0
}

// stale writes the removal of chains that nobody wants any more, and of jumps
// from the built-in chains that we would not make.
func (s *saved) stale(table string, known map[string]bool, w *lines) {
	if s == nil || s.tables[table] == nil {
		return
	}
	t := s.tables[table]
	used := map[string]bool{}
	for _, r := range t.into {
		if known[r.to] {
			continue
		}
		if r.builtin() {
			w.line("-D ", r.from, " ", r.rule)
		} else {
			used[r.to] = true // by somebody else
		}
	}
	gone := make([]string, 0, len(t.chains))
	for name := range t.chains {
		if !known[name] && !used[name] {
			gone = append(gone, name)
		}
	}
	removal(gone, w)
}

// removal empties chains and deletes them, which may lead to one another.
func removal(names []string, w *lines) {
	slices.Sort(names)
	for _, name := range names {
		w.line(":", name, empty)
	}
	for _, name := range names {
		w.line("-X ", name)
	}
}

// clear writes the removal of everything of ours from a table.
func (t *savedTable) clear(table string, w *lines) {
	keep := map[string]bool{}
	w.line("*", table)
	for _, r := range t.into {
		if r.builtin() {
			w.line("-D ", r.from, " ", r.rule)
		} else {
			keep[r.to] = true
		}
	}
	var gone []string
	for name := range t.chains {
		if !keep[name] {
			gone = append(gone, name)
		}
	}
	// A chain that somebody else uses keeps what it leads to; those are only
	// KUBE-MARK-MASQ and its like, which lead nowhere.
	removal(gone, w)
	w.line("COMMIT")
}
