//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// toolbox is the directory of the programs that tests run, made once.
type toolbox struct {
	dir  string
	once sync.Once
	err  error
}

var tools toolbox

// bin gives the directory with fingerpost, kubectl, web and udpecho. It is the
// first one of the PATH of everything that tests start.
func (b *toolbox) bin(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(b.dir, "bin")
	b.once.Do(func() { b.err = b.fill(dir) })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return dir
}

func (b *toolbox) fill(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, from := range map[string]struct{ env, pkg string }{
		"fingerpost": {"FINGERPOST_BIN", "../../cmd/fingerpost"},
		"kubectl":    {"KUBECTL", "k8s.io/kubernetes/cmd/kubectl"},
	} {
		to := filepath.Join(dir, name)
		if path := os.Getenv(from.env); path != "" {
			abs, err := filepath.Abs(path)
			if err == nil {
				_, err = os.Stat(abs)
			}
			if err != nil {
				return fmt.Errorf("e2e: $%s: %w", from.env, err)
			}
			if err := os.Symlink(abs, to); err != nil {
				return err
			}
		} else if err := build(to, from.pkg); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// No child may start while they are open for writing: it would have them
	// open for a moment, and they could not be run ("text file busy").
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for name := range programs {
		text := fmt.Sprintf("#!/bin/sh\n%s=%s exec %s \"$@\"\n", programEnv, name, self)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// build compiles a program of this module, or of one that it requires.
func build(to, pkg string) error {
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		return err
	}
	v := regexp.MustCompile(`k8s\.io/kubernetes (v(\d+)\.(\d+)\S*)`).FindStringSubmatch(string(gomod))
	if v == nil {
		return fmt.Errorf("e2e: build %s: go.mod does not name k8s.io/kubernetes", pkg)
	}
	flags := "-s -w"
	for _, in := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s", in, v[1], v[2], v[3])
	}
	cmd := exec.Command("go", "build", "-ldflags", flags, "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("e2e: build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// environ is the environment of what tests start: ours, without what would
// lead to another server than the test's.
func environ(t testing.TB, home string, more ...string) []string {
	t.Helper()
	var env []string
	for _, e := range os.Environ() {
		switch k, _, _ := strings.Cut(e, "="); k {
		case "KUBECONFIG", "FINGERPOST_DATA", "HOME", "PATH", "XDG_DATA_HOME", "LANG", "LC_ALL", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY":
		default:
			env = append(env, e)
		}
	}
	env = append(env, "PATH="+tools.bin(t)+":"+os.Getenv("PATH"), "HOME="+home, "LC_ALL=C.UTF-8")
	return append(env, more...)
}
