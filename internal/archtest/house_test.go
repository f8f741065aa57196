package archtest

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// Limits on the size of files, in lines. A file that one cannot hold in the
// head hides what belongs together.
const (
	maxLines     = 500
	maxTestLines = 600
	maxMain      = 60
)

func TestFileSize(t *testing.T) {
	eachFile(t, func(p *pkg, f *file) {
		limit := maxLines
		switch {
		case f.generated:
			return
		case f.test:
			limit = maxTestLines
		case within(p.dir, "cmd") && f.name == "main.go":
			limit = maxMain
		}
		if f.lines > limit {
			t.Errorf("%s has %d lines, at most %d: cut it where one idea ends", f.path, f.lines, limit)
		}
	})
}

// emptyNames say nothing about what is inside, so everything ends up there.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "manager", "type", "types", "base", "misc", "lib", "shared", "tools", "core"}

func TestPackageNames(t *testing.T) {
	for _, p := range packages(t) {
		name := path.Base(p.dir)
		for _, f := range p.files {
			got := strings.TrimSuffix(f.ast.Name.Name, "_test")
			if slices.Contains(emptyNames, got) || slices.Contains(emptyNames, name) {
				t.Errorf("%s: package %s: name it for the idea it holds", f.path, got)
			}
			if got != strings.ToLower(got) || strings.Contains(got, "_") {
				t.Errorf("%s: package %s: one lower-case word", f.path, got)
			}
			if got != name && got != "main" && !strings.HasPrefix(p.dir, "api/") {
				t.Errorf("%s: package %s in directory %s: readers look for a package where its name is", f.path, got, p.dir)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		documented, only := false, true
		for _, f := range p.files {
			if f.test {
				continue
			}
			only = false
			if f.ast.Doc != nil {
				text := f.ast.Doc.Text()
				documented = documented || strings.HasPrefix(text, "Package ") || strings.HasPrefix(text, "Command ")
			}
		}
		if !documented && !only {
			t.Errorf("%s: no package comment: doc.go says what the package guarantees before anybody reads its code", p.dir)
		}
	}
}

// TestNoInit: what runs is a list that can be read in server/, not what
// happened to be imported.
func TestNoInit(t *testing.T) {
	eachFile(t, func(_ *pkg, f *file) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init: nothing registers itself; composition is the list in server/", f.path)
			}
		}
	})
}

// mutable types in package variables are shared state that no reader of a
// function's parameters can see.
var mutableTypes = map[string][]string{
	"sync":        {"Mutex", "RWMutex", "Map", "WaitGroup", "Cond"},
	"sync/atomic": {"Bool", "Int32", "Int64", "Uint32", "Uint64", "Uintptr", "Value", "Pointer"},
}

// TestNoPackageState: two systems can run in one process (tests do it), so
// nothing may be shared through package variables. sync.Once and sync.Pool
// hold no state that anybody can tell, and are allowed.
func TestNoPackageState(t *testing.T) {
	eachFile(t, func(p *pkg, f *file) {
		if f.test || f.generated {
			return
		}
		for _, d := range f.ast.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && stateful(f, v) {
					t.Errorf("%s: package variable %s holds state: put it into a struct that somebody owns", f.path, v.Names[0].Name)
				}
			}
		}
		assigned(f, func(name string) {
			t.Errorf("%s: package variable %s is assigned to: put it into a struct that somebody owns", f.path, name)
		}, packageVars(p))
	})
}

func stateful(f *file, v *ast.ValueSpec) bool {
	bad := false
	look := func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ChanType:
			bad = true
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			for imp, names := range mutableTypes {
				if x.Name == path.Base(imp) && slices.Contains(f.imports, imp) && slices.Contains(names, n.Sel.Name) {
					bad = true
				}
			}
		}
		return true
	}
	if v.Type != nil {
		ast.Inspect(v.Type, look)
	}
	for _, e := range v.Values {
		ast.Inspect(e, look)
	}
	return bad
}

// packageVars names the variables of a package that are not exported: they
// cannot be the linker's to set.
func packageVars(p *pkg) map[string]bool {
	vars := map[string]bool{}
	for _, f := range p.files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					for _, n := range s.(*ast.ValueSpec).Names {
						if n.Name != "_" {
							vars[n.Name] = true
						}
					}
				}
			}
		}
	}
	return vars
}

// assigned reports assignments to package variables, as far as the syntax
// shows them: a name that the function itself declares is its own.
func assigned(f *file, report func(string), vars map[string]bool) {
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := map[string]bool{}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				for _, id := range n.Names {
					local[id.Name] = true
				}
			case *ast.ValueSpec:
				for _, id := range n.Names {
					local[id.Name] = true
				}
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, e := range n.Lhs {
						if id, ok := e.(*ast.Ident); ok {
							local[id.Name] = true
						}
					}
				}
			case *ast.RangeStmt:
				for _, e := range []ast.Expr{n.Key, n.Value} {
					if id, ok := e.(*ast.Ident); ok && n.Tok == token.DEFINE {
						local[id.Name] = true
					}
				}
			}
			return true
		})
		check := func(e ast.Expr) {
			for {
				switch x := e.(type) {
				case *ast.IndexExpr:
					e = x.X
					continue
				case *ast.ParenExpr:
					e = x.X
					continue
				case *ast.Ident:
					if vars[x.Name] && !local[x.Name] {
						report(x.Name)
					}
				}
				return
			}
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						check(e)
					}
				}
			case *ast.IncDecStmt:
				check(n.X)
			}
			return true
		})
	}
}

// TestNoSleep: a sleep in a test is either too short on a busy machine or too
// long on all others. In a testing/synctest bubble it costs nothing and is
// exact, so there it is the way to let time pass. Benchmarks, which cannot run
// in a bubble, may poll.
func TestNoSleep(t *testing.T) {
	eachFile(t, func(p *pkg, f *file) {
		if !f.test || slices.Contains(f.imports, "testing/synctest") {
			return
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if fn, ok := n.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Benchmark") {
				return false
			}
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
					t.Errorf("%s: time.Sleep outside testing/synctest: wait for what you wait for", f.path)
				}
			}
			return true
		})
	})
}

// TestSkipReasons: a test that is skipped without a word is a test that nobody
// misses.
func TestSkipReasons(t *testing.T) {
	eachFile(t, func(_ *pkg, f *file) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			c, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if s, ok := c.Fun.(*ast.SelectorExpr); ok && f.test && (s.Sel.Name == "SkipNow" || s.Sel.Name == "Skip" && len(c.Args) == 0) {
				if x, ok := s.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b" || x.Name == "f" || x.Name == "tb") {
					t.Errorf("%s: a test is skipped without a reason", f.path)
				}
			}
			return true
		})
	})
}

// TestNoLooseEnds: what is not done is an issue or a line in the README, where
// users see it, not a comment.
func TestNoLooseEnds(t *testing.T) {
	words := []string{"TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"}
	eachFile(t, func(_ *pkg, f *file) {
		if f.generated {
			return
		}
		for _, g := range f.ast.Comments {
			for _, w := range strings.FieldsFunc(g.Text(), func(r rune) bool { return !unicode.IsLetter(r) }) {
				if slices.Contains(words, w) {
					t.Errorf("%s: comment with %s: do it, or write it where users see it", f.path, w)
				}
			}
		}
	})
}
