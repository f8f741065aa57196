package script

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const separator = "----"

// Step is one command with its expected answer.
type Step struct {
	Pos   string   // file:line of the command, for messages
	Lines []string // the command line and what follows it; at least one
	Want  string   // the expected answer; empty or ending in a newline

	lead string // comments and empty lines before the step, kept by Format
}

// Words splits the command line at white space.
func (s *Step) Words() []string { return strings.Fields(s.Lines[0]) }

// Script is a parsed file.
type Script struct {
	Steps []Step

	tail string // comments and empty lines after the last step
}

// Parse reads a script. The name is for messages only.
func Parse(name string, text []byte) (*Script, error) {
	s := &Script{}
	var lead strings.Builder
	lines := strings.SplitAfter(string(text), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	} else {
		lines[last] += "\n"
	}
	for i := 0; i < len(lines); {
		if blank(lines[i]) || strings.HasPrefix(lines[i], "#") {
			lead.WriteString(lines[i])
			i++
			continue
		}
		step := Step{Pos: fmt.Sprintf("%s:%d", name, i+1), lead: lead.String()}
		lead.Reset()
		for i < len(lines) && !blank(lines[i]) && !rule(lines[i]) {
			if !strings.HasPrefix(lines[i], "#") {
				step.Lines = append(step.Lines, strings.TrimRight(lines[i], " \t\r\n"))
			} else {
				step.lead += lines[i] // the comment moves before the step
			}
			i++
		}
		if i == len(lines) || !rule(lines[i]) {
			return nil, fmt.Errorf("script: parse %s: the step has no %q line: add one after the command", step.Pos, separator)
		}
		if len(step.Lines) == 0 {
			return nil, fmt.Errorf("script: parse %s: %q without a command before it", step.Pos, separator)
		}
		i++
		ends := blank
		if i < len(lines) && rule(lines[i]) {
			i, ends = i+1, rule
		}
		end := i
		for end < len(lines) && !ends(lines[end]) {
			end++
		}
		step.Want = strings.Join(lines[i:end], "")
		s.Steps = append(s.Steps, step)
		i = min(end+1, len(lines)) // Format puts the line that ended it back
	}
	s.tail = lead.String()
	return s, nil
}

// Format writes the script as Parse reads it.
func (s *Script) Format() []byte {
	var b bytes.Buffer
	for i := range s.Steps {
		st := &s.Steps[i]
		b.WriteString(st.lead)
		for _, l := range st.Lines {
			b.WriteString(l + "\n")
		}
		b.WriteString(separator + "\n")
		if slices.ContainsFunc(strings.SplitAfter(strings.TrimSuffix(st.Want, "\n"), "\n"), blank) && st.Want != "" {
			b.WriteString(separator + "\n" + st.Want + separator + "\n")
			continue
		}
		b.WriteString(st.Want)
		if i < len(s.Steps)-1 || s.tail != "" {
			b.WriteString("\n")
		}
	}
	b.WriteString(s.tail)
	return b.Bytes()
}

// Play runs every step and returns the script with the answers that came.
// The error tells every answer that differs; nil means that none does.
func (s *Script) Play(do func(*Step) string) (got *Script, err error) {
	got = &Script{Steps: append([]Step(nil), s.Steps...), tail: s.tail}
	var differ strings.Builder
	for i := range got.Steps {
		st := &got.Steps[i]
		answer := do(&s.Steps[i])
		if answer != "" && !strings.HasSuffix(answer, "\n") {
			answer += "\n"
		}
		if answer != st.Want {
			fmt.Fprintf(&differ, "\n%s: %s\n-- got\n%s-- want\n%s", st.Pos, strings.Join(st.Lines, "\n\t"), answer, st.Want)
		}
		st.Want = answer
	}
	if differ.Len() > 0 {
		return got, fmt.Errorf("script: answers differ:%s", differ.String())
	}
	return got, nil
}

// Run replays the files that match glob, each in its own subtest with a fresh
// handler from start. With update (a test's own -update flag) it writes the
// answers that came into the files instead of comparing them.
func Run(t *testing.T, glob string, update bool, start func(t *testing.T) func(*Step) string) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("script: run %s: no such files (%v)", glob, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Parse(file, text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Play(start(t))
			switch {
			case err == nil:
			case !update:
				t.Error(err)
			default:
				if err := os.WriteFile(file, got.Format(), 0o644); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func blank(line string) bool { return strings.TrimSpace(line) == "" }

func rule(line string) bool { return strings.TrimSpace(line) == separator }
