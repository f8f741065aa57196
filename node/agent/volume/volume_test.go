package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

type objects struct {
	maps   map[string]map[string]string
	tokens int
	err    error
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if d, ok := o.maps[name]; ok {
		return &corev1.ConfigMap{Data: d, BinaryData: map[string][]byte{"bin": {0, 255}}}, nil
	}
	return nil, fmt.Errorf("configmap %q %w", name, envvar.ErrNotFound)
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if name != "s" {
		return nil, fmt.Errorf("secret %q %w", name, envvar.ErrNotFound)
	}
	return &corev1.Secret{Data: map[string][]byte{"k": []byte("v")}}, nil
}

func (o *objects) Token(_ context.Context, _ *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	if o.err != nil {
		return "", time.Time{}, o.err
	}
	o.tokens++
	return fmt.Sprintf("%s-%d", audience, o.tokens), time.Now().Add(time.Duration(seconds) * time.Second), nil
}

func fields(t *testing.T, volumes string) envvar.Fields {
	t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"a": "b"}}}
	if err := yaml.UnmarshalStrict([]byte("volumes:\n"+volumes), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return envvar.Fields{Pod: p}
}

// tree tells what a container sees of a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(d.Name(), "..") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			if entries, err := os.ReadDir(path); err == nil && d.Type()&fs.ModeSymlink != 0 {
				for _, e := range entries {
					data, _ := os.ReadFile(filepath.Join(path, e.Name()))
					out = append(out, fmt.Sprintf("%s/%s=%q", name, e.Name(), data))
				}
			}
			return nil
		}
		data, err := os.ReadFile(path)
		out = append(out, fmt.Sprintf("%s=%q %o", name, data, info.Mode().Perm()))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return strings.Join(out, ", ")
}

func TestMount(t *testing.T) {
	o := &objects{maps: map[string]map[string]string{"c": {"x": "1", "y": "2"}}}
	dir := t.TempDir()
	s := New(Config{Dir: filepath.Join(dir, "v"), Volatile: filepath.Join(dir, "m"), Objects: o})
	for _, tc := range []struct{ volume, path, want, err string }{
		{"{name: a, configMap: {name: c}}", "v/a", `bin="\x00\xff" 644, x="1" 644, y="2" 644`, ""},
		{"{name: b, configMap: {name: c, defaultMode: 256, items: [{key: x, path: sub/f, mode: 292}]}}", "v/b", `sub/f="1"`, ""},
		{"{name: c, secret: {secretName: s}}", "m/c", `k="v" 644`, ""},
		{"{name: d, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}", "v/d", `l="a=\"b\"" 644`, ""},
		{"{name: e, emptyDir: {}}", "v/e", "", ""},
		{"{name: f, configMap: {name: none, optional: true}}", "v/f", "", ""},
		{"{name: g, configMap: {name: none}}", "", "", `MountVolume.SetUp failed for volume "g" : configmap "none" not found`},
		{"{name: h, configMap: {name: c, items: [{key: z, path: z}]}}", "", "", `references non-existent config key: z`},
		{"{name: i, configMap: {name: c, items: [{key: x, path: ../../x}]}}", "", "", "leads out of the volume"},
		{"{name: j, nfs: {server: a, path: b}}", "", "", "no driver"},
		{"{name: k, hostPath: {path: " + dir + "/made, type: DirectoryOrCreate}}", "made", "", ""},
		{"{name: l, hostPath: {path: " + dir + "/none, type: Directory}}", "", "", "is not a directory: it does not exist"},
		{"{name: m, hostPath: {path: " + dir + ", type: Socket}}", "", "", "is not a socket file"},
		{"{name: o, projected: {sources: [{configMap: {name: c, items: [{key: x, path: x}]}}, {secret: {name: s}}, {serviceAccountToken: {path: t, audience: aud}}]}}", "m/o", `k="v" 644, t="aud-1" 644, x="1" 644`, ""},
	} {
		got, _, err := s.Mount(t.Context(), fields(t, "- "+tc.volume))
		switch {
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %s", tc.volume, err, tc.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tc.volume, err)
		default:
			for _, v := range got {
				if v.Path != filepath.Join(dir, tc.path) {
					t.Errorf("%s is at %s", tc.volume, v.Path)
				}
				if is := tree(t, v.Path); is != tc.want {
					t.Errorf("%s: %s, want %s", tc.volume, is, tc.want)
				}
			}
		}
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "v")); !os.IsNotExist(err) {
		t.Error("volumes are left")
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err != nil {
		t.Error("the hostPath is gone")
	}
}

// A change is seen at once through the links, nothing old is left, and what is
// the same is not written.
func TestUpdate(t *testing.T) {
	o := &objects{maps: map[string]map[string]string{"c": {"x": "1", "y": "2"}}}
	dir := t.TempDir()
	s := New(Config{Dir: dir, Objects: o})
	f := fields(t, "- {name: a, configMap: {name: c}}")
	mount := func() string {
		if _, _, err := s.Mount(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		to, err := os.Readlink(filepath.Join(dir, "a", "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return to
	}
	first := mount()
	if again := mount(); again != first {
		t.Error("written although nothing changed")
	}
	o.maps["c"] = map[string]string{"x": "3", "z": "4"}
	if mount() == first {
		t.Error("not written")
	}
	if got := tree(t, filepath.Join(dir, "a")); got != `bin="\x00\xff" 644, x="3" 644, z="4" 644` {
		t.Error(got)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "a")); len(entries) != 5 {
		t.Errorf("%v", entries)
	}
}

func TestTokenKeptWithAPIAway(t *testing.T) {
	o := &objects{}
	s := New(Config{Dir: t.TempDir(), Objects: o})
	f := fields(t, "- {name: a, projected: {sources: [{serviceAccountToken: {path: t}}]}}")
	_, again, err := s.Mount(t.Context(), f)
	if d := time.Until(again); err != nil || d < 47*time.Minute || d > 48*time.Minute {
		t.Errorf("again in %s, %v", d, err)
	}
	tok := s.tokens["a/t"]
	tok.renewAt = time.Now()
	s.tokens["a/t"] = tok
	o.err = errors.New("away")
	if _, again, err = s.Mount(t.Context(), f); err != nil || time.Until(again) > time.Minute {
		t.Errorf("%s %v", time.Until(again), err)
	}
	tok.expires = time.Now()
	s.tokens["a/t"] = tok
	if _, _, err = s.Mount(t.Context(), f); err == nil {
		t.Error("a token that ended is given")
	}
}

func TestSub(t *testing.T) {
	dir := t.TempDir()
	vol := filepath.Join(dir, "vol")
	secret := filepath.Join(dir, "secret")
	for _, d := range []string{vol, secret} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"out": secret, "up": "../secret", "in": "a"} {
		if err := os.Symlink(to, filepath.Join(vol, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Sub(vol, "a/b"); err != nil || got != filepath.Join(vol, "a/b") {
		t.Error(got, err)
	}
	if got, err := Sub(vol, "in/b"); err != nil || got != filepath.Join(vol, "a/b") {
		t.Error(got, err)
	}
	for _, bad := range []string{"../secret", "/etc", "out", "out/x", "up", "up/new", "a/../../secret"} {
		if got, err := Sub(vol, bad); err == nil {
			t.Errorf("%s leads to %s", bad, got)
		}
	}
	if entries, _ := os.ReadDir(secret); len(entries) > 0 {
		t.Errorf("made outside: %v", entries)
	}
}

func FuzzWrite(f *testing.F) {
	f.Add("a/b")
	f.Add("../x")
	f.Add("..data")
	f.Fuzz(func(t *testing.T, name string) {
		dir := t.TempDir()
		if err := Write(filepath.Join(dir, "v"), map[string]File{name: {Data: []byte("x"), Mode: 0o600}}, nil); err != nil {
			return
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%q wrote outside: %v", name, entries)
		}
	})
}

func TestMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("takes root")
	}
	dir := t.TempDir()
	s := New(Config{Dir: filepath.Join(dir, "with space"), Objects: &objects{}})
	f := fields(t, "- {name: a, emptyDir: {medium: Memory, sizeLimit: 1Mi}}")
	for range 2 {
		if _, _, err := s.Mount(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if path := filepath.Join(dir, "with space", "a"); !IsMount(path) {
		t.Error("no mount")
	} else if err := os.WriteFile(filepath.Join(path, "big"), make([]byte, 2<<20), 0o644); err == nil {
		t.Error("the limit is none")
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), dir) {
		t.Error("mounts are left")
	}
}
