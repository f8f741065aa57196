package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"
)

// build makes an image of layers.
func build(t testing.TB, layers ...[]byte) v1.Image {
	t.Helper()
	img := empty.Image
	var err error
	for _, data := range layers {
		l, lerr := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if lerr != nil {
			t.Fatal(lerr)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config = v1.Config{Entrypoint: []string{"/bin/hello"}, Cmd: []string{"you"}, Env: []string{"A=b"}, WorkingDir: "/bin", User: "7:8", StopSignal: "SIGINT"}
	if img, err = mutate.ConfigFile(img, cf); err != nil {
		t.Fatal(err)
	}
	return img
}

// saved is what docker save writes.
func saved(t testing.TB, ref string, img v1.Image) []byte {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tarball.Write(tag, img, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRealImage: busybox and a static Go program, as people build images.
func TestRealImage(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (Debian: busybox-static)")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "hello.go")
	os.WriteFile(source, []byte("package main\nfunc main() { println(\"hello\") }\n"), 0o644)
	build1 := exec.Command("go", "build", "-o", filepath.Join(dir, "hello"), source)
	build1.Env = append(os.Environ(), "CGO_ENABLED=0", "GO111MODULE=off")
	if out, err := build1.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	box, err1 := os.ReadFile(busybox)
	hello, err2 := os.ReadFile(filepath.Join(dir, "hello"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	exe := entry{name: "bin/busybox", content: string(box)}
	app := entry{name: "bin/hello", content: string(hello)}
	for _, e := range []*entry{&exe, &app} {
		e.edit = execMode
	}
	img := build(t, layer(t, append(names("bin/", "tmp/old", "bin/sh -> busybox"), exe)...), layer(t, append(names("tmp/.wh.old"), app)...))
	data := saved(t, "shop:1", img)
	for what, packed := range map[string][]byte{"plain": data, "gzip": gzipped(data), "zstd": zstded(t, data)} {
		s := newStore(t)
		got, err := s.Load(t.Context(), bytes.NewReader(packed), "")
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		i := got[0]
		if i.Name != "docker.io/library/shop:1" || fmt.Sprintf("%v %v %v %v %v %v", i.Entrypoint, i.Cmd, i.Env, i.WorkDir, i.User, i.StopSignal) != "[/bin/hello] [you] [A=b] /bin 7:8 SIGINT" || i.Size < int64(len(box)+len(hello)) {
			t.Errorf("%s: %+v", what, i)
		}
		if len(i.Layers) != 2 || !slices.Equal(tree(t, i.Layers[0]), []string{"bin/", "bin/busybox", "bin/sh -> busybox", "tmp/", "tmp/old: tmp/old"}) || !slices.Equal(tree(t, i.Layers[1]), []string{"bin/", "bin/hello", "tmp/", "tmp/old hidden"}) {
			t.Errorf("%s: layers %q %q", what, tree(t, i.Layers[0]), tree(t, i.Layers[1]))
		}
		if out, err := exec.Command(filepath.Join(i.Layers[1], "bin/hello")).CombinedOutput(); err != nil || string(out) != "hello\n" {
			t.Errorf("%s: %q %v", what, out, err)
		}
		// Always means a registry, but not for what was loaded by hand.
		if again, err := s.Resolve(t.Context(), "shop:1", Always, Auth{}); err != nil || again.ID != i.ID {
			t.Errorf("%s: %v %v", what, again, err)
		}
		if err := s.Remove("shop:1"); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(s.path("layers")); len(left) != 0 {
			t.Errorf("%s: %d layers are left", what, len(left))
		}
	}
}

func TestLayout(t *testing.T) {
	img := build(t, layer(t, names("a")...))
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "example.com/app:2"})); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	got, err := s.LoadFile(t.Context(), dir, "")
	if err != nil || len(got) != 1 || got[0].Name != "example.com/app:2" {
		t.Fatalf("%v %v", got, err)
	}
	digest, _ := img.Digest()
	if i, err := s.Get("example.com/app@" + digest.String()); err != nil || i.ID != got[0].ID || i.Digest != digest.String() {
		t.Errorf("by digest: %v %v", i, err)
	}
	if got, err := s.LoadFile(t.Context(), dir, "mine"); err != nil || got[0].Name != "docker.io/library/mine:latest" {
		t.Errorf("with a name: %v %v", got, err)
	}
	blobs, _ := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
	for _, b := range blobs {
		data, _ := os.ReadFile(b)
		if !json.Valid(data) {
			continue
		}
		os.WriteFile(b, append(data, ' '), 0o644)
		if _, err := newStore(t).LoadFile(t.Context(), dir, ""); !errors.Is(err, ErrBadImage) {
			t.Errorf("a changed %s: %v", data, err)
		}
		os.WriteFile(b, data, 0o644)
	}
}

func TestHostileImages(t *testing.T) {
	other := build(t, layer(t, names("other")...))
	cf, _ := other.ConfigFile()
	lie := cf.DeepCopy()
	lie.RootFS.DiffIDs = []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}
	foreign := cf.DeepCopy()
	foreign.Architecture = "s390x"
	short := cf.DeepCopy()
	short.RootFS.DiffIDs = nil
	archive := func(cf *v1.ConfigFile) []byte {
		data, _ := json.Marshal(cf)
		return layer(t, entry{name: "c", content: string(data)}, entry{name: "l", content: string(layer(t, names("other")...))},
			entry{name: "manifest.json", content: `[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]`})
	}
	for what, tc := range map[string]struct {
		data []byte
		want string
	}{
		"outside":       {saved(t, "bad:1", build(t, layer(t, names("ok")...), layer(t, names("../../evil")...))), "outside"},
		"checksum":      {archive(lie), "checksum"},
		"machine":       {archive(foreign), "s390x"},
		"no layers":     {archive(short), "names 0 layers"},
		"too many":      {saved(t, "bad:1", build(t, layer(t, names(slices.Repeat([]string{"d/"}, 200)...)...))), "more files"},
		"too large":     {saved(t, "bad:1", build(t, layer(t, entry{name: "big", content: strings.Repeat("x", 3<<20)}))), "larger"},
		"compress bomb": {gzipped(make([]byte, 30<<20)), "larger"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStore(t, func(c *Config) { c.MaxBytes, c.MaxEntries = 2<<20, 100 })
			if _, err := s.Load(t.Context(), bytes.NewReader(tc.data), ""); !errors.Is(err, ErrBadImage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if list, _ := s.List(); len(list) != 0 {
				t.Errorf("there is %v", list)
			}
			if left, _ := os.ReadDir(s.path("layers")); len(left) != 0 {
				t.Errorf("%d layers are left", len(left))
			}
		})
	}
}

// withRegistry serves a registry, and counts what is fetched.
func withRegistry(t *testing.T, guard func(*http.Request) bool) (host string, blobs *atomic.Int32) {
	t.Helper()
	blobs = new(atomic.Int32)
	h := registry.New(registry.Logger(discard()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guard != nil && !guard(r) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), blobs
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err == nil {
		err = remote.Write(r, img)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	host, blobs := withRegistry(t, nil)
	img := build(t, layer(t, names("a")...), layer(t, names("b")...))
	ref := host + "/team/app:1"
	push(t, ref, img)
	blobs.Store(0)
	s := newStore(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := s.Resolve(t.Context(), ref, IfNotPresent, Auth{}); err != nil || len(got.Layers) != 2 || got.Source != Pulled {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := blobs.Load(); n > 6 { // two layers and a configuration, if all came at once
		t.Errorf("8 pulls fetched %d blobs", n)
	}
	digest, _ := img.Digest()
	if got, err := s.Resolve(t.Context(), host+"/team/app@"+digest.String(), Never, Auth{}); err != nil || got.Digest != digest.String() {
		t.Errorf("by digest: %+v %v", got, err)
	}
	// The tag moves: only Always sees it, and only what is new is fetched.
	first, _ := s.Get(ref)
	push(t, ref, build(t, layer(t, names("a")...), layer(t, names("c")...)))
	blobs.Store(0)
	if got, err := s.Resolve(t.Context(), ref, IfNotPresent, Auth{}); err != nil || got.ID != first.ID {
		t.Errorf("IfNotPresent: %v %v", got, err)
	}
	second, err := s.Resolve(t.Context(), ref, Always, Auth{})
	if err != nil || second.ID == first.ID || second.Layers[0] != first.Layers[0] {
		t.Errorf("Always: %v %v", second, err)
	}
	if n := blobs.Load(); n != 2 {
		t.Errorf("%d blobs were fetched, want the configuration and one layer", n)
	}
	// Garbage: the first has no name any more, the second is in use.
	if _, err := s.GC(func(id string) bool { return id == second.ID }); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(s.path("layers")); len(left) != 2 {
		t.Errorf("%d layers are left, want 2", len(left))
	}
	if freed, err := s.GC(func(string) bool { return false }); err != nil || freed == 0 {
		t.Errorf("%d freed, %v", freed, err)
	}
	if list, _ := s.List(); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
	for ref, want := range map[string]error{host + "/team/app:none": ErrNoSuchImage, host + "/none": ErrNoSuchImage, "Bad": ErrInvalidName} {
		if _, err := s.Pull(t.Context(), ref, Auth{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", ref, err, want)
		}
	}
	if _, err := s.Pull(t.Context(), "127.0.0.1:1/app", Auth{}); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("no registry: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Pull(ctx, ref, Auth{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a pull that was given up: %v", err)
	}
}

func TestPullWithCredentials(t *testing.T) {
	host, _ := withRegistry(t, func(r *http.Request) bool {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return true
		}
		user, password, _ := r.BasicAuth()
		return user == "me" && password == "secret" || r.Header.Get("User-Agent") != "" && !strings.HasPrefix(r.UserAgent(), "fingerpost")
	})
	push(t, host+"/team/app", build(t, layer(t, names("a")...)))
	s := newStore(t)
	for what, tc := range map[string]struct {
		doc string
		ok  bool
	}{
		"none":          {`{}`, false},
		"right":         {`{"auths":{"` + host + `":{"username":"me","password":"secret"}}}`, true},
		"coded":         {`{"auths":{"http://` + host + `/v1/":{"auth":"bWU6c2VjcmV0"}}}`, true},
		"old form":      {`{"` + host + `":{"auth":"bWU6c2VjcmV0"}}`, true},
		"path":          {`{"auths":{"` + host + `":{"username":"x","password":"y"},"` + host + `/team":{"auth":"bWU6c2VjcmV0"}}}`, true},
		"other path":    {`{"auths":{"` + host + `/te":{"auth":"bWU6c2VjcmV0"}}}`, false},
		"wrong":         {`{"auths":{"` + host + `":{"username":"me","password":"no"}}}`, false},
		"other machine": {`{"auths":{"example.com":{"auth":"bWU6c2VjcmV0"}}}`, false},
		"damaged":       {`{"auths":`, false},
	} {
		_, err := s.Pull(t.Context(), host+"/team/app", Auth{DockerConfigs: [][]byte{[]byte(tc.doc)}})
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the password: %v", what, err)
		}
	}
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

func execMode(h *tar.Header) { h.Mode = 0o755 }

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
