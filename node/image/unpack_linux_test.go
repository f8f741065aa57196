package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// entry of a test's archive: "dir/" is a directory, "a -> b" a symbolic link,
// "a => b" a hard link, anything else a file with content.
type entry struct {
	name, content string
	edit          func(*tar.Header)
}

func layer(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(e.content))}
		if from, to, ok := strings.Cut(e.name, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag, h.Mode = from, to, tar.TypeSymlink, 0o777
		} else if from, to, ok := strings.Cut(e.name, " => "); ok {
			h.Name, h.Linkname, h.Typeflag = from, to, tar.TypeLink
		} else if strings.HasSuffix(e.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if e.edit != nil {
			e.edit(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func names(s ...string) []entry {
	var out []entry
	for _, n := range s {
		e := entry{name: n}
		if !strings.HasSuffix(n, "/") && !strings.Contains(n, " -> ") && !strings.Contains(n, " => ") {
			e.content = "content of " + n
		}
		out = append(out, e)
	}
	return out
}

// tree describes what is below a directory, in order.
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		switch {
		case e.Type()&os.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			rel += " -> " + to
		case e.IsDir():
			rel += "/"
			b := make([]byte, 4)
			for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
				if n, err := unix.Lgetxattr(p, attr, b); err == nil && string(b[:n]) == "y" {
					rel += " opaque"
				}
			}
		case e.Type()&os.ModeCharDevice != 0:
			rel += " hidden"
		case e.Type()&os.ModeNamedPipe != 0:
			rel += " pipe"
		default:
			data, _ := os.ReadFile(p)
			if len(data) < 40 {
				rel += ": " + strings.TrimPrefix(string(data), "content of ")
			}
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpackTo(t testing.TB, dir string, data []byte) error {
	t.Helper()
	return unpack(dir, bytes.NewReader(data), &budget{bytes: 1 << 20, entries: 1000}, slog.New(slog.DiscardHandler))
}

func TestUnpack(t *testing.T) {
	for _, tc := range []struct {
		name    string
		entries []entry
		want    []string
	}{
		{"plain", names("./", "./etc/", "./etc/passwd", "bin/sh"), []string{"bin/", "bin/sh: bin/sh", "etc/", "etc/passwd: ./etc/passwd"}},
		{"absolute names are below the root", names("/etc/passwd"), []string{"etc/", "etc/passwd: /etc/passwd"}},
		{"whiteouts", names("a/", "a/.wh.x", "b/", "b/.wh..wh..opq", "b/y", "a/.wh..wh.plnk"), []string{"a/", "a/x hidden", "b/ opaque", "b/y: b/y"}},
		{"a directory where one was hidden", names(".wh.d", "d/", "d/x"), []string{"d/ opaque", "d/x: d/x"}},
		{"a directory hidden after it came", names("d/", ".wh.d"), []string{"d/ opaque"}},
		{"a file hidden after it came stays", names("f", ".wh.f"), []string{"f: f"}},
		{"links", names("a", "b => a", "c -> a", "d -> /etc/passwd", "e -> ../../../x"), []string{"a: a", "b: a", "c -> a", "d -> /etc/passwd", "e -> ../../../x"}},
		{"twice: the last counts", append(names("a", "a/", "a/b", "c/", "c/d/", "c/d/e", "c"), entry{name: "a/b", content: "new"}), []string{"a/", "a/b: new", "c: c"}},
		{"through a link of the layer", names("run/", "var/", "var/run -> /run", "var/run/pid"), []string{"run/", "run/pid: var/run/pid", "var/", "var/run -> /run"}},
		{"out by an absolute link", names("x -> /tmp", "tmp/", "x/y"), []string{"tmp/", "tmp/y: x/y", "x -> /tmp"}},
		{"out by a link upwards", names("x -> ../../..", "x/y"), []string{"x -> ../../..", "y: x/y"}},
		{"a hard link through a link", names("etc/", "etc/f", "x -> /etc", "y => x/f"), []string{"etc/", "etc/f: etc/f", "x -> /etc", "y: etc/f"}},
		{"a directory becomes a link", names("d/", "d/e/", "d/e/f", "z/", "z/e/", "d -> z", "d/e/g"), []string{"d -> z", "z/", "z/e/", "z/e/g: d/e/g"}},
		{"devices are left out", []entry{
			{name: "sda", edit: func(h *tar.Header) { h.Typeflag, h.Devmajor = tar.TypeBlock, 8 }},
			{name: "p", edit: func(h *tar.Header) { h.Typeflag = tar.TypeFifo }},
		}, []string{"p pipe"}},
		{"odd times", []entry{{name: "a", content: "1", edit: func(h *tar.Header) { h.ModTime = h.ModTime.AddDate(9000, 0, 0) }}}, []string{"a: 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			os.Mkdir(dir, 0o755)
			if err := unpackTo(t, dir, layer(t, tc.entries...)); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			if outside := tree(t, filepath.Dir(dir)); len(outside) != len(tc.want)+1 {
				t.Errorf("something is outside of the root: %q", outside)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	huge := func(h *tar.Header) { h.Size = 1 << 40 }
	for _, tc := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"upwards", names("../x"), "outside"},
		{"upwards inside", names("a/../../x"), "outside"},
		{"a hard link upwards", names("x => ../../etc/passwd"), "outside"},
		{"a hard link to the machine", names("x => /etc/passwd"), "not in the layer"},
		{"a hard link through a link outwards", names("e -> /etc", "x => e/passwd"), "not in the layer"},
		{"a hard link to a directory", names("d/", "x => d"), "no file of the layer"},
		{"a whiteout of the parent", names("a/.wh..."), "no name"},
		{"a whiteout of nothing", names("a/.wh."), "no name"},
		{"a link to itself", names("l -> l", "l/x"), "symbolic links"},
		{"below a file", names("f", "f/x"), "not a directory"},
		{"below a link to nothing", names("l -> /none", "l/x"), "link to nothing"},
		{"too large", []entry{{name: "x", content: strings.Repeat("x", 2<<20)}}, "larger"},
		{"too many", names(slices.Repeat([]string{"d/"}, 1001)...), "more files"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			os.Mkdir(dir, 0o755)
			err := unpackTo(t, dir, layer(t, tc.entries...))
			if !errors.Is(err, ErrBadImage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want a bad image and %q", err, tc.want)
			}
		})
	}
	t.Run("a size that is a lie", func(t *testing.T) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h := &tar.Header{Name: "x", Typeflag: tar.TypeReg, Mode: 0o644}
		huge(h)
		w.WriteHeader(h)
		if err := unpackTo(t, t.TempDir(), b.Bytes()); !errors.Is(err, ErrBadImage) {
			t.Errorf("%v", err)
		}
	})
}

func TestAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners and capabilities are kept as root only")
	}
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	dir := t.TempDir()
	err := unpackTo(t, dir, layer(t,
		entry{name: "d/", edit: func(h *tar.Header) { h.Mode, h.Uid = 0o1777, 5 }},
		entry{name: "d/su", content: "x", edit: func(h *tar.Header) {
			h.Mode, h.Uid, h.Gid, h.Format = 0o4755, 1000, 100, tar.FormatPAX
			h.PAXRecords = map[string]string{
				"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.note": "hi",
				"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.metacopy": "y", "SCHILY.xattr.security.selinux": "z",
			}
		}},
	))
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if unix.Stat(dir+"/d/su", &st); st.Mode&0o7777 != 0o4755 || st.Uid != 1000 || st.Gid != 100 {
		t.Errorf("file: %o %d:%d", st.Mode, st.Uid, st.Gid)
	}
	if unix.Stat(dir+"/d", &st); st.Mode&0o7777 != 0o1777 || st.Uid != 5 {
		t.Errorf("directory: %o %d", st.Mode, st.Uid)
	}
	b := make([]byte, 1000)
	n, _ := unix.Listxattr(dir+"/d/su", b)
	got := strings.Split(strings.TrimSuffix(string(b[:max(n, 0)]), "\x00"), "\x00")
	slices.Sort(got)
	if fmt.Sprint(got) != "[security.capability user.note]" {
		t.Errorf("attributes %q", got)
	}
}

func FuzzUnpack(f *testing.F) {
	for _, e := range [][]entry{
		names("a/", "a/b", "c -> a", "d => a/b", ".wh.x", "a/.wh..wh..opq"),
		names("x -> ../../..", "x/y", "x => y"),
		names("d/", "d -> /", "d/etc/"),
	} {
		f.Add(layer(f, e...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		root := filepath.Join(dir, "up", "root")
		os.MkdirAll(root, 0o755)
		os.WriteFile(filepath.Join(dir, "guard"), []byte("guard"), 0o600)
		unpack(root, bytes.NewReader(b), &budget{bytes: 1 << 16, entries: 100}, slog.New(slog.DiscardHandler))
		for _, d := range []string{dir, filepath.Join(dir, "up")} {
			files, _ := os.ReadDir(d)
			if len(files) != map[bool]int{true: 2, false: 1}[d == dir] {
				t.Errorf("%s holds %v", d, files)
			}
		}
		if g, _ := os.ReadFile(filepath.Join(dir, "guard")); string(g) != "guard" {
			t.Error("the file outside was changed")
		}
		removeTree(root)
	})
}

func BenchmarkUnpack(b *testing.B) {
	var list []entry
	for i := range 2000 {
		list = append(list, entry{name: fmt.Sprintf("usr/lib/d%d/f%d", i%50, i), content: strings.Repeat("x", 16<<10)})
	}
	data := layer(b, list...)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		dir := b.TempDir()
		if err := unpack(dir, bytes.NewReader(data), &budget{bytes: 1 << 30, entries: 10000}, slog.New(slog.DiscardHandler)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		os.RemoveAll(dir)
		b.StartTimer()
	}
}
