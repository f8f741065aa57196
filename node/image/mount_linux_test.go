package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOverlay: the kernel sees in the layers what the archive says.
func TestOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	s := newStore(t)
	img := build(t,
		layer(t, names("gone", "kept", "d/", "d/old", "w/", "w/old", "f")...),
		layer(t, names(".wh.gone", "d/", "d/.wh..wh..opq", "d/new", ".wh.w", "w/", "w/new", ".wh.f")...))
	got, err := s.Load(t.Context(), bytes.NewReader(saved(t, "over:1", img)), "")
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	lower := slices.Clone(got[0].Layers)
	slices.Reverse(lower) // the kernel wants the highest first
	if err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Skipf("this kernel cannot mount overlayfs here: %v", err)
	}
	unmount := func() { unix.Unmount(at, unix.MNT_DETACH) }
	defer unmount()
	if have, want := tree(t, at), []string{"d/", "d/new: d/new", "kept: kept", "w/", "w/new: w/new"}; !slices.Equal(have, want) {
		t.Errorf("got %q, want %q", have, want)
	}
	// A container has it mounted: the layers outlive the image.
	if err := s.Remove("over:1"); err != nil {
		t.Fatal(err)
	}
	if have := tree(t, at); len(have) != 5 {
		t.Errorf("a mounted layer was removed: %q", have)
	}
	unmount()
	if _, err := s.GC(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(s.path("layers")); len(left) != 0 {
		t.Errorf("%d layers are left", len(left))
	}
}

func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	s := newStore(t, func(c *Config) { c.Dir = filepath.Join(small, "images") })
	img := build(t, layer(t, entry{name: "small", content: "x"}), layer(t, entry{name: "big", content: strings.Repeat("x", 3<<20)}))
	for _, data := range [][]byte{saved(t, "big:1", img), gzipped(saved(t, "big:1", img))} {
		_, err := s.Load(t.Context(), bytes.NewReader(data), "")
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("%v", err)
		}
		if left, _ := os.ReadDir(s.path("layers")); len(left) != 0 {
			t.Errorf("%d layers are left", len(left))
		}
	}
	if _, err := s.Load(t.Context(), bytes.NewReader(saved(t, "small:1", build(t, layer(t, names("a")...)))), ""); err != nil {
		t.Errorf("a small one, afterwards: %v", err)
	}
}
