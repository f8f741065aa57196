package readme

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/cli"
)

const root = "../../.."

// shown is a command as a document shows it.
type shown struct {
	where string
	words []string
}

var (
	fence = regexp.MustCompile("(?ms)^```(?:console|sh)\n(.*?)^```")
	// A command begins a line, or stands behind a shell operator.
	begin = regexp.MustCompile(`(?m)(?:^(?:\$ )?|\$\(|[|;&] *)(fingerpost|make)([ \t)\n][^\n]*)`)
	// What ends it, as far as the documents use the shell. What follows "--" is
	// another program's.
	end = regexp.MustCompile(`[|;&)#<>]| -- `)
)

// commands finds the calls of fingerpost and make in the shell blocks of a
// document.
func commands(name, text string) []shown {
	var all []shown
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		body := strings.ReplaceAll(block[1], "\\\n", " ")
		for _, at := range begin.FindAllStringSubmatchIndex(body, -1) {
			// Overlapping: a command inside $( ) of another is found by its own.
			rest := body[at[4]:at[5]]
			if i := end.FindStringIndex(rest); i != nil {
				rest = rest[:i[0]]
			}
			all = append(all, shown{name, append([]string{body[at[2]:at[3]]}, strings.Fields(rest)...)})
			all = append(all, commands(name, "```sh\n"+body[at[4]:at[5]]+"\n```")...)
		}
	}
	return all
}

func documents(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, pattern := range []string{"*.md", "doc/*.md", "doc/*/*.md", "examples/*.md", "examples/*/*.md", "bench/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, n)
			if err != nil {
				t.Fatal(err)
			}
			docs[filepath.ToSlash(rel)] = string(b)
		}
	}
	if docs["README.md"] == "" {
		t.Fatal("README.md is not there")
	}
	return docs
}

// help gives what "fingerpost WORDS --help" prints, and its usage line.
func help(t *testing.T, words ...string) (text, usage string) {
	t.Helper()
	var out, errw bytes.Buffer
	if code := cli.Main(t.Context(), append(slices.Clone(words), "--help"), strings.NewReader(""), &out, &errw); code != cli.ExitOK {
		return errw.String(), ""
	}
	_, after, _ := strings.Cut(out.String(), "Usage:\n")
	usage, _, _ = strings.Cut(strings.TrimSpace(after), "\n")
	return out.String(), usage
}

// TestCommands: each command of fingerpost that a document shows exists, with
// the flags that it is given.
func TestCommands(t *testing.T) {
	found := map[string]bool{}
	for name, text := range documents(t) {
		for _, c := range commands(name, text) {
			if c.words[0] != "fingerpost" || len(c.words) < 2 {
				continue
			}
			path := c.words[1:2]
			found[path[0]] = true
			if path[0] == "kubectl" { // the rest is kubectl's; that it is carried is tested beside it
				continue
			}
			text, usage := help(t, path...)
			if len(c.words) > 2 {
				if sub, u := help(t, c.words[1], c.words[2]); strings.HasPrefix(u, "fingerpost "+c.words[1]+" "+c.words[2]+" ") {
					path, text, usage = c.words[1:3], sub, u
				}
			}
			if !strings.HasPrefix(usage+" ", "fingerpost "+strings.Join(path, " ")+" ") {
				t.Errorf("%s: %q: there is no command %q", c.where, strings.Join(c.words, " "), strings.Join(path, " "))
				continue
			}
			for _, w := range c.words[1+len(path):] {
				flag, _, _ := strings.Cut(w, "=")
				if !strings.HasPrefix(flag, "-") || flag == "-" {
					continue
				}
				if !regexp.MustCompile(`(?m)^ *(-\w, )?` + regexp.QuoteMeta(flag) + `[ ,=\n]|, ` + regexp.QuoteMeta(flag) + `[ ,=\n]`).MatchString(text) {
					t.Errorf("%s: %q: there is no flag %s", c.where, strings.Join(c.words, " "), flag)
				}
			}
		}
	}
	for _, c := range []string{"run", "register", "deregister", "get", "watch", "resolve", "explain", "env", "snapshot", "node", "server", "kubectl", "kubeconfig", "proxy"} {
		if !found[c] {
			t.Errorf("no document shows 'fingerpost %s', or the search for commands is broken", c)
		}
	}
}

// TestMake: each target that a document names exists.
func TestMake(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, text := range documents(t) {
		for _, c := range commands(name, text) {
			if c.words[0] != "make" {
				continue
			}
			n++
			for _, w := range c.words[1:] {
				if !strings.Contains(w, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(w)+`:`).Match(makefile) {
					t.Errorf("%s: there is no 'make %s'", c.where, w)
				}
			}
		}
	}
	if n < 2 {
		t.Error("the README's two commands were not found")
	}
}

// TestLinks: what a document links to inside the repository is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
}

// TestPaths: files and directories that the architecture and the guide for
// contributors name in code font exist.
func TestPaths(t *testing.T) {
	quoted := regexp.MustCompile("`([a-z.][A-Za-z0-9_./-]*)`")
	docs := documents(t)
	for _, name := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		for _, m := range quoted.FindAllStringSubmatch(docs[name], -1) {
			p := m[1]
			top, _, sub := strings.Cut(p, "/")
			if !sub && !strings.HasSuffix(p, ".go") {
				continue // a word
			}
			if _, err := os.Stat(filepath.Join(root, top)); err != nil || strings.Contains(top, ".") && top != ".ci" {
				continue // not ours: an import, a host name
			}
			if _, err := os.Stat(filepath.Join(root, p)); err != nil {
				t.Errorf("%s names %s, which is not there", name, p)
			}
		}
	}
}

func TestCommandsAreFound(t *testing.T) {
	text := "```console\n$ curl http://$(fingerpost resolve web A -o name):8080/\n$ fingerpost run --name a -- make it --so &\nmake test # all\n```\n"
	var got []string
	for _, c := range commands("x", text) {
		got = append(got, strings.Join(c.words, " "))
	}
	want := []string{"fingerpost resolve web A -o name", "fingerpost run --name a", "make test"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}
