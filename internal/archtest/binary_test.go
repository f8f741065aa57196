package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed is what go list tells about a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	ImportMap  map[string]string
	Standard   bool
	Module     *struct {
		Path, Version, Dir, GoVersion string
		Main                          bool
	}
}

// golist runs go list over packages and what they import, in the order in
// which they can be built.
func golist(t *testing.T, env []string, patterns ...string) []listed {
	t.Helper()
	args := append([]string{"list", "-e", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,ImportMap,Standard,Module"}, patterns...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
}

// licence is a kind of licence, known by words of its text.
type licence struct {
	name  string
	words []string
	ok    bool
}

// licences, the forbidden ones first: a text that names both is forbidden.
var licences = []licence{
	{"GPL", []string{"GNU GENERAL PUBLIC LICENSE"}, false},
	{"AGPL", []string{"GNU AFFERO GENERAL PUBLIC LICENSE"}, false},
	{"LGPL", []string{"GNU LESSER GENERAL PUBLIC LICENSE"}, false},
	{"BSL", []string{"Business Source License"}, false},
	{"SSPL", []string{"Server Side Public License"}, false},
	{"Elastic", []string{"Elastic License"}, false},
	{"Commons Clause", []string{"Commons Clause"}, false},
	{"Apache-2.0", []string{"Apache License", "Version 2.0"}, true},
	{"MIT", []string{"Permission is hereby granted, free of charge"}, true},
	{"BSD", []string{"Redistribution and use in source and binary forms"}, true},
	{"ISC", []string{"Permission to use, copy, modify, and/or distribute"}, true},
	{"ISC", []string{"Permission to use, copy, modify, and distribute"}, true},
	// Weak copyleft by file: used unchanged it asks for nothing but a notice.
	{"MPL-2.0", []string{"Mozilla Public License", "2.0"}, true},
	{"Unlicense", []string{"This is free and unencumbered software released into the public domain"}, true},
	{"CC0", []string{"CC0 1.0 Universal"}, true},
}

// TestLicences: what is linked into the binary must not bind those who ship
// it. A new kind of licence is looked at by a person first.
func TestLicences(t *testing.T) {
	dirs := map[string]string{}
	for _, p := range golist(t, nil, "./cmd/fingerpost") {
		if p.Module != nil && !p.Module.Main {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	if len(dirs) < 50 {
		t.Fatalf("only %d modules found behind ./cmd/fingerpost; is the module cache complete?", len(dirs))
	}
	for mod, dir := range dirs {
		var texts []string
		for _, pattern := range []string{"LICEN[SC]E*", "licen[sc]e*", "License*", "COPYING*", "UNLICENSE*"} {
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, names...)
		}
		if len(texts) == 0 {
			t.Errorf("%s (%s) has no licence file: nobody may use it", mod, dir)
		}
		slices.Sort(texts)
		for _, name := range slices.Compact(texts) {
			data, err := os.ReadFile(name)
			if err != nil {
				continue // a directory of licence texts
			}
			kind := kindOf(string(data))
			switch {
			case strings.HasSuffix(name, ".docs"): // of documentation, which is not linked
			case kind == nil:
				t.Errorf("%s: the licence in %s is of no known kind; read it, and add it to the list if it binds nobody", mod, filepath.Base(name))
			case !kind.ok:
				t.Errorf("%s is under %s (%s): it cannot be linked into the binary", mod, kind.name, filepath.Base(name))
			}
		}
	}
}

func kindOf(text string) *licence {
	text = strings.Join(strings.Fields(text), " ")
	for i := range licences {
		if !slices.ContainsFunc(licences[i].words, func(w string) bool { return !strings.Contains(text, w) }) {
			return &licences[i]
		}
	}
	return nil
}

// TestStatic: the binary runs on any Linux, so nothing in it may need cgo.
func TestStatic(t *testing.T) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-f", "{{if and .CgoFiles (not .Standard)}}{{.ImportPath}}{{end}}", "./cmd/fingerpost")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if s := strings.TrimSpace(string(out)); s != "" {
		t.Errorf("packages that need cgo: %s", strings.ReplaceAll(s, "\n", ", "))
	}
}
