//go:build linux

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/internal/script"
)

// TestConsole replays conversations: testdata/console/*.txt, in the format of
// internal/script. A step is a command of bash, run in a directory and a
// namespace of the file's own ($NS), with the administrator's kubeconfig; its
// answer is what it prints on both streams, and "exit N" if it fails.
//
//	file NAME          makes a file of the lines below it; $NS is replaced
//	eventually CMD     repeats the command until it answers as expected
//
// In an answer "..." stands for anything in a line and, alone, for any number
// of lines. Empty lines and the width of columns do not count.
func TestConsole(t *testing.T) {
	script.Run(t, "testdata/console/*.txt", *update, func(t *testing.T) func(*script.Step) string {
		t.Parallel()
		c := newConsole(t)
		return func(s *script.Step) string {
			if t.Failed() {
				return s.Want // what follows a failure fails because of it
			}
			return c.do(t, s)
		}
	})
}

type console struct {
	ns, dir string
	env     []string
}

func newConsole(t *testing.T) *console {
	name := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
	sys, ns := common.namespace(t, name)
	c := &console{ns: ns, dir: t.TempDir()}
	config := filepath.Join(c.dir, ".kubeconfig")
	data, err := os.ReadFile(sys.kubeconfig())
	if err == nil {
		err = os.WriteFile(config, []byte(strings.Replace(string(data), "namespace: default", "namespace: "+ns, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.env = environ(t, c.dir, "KUBECONFIG="+config, "FINGERPOST_DATA="+sys.data, "NS="+ns, "SERVER=https://"+sys.listen,
		"HOST="+strings.TrimSuffix(sys.listen, ":6443"), "DNS="+sys.dns, "PEERS="+sys.site.ip(100, 0)[:len(sys.site.ip(100, 0))-2], "TERM=dumb")
	return c
}

func (c *console) do(t *testing.T, s *script.Step) string {
	t.Helper()
	words := s.Words()
	if words[0] == "file" {
		text := strings.ReplaceAll(strings.Join(s.Lines[1:], "\n")+"\n", "$NS", c.ns)
		if err := os.WriteFile(filepath.Join(c.dir, words[1]), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return ""
	}
	cmd := strings.Join(s.Lines, "\n")
	cmd, again := strings.CutPrefix(cmd, "eventually ")
	want := pattern(s.Want)
	var answer string
	try := func() error {
		answer = c.bash(t, cmd)
		return unless(want.MatchString(plain(answer)), "")
	}
	var err error
	if again {
		err = poll(try)
	} else {
		err = try()
	}
	if err == nil {
		return s.Want
	}
	return answer
}

func (c *console) bash(t *testing.T, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	answer := strings.ReplaceAll(string(out), c.ns, "$NS")
	if err != nil {
		answer = strings.TrimRight(answer, "\n") + "\n" + strings.Replace(err.Error(), "exit status", "exit", 1)
	}
	var b strings.Builder
	for line := range strings.Lines(answer) {
		if line = strings.TrimRight(line, " \t\r\n"); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

var blanks = regexp.MustCompile(`(\S)[ \t]+`)

// plain is a text as answers are compared: tables are as wide as their widest
// word, which differs from run to run.
func plain(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if line != "" {
			b.WriteString(blanks.ReplaceAllString(line, "$1 ") + "\n")
		}
	}
	return b.String()
}

// pattern is an expected answer as a regular expression.
func pattern(want string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for line := range strings.Lines(plain(want)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.TrimSpace(line) == "..." {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\n`)
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}
