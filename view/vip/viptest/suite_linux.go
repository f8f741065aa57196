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
	// Each is called in that namespace after each step: what must hold at all
	// times, such as that the tools of others can list the rules. nil: nothing.
	Each func() error
	// Only limits the run to files whose name has this in it.
	Only string
	// Skip are scripts, by name without .txt, that the driver is known to fail,
	// with the reason.
	Skip map[string]string
	// Extra has scripts (*.txt at its top) of the driver's own, played after
	// the others: faults that only it can have. nil: none.
	Extra fs.FS
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
	if s.Config != nil {
		s.Config(&cfg)
	}
	if s.Prepare != nil {
		w.hosts["a"].must(w.hosts["a"].in(s.Prepare))
	}
	finish := func(*testing.T, *run) {}
	if early := s.can("early") && strings.Contains("early", s.Only); early {
		finish = w.early(t)
	}
	r := &run{root: t, s: s, w: w, cfg: cfg, child: spawn(t, w.hosts["a"], cfg)}
	t.Run("early", func(t *testing.T) { finish(t, r) })
	common, err := fs.Sub(files, "testdata")
	if err != nil {
		t.Fatal(err)
	}
	r.dir(t, common, filepath.Join("..", "viptest", "testdata"))
	if s.Extra != nil {
		r.dir(t, s.Extra, "testdata")
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
			for end := time.Now().Add(3 * time.Second); answer != st.Want && time.Now().Before(end); {
				<-time.After(20 * time.Millisecond)
				answer = r.step(st)
			}
		}
		if r.s.Each != nil {
			if err := r.w.hosts["a"].in(r.s.Each); err != nil {
				t.Errorf("%s: %v", st.Pos, err)
			}
		}
		return answer
	})
	if err != nil {
		t.Error(err)
	}
	if f := flag.Lookup("update"); f != nil && f.Value.String() == "true" {
		if err := os.WriteFile(filepath.Join(where, name), got.Format(), 0o644); err != nil {
			t.Error(err)
		}
	}
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
	case "spread", "note", "noted", "await", "wait", "invalid":
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
		return r.own(from, r.w.connect(from, network, to, n)), nil
	case "open":
		from, network, to, err := r.target(words[2], words[3])
		if err != nil {
			return nil, err
		}
		c, err := from.dial(network, to)
		if err != nil {
			return []string{failure(err)}, nil
		}
		if h := r.conns[words[1]]; h != nil {
			h.close()
		}
		r.conns[words[1]] = &held{from, network, to, c}
		return r.talk(words[1])
	case "talk":
		return r.talk(words[1])
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
	r.child = spawn(r.root, r.w.hosts["a"], r.cfg)
	return r.child.apply(r.m.all())
}

func (r *run) flush() error {
	ops := r.batch
	r.batch = nil
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
