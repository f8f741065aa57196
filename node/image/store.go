package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Store is a directory of images:
//
//	index.json   names, images, mappings; replaced in one step, under index.lock
//	layers/      one directory for each layer, by the checksum of its content
//	tmp/         work in progress, each with a lock that its process holds
//	layers.lock  shared by those who add layers, exclusive to who removes them
type Store struct {
	cfg Config

	mu      sync.Mutex
	flights map[string]*flight
	cached  *index      // as read last; never changed
	stamp   fs.FileInfo // of the file it was read from
}

// index is what there is.
type index struct {
	Mapped map[string]Image  `json:"mapped"` // by repository, or repository:tag
	Images map[string]record `json:"images"` // by ID
	Names  map[string]string `json:"names"`  // repository:tag and repository@digest → ID
}

// record is an image that was loaded or pulled. Layers are checksums.
type record struct {
	Image
	Diffs []string  `json:"diffs"`
	Since time.Time `json:"since"` // on this node
}

const (
	defaultMaxBytes   = 32 << 30
	defaultMaxEntries = 2_000_000
)

// Open opens a store, which is made if there is none, and removes what
// processes that are gone have left half done.
func Open(c Config) (*Store, error) {
	if c.Dir == "" {
		return nil, errors.New("image: no directory for the store")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.MaxEntries == 0 {
		c.MaxEntries = defaultMaxEntries
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: c, flights: map[string]*flight{}}
	for _, d := range []string{"layers", "tmp"} {
		// Nobody else may enter: images hold programs with set-user-ID bits.
		if err := os.MkdirAll(filepath.Join(c.Dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("image: open the store: %w", err)
		}
	}
	s.sweep()
	if _, err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, elem...)...)
}

// sweep removes the work of processes that are gone.
func (s *Store) sweep() {
	entries, _ := os.ReadDir(s.path("tmp"))
	for _, e := range entries {
		work, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			if _, err := os.Lstat(s.path("tmp", e.Name()+".lock")); errors.Is(err, fs.ErrNotExist) {
				removeTree(s.path("tmp", e.Name()))
			}
			continue
		}
		l, err := tryLock(s.path("tmp", e.Name()))
		if err != nil {
			continue // somebody works there
		}
		removeTree(s.path("tmp", work))
		os.Remove(s.path("tmp", e.Name()))
		l.Close()
	}
}

// workspace makes a directory for work in progress; done removes it.
func (s *Store) workspace() (dir string, done func(), err error) {
	l, err := os.CreateTemp(s.path("tmp"), "w*.lock")
	if err == nil {
		err = lockFile(l, true)
	}
	if err != nil {
		return "", nil, fmt.Errorf("image: work directory: %w", err)
	}
	dir = strings.TrimSuffix(l.Name(), ".lock")
	done = func() {
		removeTree(dir)
		os.Remove(l.Name())
		l.Close()
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		done()
		return "", nil, fmt.Errorf("image: work directory: %w", err)
	}
	return dir, done, nil
}

// read gives the index. It must not be changed.
func (s *Store) read() (*index, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.path("index.json")
	stamp, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newIndex(), nil
	}
	if err == nil && s.cached != nil && os.SameFile(stamp, s.stamp) && stamp.ModTime().Equal(s.stamp.ModTime()) && stamp.Size() == s.stamp.Size() {
		return s.cached, nil
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("image: read the index: %w", err)
	}
	x := newIndex()
	if err := json.Unmarshal(data, x); err != nil {
		return nil, fmt.Errorf("image: the index %s is damaged: %w; delete it and load or map the images again", file, err)
	}
	s.cached, s.stamp = x, stamp
	return x, nil
}

func newIndex() *index {
	return &index{Mapped: map[string]Image{}, Images: map[string]record{}, Names: map[string]string{}}
}

// change edits the index, alone among all processes.
func (s *Store) change(f func(*index) error) error {
	l, err := lock(s.path("index.lock"), true)
	if err != nil {
		return fmt.Errorf("image: lock the index: %w", err)
	}
	defer l.Close()
	s.mu.Lock()
	s.cached = nil // a copy of its own, to change
	s.mu.Unlock()
	x, err := s.read()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.cached = nil
	s.mu.Unlock()
	if err := f(x); err != nil {
		return err
	}
	data, err := json.MarshalIndent(x, "", " ")
	if err == nil {
		err = writeFile(s.path("index.json"), data)
	}
	if err != nil {
		return fmt.Errorf("image: write the index: %w", err)
	}
	return nil
}

// writeFile replaces a file in one step, on the disk before it has the name.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// lookup finds a name among what is mapped and what is in the store.
func (s *Store) lookup(n Name) (Image, bool, error) {
	x, err := s.read()
	if err != nil {
		return Image{}, false, err
	}
	if n.Digest == "" {
		for _, key := range []string{n.String(), n.Repository} {
			if img, ok := x.Mapped[key]; ok {
				img.Name = n.String()
				return img, true, nil
			}
		}
	}
	if id, ok := x.Names[n.String()]; ok {
		if r, ok := x.Images[id]; ok {
			return s.image(r, n.String()), true, nil
		}
	}
	return Image{}, false, nil
}

// image gives a record its name and the directories of its layers.
func (s *Store) image(r record, name string) Image {
	img := r.Image
	img.Name = name
	img.Layers = nil
	for _, d := range r.Diffs {
		img.Layers = append(img.Layers, s.layerDir(d))
	}
	return img
}

// layerDir is where a layer's content is. Half of the checksum keeps the
// options of a mount of many layers within the kernel's page.
func (s *Store) layerDir(diff string) string {
	_, hex, _ := strings.Cut(diff, ":")
	return s.path("layers", hex[:min(len(hex), 32)])
}

// Get gives the image for a name, as Resolve with Never does, without what is
// built in. An ID ("sha256:…") is a name, too.
func (s *Store) Get(ref string) (Image, error) {
	x, err := s.read()
	if err != nil {
		return Image{}, err
	}
	if r, ok := x.Images[ref]; ok {
		return s.image(r, ref), nil
	}
	n, err := ParseName(ref)
	if err != nil {
		return Image{}, err
	}
	img, found, err := s.lookup(n)
	if err == nil && !found {
		err = fmt.Errorf("image: %s: %w", n, ErrNotFound)
	}
	return img, err
}

// List gives what is mapped, loaded and pulled, by name. An image without a
// name has its ID for one.
func (s *Store) List() ([]Image, error) {
	x, err := s.read()
	if err != nil {
		return nil, err
	}
	var out []Image
	for name, img := range x.Mapped {
		img.Name = name
		out = append(out, img)
	}
	named := map[string]bool{}
	for name, id := range x.Names {
		if r, ok := x.Images[id]; ok && !strings.Contains(name, "@") {
			named[id] = true
			out = append(out, s.image(r, name))
		}
	}
	for id, r := range x.Images {
		if !named[id] {
			out = append(out, s.image(r, id))
		}
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Map gives a name to a program or a directory of this machine. A directory is
// a root file system; an image.json in it says how it is started: an object
// with any of Entrypoint, Cmd, Env, WorkingDir, User and StopSignal, or an
// image configuration with such an object under "config".
func (s *Store) Map(_ context.Context, name, path string) (Image, error) {
	n, err := ParseName(name)
	if err != nil {
		return Image{}, err
	}
	if n.Digest != "" {
		return Image{}, fmt.Errorf("image: map %s: %w: a digest names content, map the name without it", name, ErrInvalidName)
	}
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	var info fs.FileInfo
	if err == nil {
		info, err = os.Stat(abs)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image: map %s: %w", name, err)
	}
	img := Image{ID: "local:" + abs, Created: info.ModTime(), Source: Mapped}
	switch {
	case info.IsDir():
		if _, err := os.Stat(filepath.Join(abs, "oci-layout")); err == nil {
			return Image{}, fmt.Errorf("image: map %s: %s holds an image in the OCI layout; load it with 'fingerpost image load %s'", name, path, path)
		}
		img.Layers = []string{abs}
		if err := readStart(filepath.Join(abs, "image.json"), &img); err != nil {
			return Image{}, fmt.Errorf("image: map %s: %w", name, err)
		}
	case !info.Mode().IsRegular():
		return Image{}, fmt.Errorf("image: map %s: %s is neither a program nor a directory", name, path)
	case info.Mode()&0o111 == 0:
		return Image{}, fmt.Errorf("image: map %s: %s may not be executed; run 'chmod +x %s', or load it with 'fingerpost image load' if it is an image archive", name, path, path)
	default:
		img.Entrypoint, img.Size = []string{abs}, info.Size()
	}
	img.Name = n.Repository
	if n.Tagged {
		img.Name = n.String()
	}
	err = s.change(func(x *index) error {
		x.Mapped[img.Name] = img
		return nil
	})
	return img, err
}

// readStart reads how a directory's program is started, if it says so.
func readStart(file string, img *Image) error {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	type start struct {
		Entrypoint, Cmd, Env         []string
		WorkingDir, User, StopSignal string
	}
	var doc struct {
		start
		Config *start `json:"config"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	c := doc.start
	if doc.Config != nil {
		c = *doc.Config
	}
	img.Entrypoint, img.Cmd, img.Env = c.Entrypoint, c.Cmd, c.Env
	img.WorkDir, img.User, img.StopSignal = c.WorkingDir, c.User, c.StopSignal
	return nil
}
