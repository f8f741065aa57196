package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Remove takes a name away: first what is mapped to it, else the image with
// it, which goes when it has no other name. An ID removes the image with all
// its names. Layers that a running container has mounted stay until the next
// GC.
func (s *Store) Remove(ref string) error {
	var n Name
	if !strings.HasPrefix(ref, "sha256:") {
		var err error
		if n, err = ParseName(ref); err != nil {
			return err
		}
	}
	err := s.change(func(x *index) error {
		if _, ok := x.Images[ref]; ok {
			x.dropImage(ref)
			return nil
		}
		for _, key := range []string{n.String(), n.Repository} {
			if _, ok := x.Mapped[key]; ok && (key == n.String() || !n.Tagged) {
				delete(x.Mapped, key)
				return nil
			}
		}
		id, ok := x.Names[n.String()]
		if !ok {
			return fmt.Errorf("image: remove %s: %w", ref, ErrNotFound)
		}
		delete(x.Names, n.String())
		for name, other := range x.Names {
			if other == id && !strings.Contains(name, "@") {
				return nil // it has another name
			}
		}
		x.dropImage(id)
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.sweepLayers()
	return err
}

func (x *index) dropImage(id string) {
	delete(x.Images, id)
	for name, other := range x.Names {
		if other == id {
			delete(x.Names, name)
		}
	}
}

// GC removes pulled images that are not in use, images without a name, and
// layers of no image. Images that were loaded stay: no registry would give
// them back. It tells how many bytes became free.
func (s *Store) GC(inUse func(id string) bool) (int64, error) {
	err := s.change(func(x *index) error {
		tagged := map[string]bool{}
		for name, id := range x.Names {
			if !strings.Contains(name, "@") {
				tagged[id] = true
			}
		}
		for id, r := range x.Images {
			if (r.Source == Pulled || !tagged[id]) && !inUse(id) {
				x.dropImage(id)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return s.sweepLayers()
}

// sweepLayers removes the layers of no image, unless somebody is adding some
// just now, or has them mounted.
func (s *Store) sweepLayers() (freed int64, err error) {
	l, err := tryLock(s.path("layers.lock"))
	if err != nil {
		return 0, nil
	}
	defer l.Close()
	x, err := s.read()
	if err != nil {
		return 0, err
	}
	wanted := map[string]bool{}
	for _, r := range x.Images {
		for _, d := range r.Diffs {
			wanted[filepath.Base(s.layerDir(d))] = true
		}
	}
	entries, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return 0, fmt.Errorf("image: layers: %w", err)
	}
	var spare []string
	for _, e := range entries {
		if !wanted[e.Name()] {
			spare = append(spare, e.Name())
		}
	}
	if len(spare) == 0 {
		return 0, nil
	}
	mounts := mountsOfAll()
	for _, name := range spare {
		if slices.ContainsFunc(mounts, func(m string) bool { return strings.Contains(m, name) }) {
			continue
		}
		dir := s.path("layers", name)
		freed += treeSize(dir)
		// Out of its place first: half a layer must not look like one.
		gone := s.path("tmp", "gone-"+name)
		if err := os.Rename(dir, gone); err != nil {
			return freed, fmt.Errorf("image: remove a layer: %w", err)
		}
		if err := removeTree(gone); err != nil {
			return freed, fmt.Errorf("image: remove a layer: %w", err)
		}
	}
	return freed, nil
}

// mountsOfAll reads the mounts of every mount namespace that processes are in:
// a container's root is mounted in its own only.
func mountsOfAll() []string {
	files, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	seen := map[string]bool{}
	var out []string
	for _, f := range files {
		ns, err := os.Readlink(filepath.Join(filepath.Dir(f), "ns", "mnt"))
		if err != nil || seen[ns] {
			continue
		}
		if data, err := os.ReadFile(f); err == nil {
			seen[ns] = true
			out = append(out, string(data))
		}
	}
	return out
}

func treeSize(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// removeTree removes a directory, also when modes forbid it to its owner.
func removeTree(dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err == nil && e.IsDir() || e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
