package viptest

import (
	"embed"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fingerpost/fingerpost/internal/script"
)

//go:embed testdata
var files embed.FS

// Suite runs the scripts against a driver.
type Suite struct {
	// Can are the words of require that the driver fulfils.
	Can []string
	// Config changes what the driver is told of its node. nil: nothing.
	Config func(*NodeConfig)
	// Prepare is called once, in the namespace of node a. nil: nothing.
	Prepare func() error
	// After is called in that namespace when the driver has stopped, with the
	// catalog emptied: what the driver should not leave behind.
	After func(t *testing.T)
	// Each is called in that namespace after each change: what must hold at all
	// times, such as that the tools of others can list the rules. nil: nothing.
	Each func() error
	// Only limits the run to files whose name has this in it.
	Only string
	// Variant is NodeConfig.Variant.
	Variant string
	// Skip are scripts, by name without .txt, that the driver is known to fail,
	// with the reason.
	Skip map[string]string
	// Extra has scripts (*.txt at its top) of the driver's own, played after
	// the others: faults that only it can have. nil: none.
	Extra fs.FS
	// NoScripts leaves the scripts out: a world of its own for what follows may
	// run beside theirs.
	NoScripts bool
	// Random is how many batches of random changes follow the scripts; 0: none.
	Random int
	// Seed of the random run; 0: one by the clock, which is logged.
	Seed uint64
	// Churn ends the run with that many changes of endpoints, as fast as the
	// driver takes them, while connections are made; 0: none.
	Churn int
}

// run is one script under way.
type run struct {
	root  testing.TB // of the world and the driver
	t     *testing.T
	s     *Suite
	w     *world
	m     *model
	cfg   NodeConfig
	child *child
	batch []op
	held  bool
	conns map[string]*held
	notes map[string]string // who answered
	want  string            // of the step

	changed bool // the driver has been told something since Each was called
}

// held is a connection that stays.
type held struct {
	from        *host
	network, to string
	c           net.Conn // nil: the driver closed it, and nobody answers at present
}

func (h *held) close() {
	if h.c != nil {
		_ = h.c.Close()
		h.c = nil
	}
}

func (s *Suite) can(word string) bool { return slices.Contains(s.Can, word) }

// Run plays every script. The world and the driver are made once, the catalog
// is emptied between scripts.
func (s *Suite) Run(t *testing.T) {
	w := newWorld(t)
	cfg := nodeConfig(t.TempDir())
	cfg.Variant = s.Variant
	if s.Config != nil {
		s.Config(&cfg)
	}
	if s.Prepare != nil {
		w.hosts["a"].must(w.hosts["a"].in(s.Prepare))
	}
	finish := func(*testing.T, *run) {}
	if early := !s.NoScripts && s.can("early") && strings.Contains("early", s.Only); early {
		finish = w.early(t)
	}
	r := &run{root: t, s: s, w: w, cfg: cfg, child: spawn(t, w.hosts["a"], cfg)}
	if !s.NoScripts {
		t.Run("early", func(t *testing.T) { finish(t, r) })
		r.scripts(t)
	}
	if s.Random > 0 && strings.Contains("random", s.Only) {
		t.Run("random", r.random)
	}
	if s.Churn > 0 && strings.Contains("churn", s.Only) {
		t.Run("churn", r.churn)
	}
	r.child.stop(syscall.SIGTERM)
	if s.After != nil {
		_ = w.hosts["a"].in(func() error { s.After(t); return nil })
	}
}

// scripts plays those of all drivers, then those of this one.
func (r *run) scripts(t *testing.T) {
	common, err := fs.Sub(files, "testdata")
	if err != nil {
		t.Fatal(err)
	}
	r.dir(t, common, filepath.Join("..", "viptest", "testdata"))
	if r.s.Extra != nil {
		r.dir(t, r.s.Extra, "testdata")
	}
}

// dir plays the scripts of a directory; on disk it is at where.
func (r *run) dir(t *testing.T, files fs.FS, where string) {
	entries, err := fs.Glob(files, "*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range entries {
		if strings.Contains(name, r.s.Only) {
			t.Run(strings.TrimSuffix(name, ".txt"), func(t *testing.T) { r.play(t, files, name, where) })
		}
	}
}

// begin makes the run one of t, with an empty catalog; end empties it again.
func (r *run) begin(t *testing.T) (end func()) {
	r.t, r.m, r.conns, r.notes, r.batch, r.held = t, newModel(), map[string]*held{}, map[string]string{}, nil, false
	return func() {
		for _, h := range r.conns {
			h.close()
		}
		if err := r.child.apply(r.m.clear()); err != nil {
			t.Error(err)
		}
		// Conntrack remembers closed connections for minutes. A later one from
		// the same port to the same endpoint would leave with another port.
		// Without conntrack there is nothing to forget.
		_ = r.w.hosts["a"].in(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	}
}

func (r *run) play(t *testing.T, files fs.FS, name, where string) {
	if why := r.s.Skip[strings.TrimSuffix(name, ".txt")]; why != "" {
		t.Skip(why)
	}
	text, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := script.Parse(name, text)
	if err != nil {
		t.Fatal(err)
	}
	if !r.s.can("source") {
		for i := range parsed.Steps {
			parsed.Steps[i].Want = withoutSource(parsed.Steps[i].Want)
		}
	}
	defer r.begin(t)()
	got, err := parsed.Play(func(st *script.Step) string {
		r.want = st.Want
		answer := r.step(st)
		if r.s.can("closes") && slices.ContainsFunc(st.Lines, func(l string) bool { return strings.HasPrefix(l, "talk ") }) {
			// Sockets are closed soon, not at once. What else such a step has
			// may be done twice.
			for end := time.Now().Add(patience); answer != st.Want && time.Now().Before(end); {
				<-time.After(20 * time.Millisecond)
				answer = r.step(st)
			}
		}
		if err := r.each(); err != nil {
			t.Errorf("%s: %v", st.Pos, err)
		}
		return answer
	})
	if err != nil {
		t.Error(err)
	}
	if updating() {
		if err := os.WriteFile(filepath.Join(where, name), got.Format(), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// each does what Suite.Each says if something has changed.
func (r *run) each() error {
	if r.s.Each == nil || !r.changed {
		return nil
	}
	r.changed = false
	return r.w.hosts["a"].in(r.s.Each)
}

// within is how long one of n connections of a step may take. Scripts try once
// where they say that no answer comes.
func (r *run) within(n int) time.Duration {
	if updating() && n == 1 {
		return 2 * again
	}
	if n == 1 && strings.Contains(r.want, "no answer") {
		return quiet
	}
	return patience
}

// updating says whether the scripts are written anew.
func updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// step does all lines of a step and joins what they answer.
func (r *run) step(st *script.Step) string {
	var out strings.Builder
	for _, line := range st.Lines {
		words := strings.Fields(line)
		if words[0] == "require" && !r.s.can(words[1]) {
			r.t.Skipf("the driver cannot: %s", words[1])
		}
		answer, err := r.do(words)
		if err != nil {
			r.t.Fatalf("%s: %s: %v", st.Pos, line, err)
		}
		for _, a := range answer {
			out.WriteString(a + "\n")
		}
	}
	if !r.s.can("source") {
		return withoutSource(out.String())
	}
	return out.String()
}

// own takes it that a client is seen with its own address where scripts have
// that of node a, which masquerades it with other drivers.
func (r *run) own(from *host, answers []string) []string {
	if !r.s.can("own") {
		return answers
	}
	wanted := func(line string) bool { return strings.Contains("\n"+r.want, "\n"+line+"\n") }
	for i, a := range answers {
		who, saw, _ := strings.Cut(a, " sees ")
		if masked := who + " sees a"; saw == from.name && wanted(masked) && !wanted(a) {
			answers[i] = masked
		}
	}
	slices.Sort(answers)
	return slices.Compact(answers)
}

// withoutSource leaves out which address was seen.
func withoutSource(answer string) string {
	var out strings.Builder
	for line := range strings.Lines(answer) {
		who, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " sees ")
		out.WriteString(who + "\n")
	}
	return out.String()
}

func (r *run) do(words []string) ([]string, error) {
	switch words[0] {
	case "service", "endpoint", "remove", "delete":
		if last := len(words) - 1; strings.HasPrefix(words[last], "@") {
			words[last] = r.notes[words[last][1:]]
		}
		o, err := r.m.do(r.w, words)
		if err != nil {
			return nil, err
		}
		if r.batch = append(r.batch, o); r.held {
			return nil, nil
		}
		return nil, r.flush()
	case "together":
		r.held = true
		return nil, nil
	case "apply":
		r.held = false
		return nil, r.flush()
	case "absent": // a change while there is no driver
		_, err := r.m.do(r.w, words[1:])
		return nil, err
	case "spread", "note", "noted", "renewed", "await", "invalid":
		return r.more(words)
	case "connect":
		words, n, err := times(words, 30)
		if err != nil {
			return nil, err
		}
		from, network, to, err := r.target(words[1], words[2])
		if err != nil {
			return nil, err
		}
		return r.own(from, r.w.connect(from, network, to, n, r.within(n))), nil
	case "open":
		from, network, to, err := r.target(words[2], words[3])
		if err != nil {
			return nil, err
		}
		c, err := from.dial(network, to, patience)
		if err != nil {
			return []string{failure(err)}, nil
		}
		if h := r.conns[words[1]]; h != nil {
			h.close()
		}
		r.conns[words[1]] = &held{from, network, to, c}
		return r.talk(words[1], patience)
	case "talk":
		return r.talk(words[1], patience)
	case "check":
		return r.check(words[1])
	case "stop":
		r.child.stop(syscall.SIGKILL)
		return nil, nil
	case "restart":
		r.child.stop(syscall.SIGKILL)
		return nil, r.again()
	case "start":
		return nil, r.again()
	case "require":
		return nil, nil
	case "run": // a program on node a, for people who write scripts
		r.changed = true
		var out []byte
		err := r.w.hosts["a"].in(func() (err error) {
			out, err = exec.Command(words[1], words[2:]...).CombinedOutput()
			return err
		})
		if len(out) == 0 {
			return nil, err
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n"), err
	}
	return nil, fmt.Errorf("no command is called %q", words[0])
}

func (r *run) again() error {
	r.changed = true
	r.child = spawn(r.root, r.w.hosts["a"], r.cfg)
	return r.child.apply(r.m.all())
}

func (r *run) flush() error {
	ops := r.batch
	r.batch, r.changed = nil, true
	return r.child.apply(ops)
}

// target reads FROM and ADDR:PORT[/udp].
func (r *run) target(who, what string) (from *host, network, to string, err error) {
	if from = r.w.hosts[who]; from == nil {
		return nil, "", "", fmt.Errorf("no machine is called %q", who)
	}
	to, proto, ok := strings.Cut(what, "/")
	if !ok {
		proto = "tcp"
	}
	if name, port, ok := strings.Cut(to, ":"); ok && len(r.w.ips[name]) > 0 {
		to = net.JoinHostPort(r.w.ips[name][0].String(), port)
	}
	if _, err := netip.ParseAddrPort(to); err != nil {
		return nil, "", "", err
	}
	return from, proto, to, nil
}
