package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"sync"
	"testing"
)

// TestPortable type-checks every package of ours as it is built for macOS, so
// that each call into Linux keeps its fallback. Nothing is compiled: of what
// we import only the declarations are read, which takes seconds where a cross
// build takes minutes.
func TestPortable(t *testing.T) {
	if testing.Short() {
		t.Skip("reads the source of every dependency, which takes some seconds")
	}
	c := checker{
		fset: token.NewFileSet(), done: map[string]*types.Package{"unsafe": types.Unsafe},
		sizes: types.SizesFor("gc", "arm64"),
	}
	for _, p := range golist(t, []string{"GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0"}, "./...") {
		for _, err := range c.check(p) {
			t.Errorf("GOOS=darwin: %v", err)
		}
	}
}

type checker struct {
	fset  *token.FileSet
	sizes types.Sizes
	done  map[string]*types.Package
}

// importer resolves the imports of one package, which may be vendored.
type importer struct {
	c   *checker
	via map[string]string
}

func (i importer) Import(path string) (*types.Package, error) {
	if p, ok := i.via[path]; ok {
		path = p
	}
	if p := i.c.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not there on this system", path)
}

// check gives the errors of a package of ours; those of others are theirs.
func (c *checker) check(l listed) []error {
	if l.ImportPath == "unsafe" {
		return nil
	}
	ours := l.Module != nil && l.Module.Main
	mode := parser.SkipObjectResolution
	files := make([]*ast.File, len(l.GoFiles))
	errs := make([]error, len(l.GoFiles))
	var wg sync.WaitGroup
	for i, name := range l.GoFiles {
		wg.Go(func() { files[i], errs[i] = parser.ParseFile(c.fset, filepath.Join(l.Dir, name), nil, mode) })
	}
	wg.Wait()
	var bad []error
	for i, err := range errs {
		if err != nil {
			bad = append(bad, err)
			files[i] = nil
		}
	}
	if len(bad) > 0 {
		if ours {
			return bad
		}
		return nil
	}
	conf := types.Config{
		Importer: importer{c, l.ImportMap}, Sizes: c.sizes, FakeImportC: true, IgnoreFuncBodies: !ours,
		Error: func(err error) {
			if ours {
				bad = append(bad, err)
			}
		},
	}
	if l.Module != nil && l.Module.GoVersion != "" {
		conf.GoVersion = "go" + l.Module.GoVersion
	}
	p, _ := conf.Check(l.ImportPath, c.fset, files, nil) // errors went to conf.Error
	c.done[l.ImportPath] = p
	return bad
}
