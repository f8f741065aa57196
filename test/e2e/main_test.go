//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"testing"
)

var update = flag.Bool("update", false, "write the answers that came into testdata/console")

// programEnv makes this test binary one of the programs that tests run.
const programEnv = "FINGERPOST_E2E_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(programEnv); name != "" {
		os.Exit(program(name, os.Args[1:]))
	}
	flag.Parse()
	parallel := flag.Lookup("test.parallel")
	if parallel.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) { // nobody chose
		_ = flag.Set("test.parallel", "8") // they wait more than they work
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "fingerpost-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Another user than ours runs programs from there too.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	tools.dir = dir
	defer common.stop()
	defer podClusters.stop()
	return m.Run()
}
