package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// File of a volume.
type File struct {
	Data []byte
	Mode os.FileMode
	UID  *int64 // owner; nil: ours
}

const (
	dataLink = "..data"
	nextLink = "..data_tmp"
)

// Write makes the files the content of a directory, all at once: they are in a
// directory of their own that ..data links to, and the links that one sees go
// through it. A group, if given, may read them. Files that are the same stay
// untouched.
func Write(dir string, files map[string]File, group *int64) error {
	for name := range files {
		if !filepath.IsLocal(name) || strings.HasPrefix(name, "..") {
			return fmt.Errorf("path %q leads out of the volume: use a relative path without ..", name)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask says
		return err
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err == nil && same(filepath.Join(dir, old), files) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := fill(fresh, files, group); err != nil {
		_ = os.RemoveAll(fresh)
		return err
	}
	next := filepath.Join(dir, nextLink)
	_ = os.Remove(next) // a crash may have left it
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := link(dir, files); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(fresh))
}

func fill(dir string, files map[string]File, group *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, f.Mode|0o200); err != nil {
			return err
		}
		uid, gid := -1, -1
		if f.UID != nil {
			uid = int(*f.UID)
		}
		if group != nil {
			gid = int(*group)
		}
		if uid != -1 || gid != -1 {
			if err := os.Chown(path, uid, gid); err != nil {
				return err
			}
		}
		if err := os.Chmod(path, f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// same says whether a directory has exactly these files.
func same(dir string, files map[string]File) bool {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		f, ok := files[name]
		if !ok {
			return fs.ErrNotExist
		}
		n++
		info, err := d.Info()
		if err != nil || info.Mode().Perm() != f.Mode.Perm() || info.Size() != int64(len(f.Data)) {
			return errors.Join(err, fs.ErrInvalid)
		}
		data, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(data, f.Data) {
			err = fs.ErrInvalid
		}
		return err
	})
	return err == nil && n == len(files)
}

// link makes what one sees: a link for each first part of a path.
func link(dir string, files map[string]File) error {
	for name := range files {
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		path, to := filepath.Join(dir, top), filepath.Join(dataLink, top)
		if is, err := os.Readlink(path); err == nil && is == to {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes what is not of the newest content.
func sweep(dir, newest string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		keep := name == newest || name == dataLink
		if !strings.HasPrefix(name, "..") {
			_, err := os.Stat(filepath.Join(dir, dataLink, name))
			keep = err == nil
		}
		if !keep {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
