//go:build linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestStartRefused: what cannot work is refused at the start, with a sentence
// that says what to do, and nothing is changed by it.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	up := common.system(t)
	at := newSite(t)
	// One that was started and stopped, so that there is something to lose.
	used := layout(at, 1, t.TempDir()).launch(t, "dev")
	used.must(t, "create", "configmap", "precious", "--from-literal=a=b")
	used.stop()
	otherVersion := layout(at, 1, t.TempDir())
	if err := os.CopyFS(otherVersion.data, os.DirFS(used.data)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(otherVersion.data, "layout"), "fingerpost-data 99\n")
	foreign := layout(at, 1, t.TempDir())
	write(t, filepath.Join(foreign.data, "etcd", "member", "snap", "db"), "somebody's etcd")
	damaged := layout(at, 1, t.TempDir())
	if err := os.CopyFS(damaged.data, os.DirFS(used.data)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(damaged.data, "etcd", "member", "snap", "db"), strings.Repeat("garbage ", 10000))
	badCA := layout(at, 1, t.TempDir())
	write(t, filepath.Join(badCA.data, "pki", "ca.crt"), "garbage")
	write(t, filepath.Join(badCA.data, "pki", "ca.key"), "garbage")
	occupied := filepath.Join(t.TempDir(), "file")
	write(t, occupied, "")
	held, err := net.ListenPacket("udp", at.at(0, 9, 8053))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()

	for _, c := range []struct {
		name string
		sys  *system // whose data directory; nil: a fresh one
		args []string
		code int
		want []string
	}{
		{"API port in use", nil, []string{"--listen", up.listen}, 1, []string{up.listen, "in use", "--listen"}},
		{"DNS port in use", nil, []string{"--dns-address", up.dns}, 1, []string{up.dns, "in use", "--dns-address"}},
		{"DNS UDP port in use", nil, []string{"--dns-address", at.at(0, 9, 8053)}, 1, []string{"in use", "--dns-address"}},
		{"metrics port in use", nil, []string{"--metrics-address", up.obs}, 1, []string{up.obs, "in use", "--metrics-address"}},
		{"data directory in use", up, nil, 1, []string{up.data, fmt.Sprintf("process %d", up.cmd.Process.Pid), "--data-dir"}},
		{"data directory of another version", otherVersion, nil, 1, []string{"another version", "fingerpost-data 99", "--data-dir"}},
		{"data directory of an etcd", foreign, nil, 1, []string{"not made by fingerpost", "--data-dir"}},
		{"damaged database", damaged, nil, 1, []string{"cannot be read", "snapshot restore"}},
		{"damaged CA", badCA, nil, 1, []string{"pki/ca.", "backup"}},
		{"a file is in the way", nil, []string{"--data-dir", filepath.Join(occupied, "x")}, 1, []string{"not a directory", "--data-dir"}},
		{"another service range", used, []string{"--service-cidr", fmt.Sprintf("127.%d.64.0/18", at.n)}, 1, []string{at.cidr(), "--service-cidr"}},
		{"no etcd there", nil, []string{"--etcd-endpoints", "http://" + at.at(0, 9, 2379)}, 1, []string{"does not answer", "--etcd-endpoints"}},
		{"no such CA", nil, []string{"--etcd-endpoints", "https://" + at.at(0, 9, 2379), "--etcd-cafile", "nowhere.pem"}, 1, []string{"nowhere.pem"}},
		{"no such address", nil, []string{"--listen", "192.0.2.1:6443"}, 1, []string{"192.0.2.1", "--listen"}},
		{"unknown flag", nil, []string{"--frob"}, 2, []string{"--frob", "--help"}},
		{"argument", nil, []string{"frob"}, 2, []string{"frob"}},
		{"no range", nil, []string{"--service-cidr", "frob"}, 2, []string{"--service-cidr", "10.96.0.0/16"}},
		{"no level", nil, []string{"--log-level", "frob"}, 2, []string{"--log-level", "debug"}},
		{"no format", nil, []string{"--log-format", "frob"}, 2, []string{"--log-format", "json"}},
		{"no port range", nil, []string{"--node-port-range", "1-99999"}, 2, []string{"--node-port-range"}},
		{"no node address", nil, []string{"--node-address", "frob"}, 2, []string{"--node-address"}},
		{"no listen address", nil, []string{"--listen", "frob"}, 2, []string{"--listen", "frob"}},
		{"no DNS address", nil, []string{"--dns-address", "frob"}, 2, []string{"--dns-address", "frob"}},
		{"no node name", nil, []string{"--node-name", "Not a Name"}, 2, []string{"--node-name"}},
		{"no advertised address", nil, []string{"--advertise-address", "frob"}, 2, []string{"--advertise-address"}},
		{"certificate without key", nil, []string{"--etcd-certfile", "x"}, 2, []string{"--etcd-keyfile"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sys := c.sys
			if sys == nil || sys == up {
				sys = layout(at, 1, t.TempDir())
				if c.sys == up {
					sys.data = up.data
				}
			}
			args := sys.args("dev")
			for i := 0; i+1 < len(c.args); i += 2 { // given once, so that lists do not grow
				for j := 1; j+1 < len(args); j += 2 {
					if args[j] == c.args[i] {
						args = append(args[:j:j], args[j+2:]...)
					}
				}
			}
			code, text := sys.refused(t, append(args, c.args...)...)
			if code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			last := text[strings.LastIndex(text, "fingerpost: ")+1:]
			for _, w := range c.want {
				if !strings.Contains(last, w) {
					t.Errorf("it does not say %q", w)
				}
			}
			if strings.Contains(text, "goroutine ") {
				t.Error("it panics")
			}
			if t.Failed() {
				t.Logf("it says:\n%s", tail(text, 20))
			}
		})
	}
	used.launch(t, "dev")
	if got := used.must(t, "get", "configmap", "precious", "-o", "jsonpath={.data.a}"); got != "b" {
		t.Errorf("what was there is lost: %q", got)
	}
}

// refused runs what should end by itself before it is ready.
func (s *system) refused(t testing.TB, args ...string) (code int, text string) {
	t.Helper()
	c := start(t, "refused", s.fingerpost(t, args...))
	eventually(t, "the end, or a start", func() error {
		return unless(c.ended() || strings.Contains(c.text(), "is ready"), "neither:\n%s", c.text())
	})
	if !c.ended() {
		c.stop()
		return -1, "it starts"
	}
	return c.code(t), c.text()
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk: on a full disk writes are refused one by one with a clear
// error, reading and deleting go on, and when there is space again all is as
// before.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=400m,mode=0700"); err != nil {
		t.Skipf("a small disk cannot be mounted (%v): it takes root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	sys := layout(newSite(t), 1, dir)
	sys.home = t.TempDir() // kubectl's cache is not what fills the disk
	sys.launch(t, "dev")
	api := sys.api(t)
	const maps = "/api/v1/namespaces/default/configmaps"
	config := func(name string) string { return `{"metadata":{"name":"` + name + `"},"data":{"a":"b"}}` }
	for i := range 20 {
		api.want(t, http.StatusCreated, "POST", maps, config(fmt.Sprintf("before-%d", i)))
	}

	fill(t, filepath.Join(dir, "filler"))
	var refusal string
	eventually(t, "writes are refused", func() error {
		code, text := api.do("POST", maps, config("full"))
		if code == http.StatusCreated { // the look at the disk was before it filled up
			api.do("DELETE", maps+"/full", "")
		}
		refusal = text
		return unless(code == http.StatusInsufficientStorage, "%d %s", code, text)
	})
	if !strings.Contains(refusal, "full") || !strings.Contains(refusal, "MiB") {
		t.Errorf("the refusal does not say why: %s", refusal)
	}
	r := finish(t, sys.kubectl(t, "create", "configmap", "full", "--from-literal=a=b"))
	if r.code == 0 || !strings.Contains(r.err, "full") {
		t.Errorf("kubectl: exit %d\n%s%s", r.code, r.out, r.err)
	}
	for i := range 3 {
		api.want(t, http.StatusInsufficientStorage, "PATCH", fmt.Sprintf("%s/before-%d", maps, i), `{"data":{"a":"c"}}`)
		api.want(t, http.StatusOK, "GET", fmt.Sprintf("%s/before-%d", maps, i), "")
	}
	api.want(t, http.StatusOK, "DELETE", maps+"/before-19", "")
	api.want(t, http.StatusNotFound, "GET", maps+"/before-19", "")
	if sys.ended() {
		t.Fatal("the server ended on a full disk")
	}
	// A server that is started now says so, instead of damaging something.
	sys.stop()
	fill(t, filepath.Join(dir, "more")) // etcd gave back the next part of its log
	if code, text := sys.refused(t, sys.args("dev")...); code != 1 || !strings.Contains(text, "full") {
		t.Errorf("start on a full disk: exit %d\n%s", code, tail(text, 5))
	}
	for _, f := range []string{"filler", "more"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	sys.launch(t, "dev")
	api = sys.api(t)
	for i := range 19 {
		text := api.want(t, http.StatusOK, "GET", fmt.Sprintf("%s/before-%d", maps, i), "")
		if !strings.Contains(text, `"a":"b"`) {
			t.Errorf("before-%d is not as it was: %s", i, text)
		}
	}
	// The same without a restart.
	fill(t, filepath.Join(dir, "filler"))
	eventually(t, "refused again", func() error {
		code, text := api.do("PATCH", maps+"/before-0", `{"data":{"a":"d"}}`)
		return unless(code == http.StatusInsufficientStorage, "%d %s", code, text)
	})
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "space again", func() error {
		code, text := api.do("POST", maps, config("after"))
		return unless(code == http.StatusCreated, "%d %s", code, text)
	})
}

// fill writes a file until the disk has less than 40 MB left.
func fill(t testing.TB, path string) {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(st.Bavail)*st.Bsize - 40<<20; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
}
