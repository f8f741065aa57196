package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func newStore(t testing.TB, edit ...func(*Config)) *Store {
	t.Helper()
	c := Config{Dir: filepath.Join(t.TempDir(), "images")}
	for _, e := range edit {
		e(&c)
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if work, _ := os.ReadDir(s.path("tmp")); len(work) > 0 {
			t.Errorf("work is left: %v", work)
		}
	})
	return s
}

func program(t testing.TB) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(p, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseName(t *testing.T) {
	sum := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"nginx":                    "docker.io/library/nginx:latest nginx",
		"nginx:1.27":               "docker.io/library/nginx:1.27 nginx",
		"docker.io/nginx":          "docker.io/library/nginx:latest nginx",
		"index.docker.io/team/app": "docker.io/team/app:latest team/app",
		"localhost:5000/app":       "localhost:5000/app:latest localhost:5000/app",
		"k8s.gcr.io/pause:3":       "k8s.gcr.io/pause:3 k8s.gcr.io/pause",
		"nginx@" + sum:             "docker.io/library/nginx@" + sum + " nginx",
		"nginx:1@" + sum:           "docker.io/library/nginx@" + sum + " nginx",
	} {
		n, err := ParseName(in)
		if got := n.String() + " " + n.Familiar(); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "Nginx", "a b", "nginx:", ":x", "nginx@sha256:12", "../x", "a//b", strings.Repeat("x", 2000), "nginx:" + strings.Repeat("t", 200)} {
		if n, err := ParseName(in); !errors.Is(err, ErrInvalidName) {
			t.Errorf("%q: %v %v", in, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("nginx:1.27")
	f.Add("a.b:5000/c/d@sha256:" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		if again, err := ParseName(n.String()); err != nil || again.String() != n.String() {
			t.Errorf("%q is %q, which is %q (%v)", s, n, again, err)
		}
	})
}

func TestMapAndResolve(t *testing.T) {
	s := newStore(t, func(c *Config) {
		c.BuiltIn = func(n Name) (Image, bool) {
			return Image{ID: "builtin:x"}, n.Repository == "docker.io/library/web"
		}
	})
	app, two := program(t), program(t)
	for name, path := range map[string]string{"app": app, "app:2": two} {
		if _, err := s.Map(t.Context(), name, path); err != nil {
			t.Fatal(err)
		}
	}
	resolve := func(ref, want string) {
		t.Helper()
		img, err := s.Resolve(t.Context(), ref, Never, Auth{})
		if err != nil || img.ID != want {
			t.Errorf("%s: %q %v, want %q", ref, img.ID, err, want)
		}
	}
	resolve("app", "local:"+app)
	resolve("app:1", "local:"+app)
	resolve("app:2", "local:"+two)
	resolve("docker.io/library/app:2", "local:"+two)
	resolve("web:3", "builtin:x")
	for _, ref := range []string{"other/app", "app@sha256:" + strings.Repeat("a", 64), "none"} {
		if _, err := s.Resolve(t.Context(), ref, Never, Auth{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := s.Resolve(t.Context(), "NONE", Never, Auth{}); !errors.Is(err, ErrInvalidName) {
		t.Error(err)
	}
	// What is mapped comes before what is built in; another process sees it.
	other, err := Open(Config{Dir: s.cfg.Dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Map(t.Context(), "web", app); err != nil {
		t.Fatal(err)
	}
	resolve("web:3", "local:"+app)
	if err := other.Remove("web"); err != nil {
		t.Fatal(err)
	}
	resolve("web:3", "builtin:x")
	if err := s.Remove("app:2"); err != nil {
		t.Fatal(err)
	}
	resolve("app:2", "local:"+app)
	if err := s.Remove("app:3"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removing a tag that is not mapped: %v", err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 || list[0].Name != "docker.io/library/app" {
		t.Errorf("%v %v", list, err)
	}
}

func TestMapDirectory(t *testing.T) {
	s := newStore(t)
	for text, want := range map[string][]string{
		"": nil,
		`{"Entrypoint":["/app"],"Cmd":["-x"],"WorkingDir":"/w","User":"7"}`:                                   {"/app"},
		`{"architecture":"amd64","config":{"Entrypoint":["/app"],"Cmd":["-x"],"WorkingDir":"/w","User":"7"}}`: {"/app"},
	} {
		dir := t.TempDir()
		if text != "" {
			os.WriteFile(filepath.Join(dir, "image.json"), []byte(text), 0o644)
		}
		img, err := s.Map(t.Context(), "dir", dir)
		if err != nil || !slices.Equal(img.Entrypoint, want) || len(img.Layers) != 1 || want != nil && (img.WorkDir != "/w" || img.User != "7" || img.Cmd[0] != "-x") {
			t.Errorf("%s: %+v %v", text, img, err)
		}
	}
	bad, oci := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(bad, "image.json"), []byte("{"), 0o644)
	os.WriteFile(filepath.Join(oci, "oci-layout"), []byte("{}"), 0o644)
	for path, want := range map[string]string{bad: "image.json", oci: "image load", "/dev/null": "neither", "/none": "no such file"} {
		if _, err := s.Map(t.Context(), "x", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

func TestManyWriters(t *testing.T) {
	s := newStore(t)
	app := program(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			own, err := Open(Config{Dir: s.cfg.Dir}) // as another process would
			if err == nil {
				_, err = own.Map(t.Context(), "app:"+string(rune('a'+i)), app)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := s.List(); err != nil || len(list) != 20 {
		t.Errorf("%d of 20 names, %v", len(list), err)
	}
}

func TestOpenAfterCrash(t *testing.T) {
	s := newStore(t)
	// One who died in the middle, and one who still works.
	for _, name := range []string{"w1", "w3"} {
		os.MkdirAll(s.path("tmp", name, "layer"), 0o700)
	}
	os.WriteFile(s.path("tmp", "w1.lock"), nil, 0o600)
	dir, done, err := s.workspace()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: s.cfg.Dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("the work of a living process was removed")
	}
	done()
	if left, _ := os.ReadDir(s.path("tmp")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	os.WriteFile(s.path("index.json"), []byte("{"), 0o600)
	if _, err := Open(Config{Dir: s.cfg.Dir}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged index: %v", err)
	}
}

func TestBadArchives(t *testing.T) {
	s := newStore(t, func(c *Config) { c.MaxBytes = 1 << 20 })
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                      {nil, "empty"},
		"text":                       {[]byte(strings.Repeat("hello ", 1000)), "no image archive"},
		"cut off":                    {layer(t, names("manifest.json", "x")...)[:700], "bad image"},
		"no image":                   {layer(t, names("a", "b")...), "neither"},
		"bad manifest":               {layer(t, entry{name: "manifest.json", content: "[{"}), "manifest.json"},
		"empty manifest":             {layer(t, entry{name: "manifest.json", content: "[]"}), "names no image"},
		"missing config":             {layer(t, entry{name: "manifest.json", content: `[{"Config":"c.json"}]`}), "c.json"},
		"links in a ring":            {layer(t, append(names("c.json -> c.json"), entry{name: "manifest.json", content: `[{"Config":"c.json"}]`})...), "c.json"},
		"bad name":                   {layer(t, entry{name: "manifest.json", content: `[{"Config":"c.json","RepoTags":["A B"]}]`}), "invalid"},
		"an index without its blobs": {layer(t, entry{name: "index.json", content: `{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`}), "blobs/sha256"},
		"too large":                  {bytes.Repeat([]byte{0}, 2<<20), "larger"},
		"xz":                         {[]byte("\xfd7zXZ\x00 and so on"), "xz"},
		"bad gzip":                   {[]byte("\x1f\x8b\x08 and so on"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Load(t.Context(), bytes.NewReader(tc.data), "")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Load(ctx, bytes.NewReader(layer(t, names("a")...)), ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a load that was given up: %v", err)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(layer(f, entry{name: "manifest.json", content: `[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l"]}]`}, entry{name: "c.json", content: "{}"}))
	f.Add(layer(f, entry{name: "index.json", content: `{"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := indexTar(bytes.NewReader(b))
		if err != nil {
			return
		}
		all, err := readArchive(a)
		if err != nil {
			return
		}
		for _, in := range all {
			for _, open := range in.layers {
				if r, err := open(); err == nil {
					r.Close()
				}
			}
		}
	})
}
