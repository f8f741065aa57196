package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/fingerpost/fingerpost"

// root of the repository, seen from this package's directory, where tests run.
const root = "../.."

// pkg is one directory with Go files.
type pkg struct {
	dir   string // relative to the root, with slashes
	files []*file
}

type file struct {
	path      string // relative to the root
	name      string
	ast       *ast.File
	imports   []string
	lines     int
	test      bool
	generated bool
}

// tree reads every Go file of the module once, with comments and bodies.
var tree = sync.OnceValues(func() (map[string]*pkg, error) {
	all := map[string]*pkg{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if skipDir(p, rel, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f, err := readFile(p, rel)
		if err != nil {
			return err
		}
		dir := path.Dir(rel)
		if all[dir] == nil {
			all[dir] = &pkg{dir: dir}
		}
		all[dir].files = append(all[dir].files, f)
		return nil
	})
	return all, err
})

// skipDir leaves out what is not this module's source.
func skipDir(p, rel, name string) bool {
	if rel == "." {
		return false
	}
	if name == "testdata" || name == "node_modules" || rel == "bin" || rel == "dist" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(p, "go.mod"))
	return err == nil // another module
}

func readFile(p, rel string) (*file, error) {
	src, err := os.ReadFile(p)
	if err != nil {
		return nil, err
	}
	a, err := parser.ParseFile(token.NewFileSet(), rel, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &file{
		path: rel, name: path.Base(rel), ast: a, lines: bytes.Count(src, []byte("\n")),
		test: strings.HasSuffix(rel, "_test.go"), generated: ast.IsGenerated(a),
	}
	for _, i := range a.Imports {
		s, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, err
		}
		f.imports = append(f.imports, s)
	}
	return f, nil
}

func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// eachFile visits every file of the module.
func eachFile(t *testing.T, visit func(p *pkg, f *file)) {
	t.Helper()
	for _, p := range packages(t) {
		for _, f := range p.files {
			visit(p, f)
		}
	}
}

// within says whether a slash-separated path is one of the trees or below it.
func within(p string, trees ...string) bool {
	for _, t := range trees {
		if p == t || strings.HasPrefix(p, t+"/") {
			return true
		}
	}
	return false
}

// own gives the directory of an import of this module.
func own(imp string) (dir string, ok bool) {
	return strings.CutPrefix(imp, module+"/")
}

// standard says whether an import is of the standard library.
func standard(imp string) bool {
	first, _, _ := strings.Cut(imp, "/")
	return !strings.Contains(first, ".")
}
