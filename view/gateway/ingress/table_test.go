package ingress

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/view/gateway/ingress/annotation"
)

const (
	docFile   = "../../../doc/ingress-nginx.md"
	tableFrom = "<!-- annotations: written by go test ./view/gateway/ingress -run TestDocument -update -->\n"
	tableTo   = "<!-- end of annotations -->\n"
)

// TestDocument: doc/ingress-nginx.md lists what the table says.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("| Annotation | Support | What it does here |\n|---|---|---|\n")
	for _, a := range annotation.All() {
		note := a.Note
		if a.Want != "" {
			note += " Values: " + a.Want + "."
		}
		if a.Closed && a.Support != annotation.Unsupported {
			note += " A value that is not understood closes the rules (503)."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", a.Key, a.Support, strings.ReplaceAll(note, "|", "\\|"))
	}
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableFrom)
	table, after, ok2 := strings.Cut(rest, tableTo)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docFile)
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s does not say what the table does; run the test with -update", docFile)
	}
	if err := os.WriteFile(docFile, []byte(before+tableFrom+b.String()+tableTo+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTable: keys are there once, say something, and are in a golden pair each.
func TestTable(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	seen := map[string]bool{}
	for _, a := range annotation.All() {
		if seen[a.Key] {
			t.Errorf("%s is there twice", a.Key)
		}
		seen[a.Key] = true
		if a.Note == "" || a.Support == annotation.Honoured && a.Apply == nil || a.Support == annotation.Unsupported && a.Apply != nil {
			t.Errorf("%s says nothing, or is honoured and not read, or read and not honoured", a.Key)
		}
		if a.Support == annotation.Honoured && !strings.Contains(all.String(), Prefix+"/"+a.Key+":") {
			t.Errorf("%s is in no golden pair", a.Key)
		}
	}
}

func FuzzLint(f *testing.F) {
	f.Add(lintIn)
	f.Add(oneIngress)
	f.Fuzz(func(t *testing.T, in string) {
		_, _ = Lint(strings.NewReader(in), &strings.Builder{}, LintOptions{})
	})
}
