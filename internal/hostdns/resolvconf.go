package hostdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxNameservers is how many the C libraries look at.
const maxNameservers = 3

// The lines around ours, in files that are others' too.
const (
	beginMark = "# fingerpost begin: 'fingerpost dns uninstall' takes these lines out\n"
	endMark   = "# fingerpost end\n"
)

// Nameservers reads the nameserver lines of a resolv.conf(5).
func Nameservers(text string) []netip.Addr {
	var all []netip.Addr
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// searchList gives the search list that counts: the last one.
func searchList(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "search" || f[0] == "domain") {
			list = f[1:]
			if f[0] == "domain" {
				list = f[1:2]
			}
		}
	}
	return list
}

// editResolvConf puts the server first and leaves every line that was there.
// Of search lines the last one counts, so ours comes last.
func editResolvConf(text string, w *Want) (edited string, notes []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%snameserver %s\n%s", beginMark, w.Server.Addr(), endMark)
	b.WriteString(text)
	rest := slices.DeleteFunc(Nameservers(text), func(a netip.Addr) bool { return a == w.Server.Addr() })
	if len(rest) >= maxNameservers {
		notes = append(notes, fmt.Sprintf("Programs look at %d name servers: %s stays in the file, but is not asked any more.", maxNameservers, rest[maxNameservers-1]))
	}
	if len(rest) == 0 {
		notes = append(notes, "There was no other name server: nobody answers while the server is down.")
	}
	if list := w.search(); len(list) > 0 {
		if text != "" && !strings.HasSuffix(text, "\n") {
			b.WriteByte('\n')
		}
		for _, s := range searchList(text) {
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
		fmt.Fprintf(&b, "%ssearch %s\n%s", beginMark, strings.Join(list, " "), endMark)
	}
	return b.String(), notes
}

// cutBlocks takes out what stands between our marks.
func cutBlocks(text string) string {
	for {
		before, rest, ok := strings.Cut(text, beginMark)
		if !ok {
			return text
		}
		_, after, ok := strings.Cut(rest, endMark)
		if !ok {
			return before + rest // somebody took the end: what is whose is not known
		}
		text = before + after
	}
}
