package viewtest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/script"
)

// Node is the node that the view under test is on.
const Node = "here"

// View is a view that can say where it would send traffic.
type View interface {
	catalog.View

	// Reach gives the sorted, unique "addr:port" of the endpoints to which the
	// view would send new traffic for a service's port (by name or number).
	// Empty: it refuses, or says that there is nobody.
	Reach(svc catalog.Key, port string, proto catalog.Protocol) []string
}

// TerminatingFallback is implemented by views that use endpoints which are
// terminating and still serving when there is no ready one.
type TerminatingFallback interface {
	FallsBackToTerminating() bool
}

// Carrier is implemented by views that carry other services than those with a
// virtual IP. It is asked once per view, about one service of each sort.
type Carrier interface {
	Carries(*catalog.Service) bool
}

//go:embed testdata/*.txt
var scenarios embed.FS

// abilities is what a view said about itself.
type abilities struct {
	virtual, headless, fallback bool
}

func abilitiesOf(v View) abilities {
	a := abilities{virtual: true}
	if c, ok := v.(Carrier); ok {
		a.virtual = c.Carries(&catalog.Service{Type: catalog.ClusterIP, ClusterIPs: sampleIP})
		a.headless = c.Carries(&catalog.Service{Type: catalog.ClusterIP, Headless: true})
	}
	if f, ok := v.(TerminatingFallback); ok {
		a.fallback = f.FallsBackToTerminating()
	}
	return a
}

// Run holds the view that newView makes to the rules of this package, each
// scenario with a fresh one.
func Run(t *testing.T, newView func(t *testing.T) View) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.long {
				t.Skip("a long random run, and -short is given")
			}
			err := c.run(newView(t))
			if errors.Is(err, errSkip) {
				t.Skip(err)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// Check is Run for callers that expect failures: it gives one error for each
// scenario that fails.
func Check(newView func() View) map[string]error {
	failed := map[string]error{}
	for _, c := range checks() {
		if err := c.run(newView()); err != nil && !errors.Is(err, errSkip) {
			failed[c.name] = err
		}
	}
	return failed
}

type check struct {
	name string
	long bool
	run  func(View) error
}

func checks() []check {
	files, err := fs.Glob(scenarios, "testdata/*.txt")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprintf("viewtest: read the embedded scenarios: %v", err))
	}
	var all []check
	for _, f := range files {
		all = append(all, check{
			name: strings.TrimSuffix(strings.TrimPrefix(f, "testdata/"), ".txt"),
			run:  func(v View) error { return replay(f, v) },
		})
	}
	for seed := range uint64(8) {
		all = append(all, check{
			name: fmt.Sprintf("random-%d", seed),
			long: seed > 1,
			run:  func(v View) error { return randomRun(v, seed, 50) },
		})
	}
	return all
}

var errSkip = errors.New("viewtest: the scenario is for another sort of view")

func replay(file string, v View) error {
	text, err := scenarios.ReadFile(file)
	if err != nil {
		return err
	}
	s, err := script.Parse(file, text)
	if err != nil {
		return err
	}
	st := newStage(v)
	defer st.close()
	for i := range s.Steps {
		if !st.meets(&s.Steps[i]) {
			return errSkip
		}
	}
	_, err = s.Play(st.step)
	return err
}
