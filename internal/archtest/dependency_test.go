package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDependencies: the list with the reason for each direct dependency says
// what the imports say.
func TestDependencies(t *testing.T) {
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) v\S+`).FindAllStringSubmatch(string(gomod), -1) {
		modules = append(modules, m[1])
	}
	used := map[string]string{}
	eachFile(t, func(_ *pkg, f *file) {
		for _, imp := range f.imports {
			if _, ours := own(imp); ours || standard(imp) {
				continue
			}
			best := ""
			for _, m := range modules {
				if within(imp, m) && len(m) > len(best) {
					best = m
				}
			}
			if best == "" {
				t.Errorf("%s imports %s, which go.mod does not require", f.path, imp)
			}
			used[best] = f.path
		}
	})
	const list = "doc/decision/dependencies.md"
	text, err := os.ReadFile(filepath.Join(root, list))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|([^|]*)\\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
		if strings.TrimSpace(m[2]) == "" || strings.TrimSpace(m[3]) == "" {
			t.Errorf("%s: %s: say its licence and why it is here", list, m[1])
		}
		if used[m[1]] == "" {
			t.Errorf("%s: nothing imports %s any more; remove the line", list, m[1])
		}
	}
	for m, path := range used {
		if m != "" && !listed[m] {
			t.Errorf("%s imports %s: a new direct dependency needs a line in %s: what for, under which licence", path, m, list)
		}
	}
}

// TestLayout: the architecture's list of directories is complete.
func TestLayout(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	for dir := range packages(t) {
		top, _, _ := strings.Cut(dir, "/")
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(top) + `/`).Match(text) {
			t.Errorf("ARCHITECTURE.md: the layout does not name %s/", top)
		}
	}
}
