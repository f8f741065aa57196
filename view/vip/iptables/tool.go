package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// tool runs the programs of one flavour for one family.
type tool struct {
	v6         bool
	flavour    string
	saveArg    []string
	restoreArg []string
}

// patience is how long a program may take. A large table in the nft flavour
// takes minutes.
const patience = 10 * time.Minute

func command(v6 bool) string {
	if v6 {
		return "ip6tables"
	}
	return "iptables"
}

// find looks for the programs of a flavour on PATH.
func find(flavour string, v6 bool) (tool, error) {
	name := command(v6)
	t := tool{v6: v6, flavour: flavour}
	if p, err := exec.LookPath(name + "-" + flavour + "-restore"); err == nil {
		if q, err := exec.LookPath(name + "-" + flavour + "-save"); err == nil {
			t.restoreArg, t.saveArg = []string{p}, []string{q}
			return t, nil
		}
	}
	if p, err := exec.LookPath("xtables-" + flavour + "-multi"); err == nil {
		t.restoreArg, t.saveArg = []string{p, name + "-restore"}, []string{p, name + "-save"}
		return t, nil
	}
	if p, err := exec.LookPath(name + "-restore"); err == nil && flavourOf(p) == flavour {
		if q, err := exec.LookPath(name + "-save"); err == nil {
			t.restoreArg, t.saveArg = []string{p}, []string{q}
			return t, nil
		}
	}
	return tool{}, fmt.Errorf("no %s-%s-restore, xtables-%s-multi or %s-restore of that flavour is on PATH; install the package iptables", name, flavour, flavour, name)
}

// flavourOf asks a program what it is.
func flavourOf(program string) string {
	out, err := exec.Command(program, "--version").Output()
	switch {
	case err != nil:
		return ""
	case bytes.Contains(out, []byte("nf_tables")):
		return NFT
	}
	return Legacy
}

// choose gives the tools to use for a family, the best first.
func choose(flavour string, v6 bool) (out []tool, err error) {
	if flavour != Auto {
		t, err := find(flavour, v6)
		return []tool{t}, err
	}
	legacy, errLegacy := find(Legacy, v6)
	nft, errNFT := find(NFT, v6)
	switch {
	case errLegacy != nil && errNFT != nil:
		return nil, errNFT
	case errLegacy != nil:
		return []tool{nft}, nil
	case errNFT != nil:
		return []tool{legacy}, nil
	}
	// Rules in both flavours at once are hard to follow, so go where the
	// others are.
	l, n := legacy.count(), nft.count()
	usual := NFT
	if p, err := exec.LookPath(command(v6) + "-restore"); err == nil {
		usual = flavourOf(p)
	}
	if l > n || l == n && usual == Legacy {
		return []tool{legacy, nft}, nil
	}
	return []tool{nft, legacy}, nil
}

// count is the number of rules there are, and of chains of ours. It makes no
// table that is not there.
func (t tool) count() (n int) {
	out, err := t.command(context.Background(), t.saveArg).Output()
	if err != nil {
		return 0
	}
	return bytes.Count(out, []byte("\n-A ")) + bytes.Count(out, []byte("\n:KUBE-"))
}

func (t tool) command(ctx context.Context, argv []string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, argv[0], append(argv[1:len(argv):len(argv)], args...)...)
}

// save reads the two tables.
func (t tool) save(seed maphash.Seed) (*saved, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := &saved{tables: map[string]*savedTable{}}
	for _, table := range []string{tableFilter, tableNAT} {
		cmd := t.command(ctx, t.saveArg, "-t", table)
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		s, perr := parseSave(out, seed)
		if perr != nil {
			cancel() // nobody reads on
		}
		if err := errors.Join(perr, cmd.Wait()); err != nil {
			return nil, fmt.Errorf("%s -t %s: %w: %s", strings.Join(t.saveArg, " "), table, err, oneLine(complaint.String()))
		}
		if s.tables[table] != nil {
			all.tables[table] = s.tables[table]
		}
	}
	return all, nil
}

// refusal is what iptables-restore does not like.
type refusal struct {
	program string
	err     error
	says    string
	rule    string // the line, if it says which
}

func (r *refusal) Error() string {
	s := fmt.Sprintf("%s: %v: %s", r.program, r.err, oneLine(r.says))
	if r.rule != "" {
		s += " (" + r.rule + ")"
	}
	return s
}

func (r *refusal) Unwrap() error { return r.err }

// restore makes the kernel follow a text.
func (t tool) restore(what text) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	// -w: wait for others who write, 30 seconds at most: a large table takes some.
	cmd := t.command(ctx, t.restoreArg, "--noflush", "-w", "30")
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = what.to(in) // if the program ends early it says why itself
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		r := &refusal{program: strings.Join(t.restoreArg, " "), err: err, says: complaint.String()}
		if m := regexp.MustCompile(`line:? (\d+)`).FindStringSubmatch(r.says); m != nil {
			n, _ := strconv.Atoi(m[1])
			if rule := what.at(n); rule != "COMMIT" {
				r.rule = rule
			}
		}
		return r
	}
	return nil
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 500)]
}

// probe finds out with a real transaction what the kernel and the programs can
// do, in a chain that nothing leads to.
func (t tool) probe(at *place) error {
	to, any := "192.0.2.1:80", "192.0.2.1"
	if t.v6 {
		to, any = "[2001:db8::1]:80", "2001:db8::1"
	}
	try := func(nat, filter []string) error {
		put := func(w *lines, table string, rules []string) {
			w.line("*", table)
			w.line(":", chainProbe, empty)
			for _, r := range rules {
				w.line("-A ", chainProbe, " ", r)
			}
			w.line("COMMIT")
		}
		err := t.restore(func(w *lines) { put(w, tableNAT, nat); put(w, tableFilter, filter) })
		// Whatever came of it, the chain goes.
		return errors.Join(err, t.restore(func(w *lines) {
			for _, table := range []string{tableNAT, tableFilter} {
				w.line("*", table)
				removal([]string{chainProbe}, w)
				w.line("COMMIT")
			}
		}))
	}
	need := []string{
		"-d " + any + " -p tcp -m comment --comment \"a test\" -m tcp --dport 80 -m statistic --mode random --probability 0.5 -j RETURN",
		"-m addrtype --dst-type LOCAL -j RETURN",
		fmt.Sprintf("-m mark ! --mark %#x/%#x -j RETURN", at.mark, at.mark),
		fmt.Sprintf("-j MARK --or-mark %#x", at.mark),
		"-p udp -m udp -j DNAT --to-destination " + to,
		"-j MASQUERADE",
	}
	needFilter := []string{"-m conntrack --ctstate NEW -j REJECT", "-p tcp -j REJECT --reject-with tcp-reset", "-m conntrack --ctstate INVALID -j DROP"}
	recent := "-m recent --rcheck --seconds 10 --reap --name KUBE-AFF-TEST -j RETURN"
	fully := "-j MASQUERADE --random-fully"
	sctp := "-p sctp -m sctp -j DNAT --to-destination " + to
	at.protocols = map[catalog.Protocol]bool{catalog.TCP: true, catalog.UDP: true}
	at.random, at.recent, at.protocols[catalog.SCTP] = true, true, true
	if try(append(need[:len(need):len(need)], recent, fully, sctp), needFilter) == nil {
		return nil
	}
	if err := try(need, needFilter); err != nil {
		return err
	}
	at.recent = try([]string{recent}, nil) == nil
	at.random = try([]string{fully}, nil) == nil
	at.protocols[catalog.SCTP] = try([]string{sctp}, nil) == nil
	return nil
}
