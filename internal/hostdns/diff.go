package hostdns

import (
	"fmt"
	"slices"
	"strings"
)

// splitLines keeps the line ends.
func splitLines(s string) []string { return slices.Collect(strings.Lines(s)) }

// edit is one line of a comparison: ' ' in both, '-' in the old, '+' in the new.
type edit struct {
	op   byte
	line string
}

// compare finds a longest common subsequence. The files are a page long.
func compare(old, now []string) []edit {
	long := make([][]int, len(old)+1)
	for i := range long {
		long[i] = make([]int, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if old[i] == now[j] {
				long[i][j] = long[i+1][j+1] + 1
			} else {
				long[i][j] = max(long[i+1][j], long[i][j+1])
			}
		}
	}
	var out []edit
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case i < len(old) && j < len(now) && old[i] == now[j]:
			out = append(out, edit{' ', old[i]})
			i, j = i+1, j+1
		case i < len(old) && (j == len(now) || long[i+1][j] >= long[i][j+1]):
			out = append(out, edit{'-', old[i]})
			i++
		default:
			out = append(out, edit{'+', now[j]})
			j++
		}
	}
	return out
}

// around is how many lines beside a change are shown.
const around = 3

// unified is the difference as diff -u and patch know it; empty when there is
// none.
func unified(path string, old, now []byte, existed, exists bool) string {
	edits := compare(splitLines(string(old)), splitLines(string(now)))
	if existed == exists && !slices.ContainsFunc(edits, func(e edit) bool { return e.op != ' ' }) {
		return ""
	}
	from, to := path, path
	if !existed {
		from = "/dev/null"
	}
	if !exists {
		to = "/dev/null"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", from, to)
	oldLine, newLine := 1, 1
	for i := 0; i < len(edits); {
		if edits[i].op == ' ' {
			i, oldLine, newLine = i+1, oldLine+1, newLine+1
			continue
		}
		start := max(0, i-around)
		end, quiet := i, 0
		for ; end < len(edits) && quiet <= 2*around; end++ {
			if quiet++; edits[end].op != ' ' {
				quiet = 0
			}
		}
		end = min(end, end-quiet+around)
		oldFrom, newFrom := oldLine-(i-start), newLine-(i-start)
		var body strings.Builder
		var olds, news int
		for _, e := range edits[start:end] {
			body.WriteByte(e.op)
			body.WriteString(e.line)
			if !strings.HasSuffix(e.line, "\n") {
				body.WriteString("\n\\ No newline at end of file\n")
			}
			if e.op != '+' {
				olds++
			}
			if e.op != '-' {
				news++
			}
		}
		fmt.Fprintf(&b, "@@ -%s +%s @@\n%s", span(oldFrom, olds), span(newFrom, news), body.String())
		i, oldLine, newLine = end, oldFrom+olds, newFrom+news
	}
	return b.String()
}

func span(from, n int) string {
	if n == 0 {
		from--
	}
	if n == 1 {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d,%d", from, n)
}

// withoutOurs takes the lines that we added out of a file that somebody else
// changed too: what is between our marks, or, where the marks are gone, the
// lines of after that are not in before, each once.
func withoutOurs(before, after, current string) string {
	if strings.Contains(current, beginMark) {
		return cutBlocks(current)
	}
	ours := map[string]int{}
	for _, e := range compare(splitLines(before), splitLines(after)) {
		if e.op == '+' {
			ours[e.line]++
		}
	}
	var b strings.Builder
	for _, l := range splitLines(current) {
		if ours[l] > 0 && l != "\n" {
			ours[l]--
			continue
		}
		b.WriteString(l)
	}
	return b.String()
}
