//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// entry is a file of a layer.
type entry struct {
	name, link string
	body       []byte
	mode       int64
}

func layer(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), Typeflag: tar.TypeReg}
		switch {
		case e.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// archive is what 'docker save' writes: one image with these layers.
func archive(t testing.TB, name string, config map[string]any, layers ...[]byte) []byte {
	t.Helper()
	sum := func(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
	var diffs, names []string
	var files []entry
	for _, l := range layers {
		diffs, names = append(diffs, "sha256:"+sum(l)), append(names, sum(l)+"/layer.tar")
		files = append(files, entry{name: sum(l) + "/layer.tar", body: l, mode: 0o644})
	}
	cfg, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": sum(cfg) + ".json", "RepoTags": []string{name}, "Layers": names}})
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, entry{name: sum(cfg) + ".json", body: cfg, mode: 0o644}, entry{name: "manifest.json", body: manifest, mode: 0o644})
	return layer(t, files...)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// staticServer is a program without a file system around it.
const staticServer = `package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	fmt.Println("serving", os.Args[1:], os.Getenv("GREETING"))
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, os.Getenv("GREETING"), os.Getuid()) })
	http.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	fmt.Println(http.ListenAndServe(":8080", nil))
}
`

// TestPodsImage: an archive made of this machine's files is loaded and run as
// what it says it is: its own files only, its user, environment and command.
func TestPodsImage(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 1)
	ns := c.namespace(t, "image")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(staticServer), 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "serve"), filepath.Join(dir, "main.go"))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a static program: %v\n%s", err, out)
	}
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	shell, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	base := []entry{{name: "bin/", mode: 0o755}, {name: "bin/busybox", body: read(shell), mode: 0o755}, {name: "etc/", mode: 0o755}, {name: "etc/passwd", body: []byte("root:x:0:0::/:/bin/sh\napp:x:1234:1234::/:/bin/sh\n"), mode: 0o644}, {name: "tmp/", mode: 0o1777}, {name: "gone", body: []byte("x"), mode: 0o644}}
	for _, p := range []string{"sh", "ls", "cat", "id", "echo", "sleep", "env", "tar", "nslookup", "wget", "touch"} {
		base = append(base, entry{name: "bin/" + p, link: "busybox", mode: 0o777})
	}
	top := []entry{{name: "srv/", mode: 0o755}, {name: "srv/serve", body: read(filepath.Join(dir, "serve")), mode: 0o755}, {name: ".wh.gone", mode: 0o644}}
	text := archive(t, "example.com/app:1.0", map[string]any{
		"Entrypoint": []string{"/srv/serve"}, "Cmd": []string{"by", "default"}, "Env": []string{"PATH=/bin:/srv", "GREETING=hello"}, "WorkingDir": "/srv", "User": "app",
	}, layer(t, base...), layer(t, top...))
	file := filepath.Join(dir, "app.tar.gz")
	if err := os.WriteFile(file, gzipped(t, text), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := c.fingerpost(t, 0, "image", "load", file, "--data-dir", c.data(0)); r.code != 0 || !strings.Contains(r.out, "loaded example.com/app:1.0") {
		t.Fatalf("image load: %d %s%s", r.code, r.out, r.err)
	}
	c.apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: app
    image: example.com/app:1.0
    args: [by, "$(NAME)", $$(NAME)]
    env: [{name: NAME, value: me}]
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 100}
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 20}
    livenessProbe: {exec: {command: [/bin/sh, -c, "test -x /srv/serve"]}, periodSeconds: 1, timeoutSeconds: 20}
`)
	p := c.pod(t, ns, "app", "ready", podReady)
	if code, body := c.server().fetch("http://" + p.Status.PodIP + ":8080/"); code != 200 || body != "hello 1234\n" {
		t.Errorf("the program answers %d %q, want its environment and user", code, body)
	}
	if got := c.must(t, "logs", "-n", ns, "app"); got != "serving [by me $(NAME)] hello\n" {
		t.Errorf("logs: %q", got)
	}
	if got := c.must(t, "exec", "-n", ns, "app", "--", "sh", "-c", "id -u; echo $PWD; ls /; touch /srv/x 2>&1 || :"); !strings.HasPrefix(got, "1234\n/srv\n") || strings.Contains(got, "gone") || !strings.Contains(got, "Permission denied") || strings.Contains(got, "home") {
		t.Errorf("inside: %q", got)
	}
	if got := c.must(t, "get", "pod", "app", "-n", ns, "-o", "jsonpath={.status.containerStatuses[0].imageID}"); !strings.Contains(got, "sha256:") {
		t.Errorf("imageID %q", got)
	}
	// In and out with tar, as kubectl cp does.
	local := filepath.Join(dir, "local")
	if err := os.WriteFile(local, []byte("copied\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.must(t, "cp", "-n", ns, local, "app:/tmp/there")
	c.must(t, "cp", "-n", ns, "app:/tmp/there", filepath.Join(dir, "back"))
	if got := string(read(filepath.Join(dir, "back"))); got != "copied\n" {
		t.Errorf("cp there and back: %q", got)
	}
}

// TestPodsBadImage: what cannot be an image, or must not be, is refused with a
// word on it, and leaves nothing.
func TestPodsBadImage(t *testing.T) {
	t.Parallel()
	c := podClusters.shared(t, 1)
	ns := c.namespace(t, "badimage")
	config := map[string]any{"Cmd": []string{"/x"}}
	good := archive(t, "example.com/good:1", config, layer(t, entry{name: "x", body: []byte("x"), mode: 0o755}))
	outside := filepath.Join(t.TempDir(), "outside")
	flip := bytes.Clone(good)
	flip[bytes.Index(flip, []byte("x\x00"))+512] ^= 1 // of the layer's content
	for name, text := range map[string][]byte{
		"empty": nil, "text": []byte("this is no archive"), "cut": good[:len(good)/2], "zeros": make([]byte, 4096), "gzip cut": gzipped(t, good)[:100], "changed": flip,
		"dots":     archive(t, "example.com/bad:1", config, layer(t, entry{name: "../../../../.." + outside, body: []byte("x"), mode: 0o644})),
		"absolute": archive(t, "example.com/bad:2", config, layer(t, entry{name: outside, body: []byte("x"), mode: 0o644})),
		"link":     archive(t, "example.com/bad:3", config, layer(t, entry{name: "l", link: filepath.Dir(outside), mode: 0o777}, entry{name: "l/outside", body: []byte("x"), mode: 0o644})),
		"up":       archive(t, "example.com/bad:4", config, layer(t, entry{name: "l", link: "../../../../../../../../..", mode: 0o777}, entry{name: "l" + outside, body: []byte("x"), mode: 0o644})),
	} {
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		r := c.fingerpost(t, 0, "image", "load", file, "--data-dir", c.data(0))
		inside := name == "dots" || name == "absolute" || name == "link" || name == "up" // refused, or kept inside
		if (r.code == 0 && !inside) || strings.Contains(r.err, "panic") || r.code != 0 && r.err == "" {
			t.Errorf("%s: exit %d %s%s", name, r.code, r.out, r.err)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Fatalf("%s wrote outside of the image", name)
		}
	}
	c.apply(t, ns, `
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec: {containers: [{name: c, image: "example.com/nothing:1", imagePullPolicy: Never}]}
---
apiVersion: v1
kind: Pod
metadata: {name: unreachable}
spec: {containers: [{name: c, image: "127.0.0.1:9/nothing:1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: misnamed}
spec: {containers: [{name: c, image: "UPPER CASE"}]}
`)
	waits := func(reasons ...string) func(p *corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			for _, s := range p.Status.ContainerStatuses {
				if w := s.State.Waiting; w != nil && w.Reason == reasons[0] {
					return p.Status.Phase == corev1.PodPending
				}
			}
			return false
		}
	}
	c.pod(t, ns, "missing", "ErrImageNeverPull", waits("ErrImageNeverPull"))
	c.pod(t, ns, "misnamed", "InvalidImageName", waits("InvalidImageName"))
	c.pod(t, ns, "unreachable", "ErrImagePull", waits("ErrImagePull"))
	c.pod(t, ns, "unreachable", "ImagePullBackOff", waits("ImagePullBackOff"))
	c.event(t, ns, "unreachable", "Failed", `Failed to pull image "127.0.0.1:9/nothing:1"`)
	c.event(t, ns, "unreachable", "BackOff", "Back-off pulling image")
	c.must(t, "delete", "pod", "--all", "-n", ns, "--timeout=120s")
}
