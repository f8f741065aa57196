package script

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

func echo(*testing.T) func(*Step) string {
	n := 0
	return func(s *Step) string {
		n++
		switch words := s.Words(); words[0] {
		case "say":
			return strings.Join(words[1:], " ")
		case "lines":
			return strings.Join(s.Lines[1:], "\n")
		case "blank":
			return "first\n\nlast\n"
		case "count":
			return fmt.Sprint(n)
		}
		return ""
	}
}

func TestRun(t *testing.T) {
	Run(t, "testdata/*.txt", *update, echo)
}

func TestUpdateRewrites(t *testing.T) {
	right, err := os.ReadFile("testdata/echo.txt")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "echo.txt")
	wrong := strings.Replace(string(right), "first\n\nlast", "wrong", 1)
	wrong = strings.Replace(wrong, "\nhello\n", "\nho\n\n", 1)
	if err := os.WriteFile(file, []byte(wrong), 0o644); err != nil {
		t.Fatal(err)
	}
	Run(t, file, true, echo)
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(file, got)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Play(echo(t)); err != nil {
		t.Errorf("the rewritten file does not pass: %v\n%s", err, got)
	}
	for _, comment := range []string{"# What the runner", "# Lines below", "# a comment between"} {
		if !bytes.Contains(got, []byte(comment)) {
			t.Errorf("the rewrite lost %q", comment)
		}
	}
}

func TestPlayTellsTheDifference(t *testing.T) {
	s, err := Parse("x.txt", []byte("say a\n----\na\n\nsay b\n----\nc\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Play(echo(t))
	if err == nil || !strings.Contains(err.Error(), "x.txt:5: say b\n-- got\nb\n-- want\nc\n") || strings.Contains(err.Error(), "say a") {
		t.Errorf("error is %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"say a\n":              `x:1: the step has no "----" line`,
		"say a\n\n----\na\n":   `x:1: the step has no "----" line`,
		"# only\n\n----\nsay":  `x:3: "----" without a command`,
		"a\n----\n\n\nb\nb2\n": `x:5: the step has no "----" line`,
	} {
		if _, err := Parse("x", []byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", in, err, want)
		}
	}
}

// What is parsed and written is parsed the same again.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/echo.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("a\n----\n----\n\n----\nb\n----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("f", text)
		if err != nil {
			return
		}
		again, err := Parse("f", s.Format())
		if err != nil {
			t.Fatalf("%v\n%s", err, s.Format())
		}
		if len(again.Steps) != len(s.Steps) {
			t.Fatalf("%d steps became %d", len(s.Steps), len(again.Steps))
		}
		for i := range s.Steps {
			if a, b := s.Steps[i], again.Steps[i]; a.Want != b.Want || strings.Join(a.Lines, "\n") != strings.Join(b.Lines, "\n") {
				t.Fatalf("step %d: %+v became %+v", i, a, b)
			}
		}
	})
}
