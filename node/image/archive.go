package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// archive is a set of named blobs: a docker save archive or an OCI layout, in
// a tar or a directory.
type archive interface {
	open(name string) (io.ReadCloser, error)
}

// Load reads the images of an archive, which may be compressed. An image that
// the archive gives no name gets name, if that is not empty.
func (s *Store) Load(ctx context.Context, r io.Reader, name string) ([]Image, error) {
	work, done, err := s.workspace()
	if err != nil {
		return nil, err
	}
	defer done()
	// A tar has its table of contents where it likes, so it is written down
	// first.
	plain, err := decompress(r)
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	defer plain.Close()
	f, err := os.Create(filepath.Join(work, "archive"))
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(f, &boundedReader{ctx: ctx, r: plain, left: s.cfg.MaxBytes}); err != nil {
		return nil, fmt.Errorf("image: load: %w", explain(err))
	}
	a, err := indexTar(f)
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	return s.loadFrom(ctx, a, name)
}

// LoadFile reads the images of an archive, or of a directory in the OCI
// layout.
func (s *Store) LoadFile(ctx context.Context, file, name string) ([]Image, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	if info.IsDir() {
		root, err := os.OpenRoot(file)
		if err != nil {
			return nil, fmt.Errorf("image: load: %w", err)
		}
		defer root.Close()
		return s.loadFrom(ctx, rootArchive{root}, name)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	defer f.Close()
	return s.Load(ctx, f, name)
}

func (s *Store) loadFrom(ctx context.Context, a archive, name string) ([]Image, error) {
	all, err := readArchive(a)
	if err != nil {
		return nil, fmt.Errorf("image: load: %w", err)
	}
	if name != "" {
		n, err := ParseName(name)
		if err != nil {
			return nil, err
		}
		if len(all) > 1 || n.Digest != "" {
			return nil, fmt.Errorf("image: load: %w: %q: a name can be given to an archive of one image, and has no digest", ErrInvalidName, name)
		}
		all[0].names = []string{n.String()}
	}
	var out []Image
	for _, in := range all {
		img, err := s.add(ctx, in)
		if err != nil {
			what := "an image without a name"
			if len(in.names) > 0 {
				what = in.names[0]
			}
			return out, fmt.Errorf("image: load %s: %w", what, err)
		}
		out = append(out, img)
	}
	return out, nil
}

// rootArchive is a directory.
type rootArchive struct{ root *os.Root }

func (r rootArchive) open(name string) (io.ReadCloser, error) {
	return r.root.Open(filepath.FromSlash(name))
}

// tarArchive is a tar whose table of contents was read.
type tarArchive struct {
	r     io.ReaderAt
	files map[string]section
	links map[string]string
}

type section struct{ offset, size int64 }

// maxMembers of an archive; each image has a few and one for each layer.
const maxMembers = 100_000

func indexTar(f io.ReadSeeker) (*tarArchive, error) {
	at, ok := f.(io.ReaderAt)
	if !ok {
		return nil, errors.New("the archive cannot be read twice")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	a := &tarArchive{r: at, files: map[string]section{}, links: map[string]string{}}
	t := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			if n == 0 {
				return nil, fmt.Errorf("%w: it is no image archive, or an empty one", ErrBadImage)
			}
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: it is no image archive, or is cut off: %w", ErrBadImage, err)
		}
		if n > maxMembers {
			return nil, fmt.Errorf("%w: the archive has more than %d members", ErrBadImage, maxMembers)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			// The reader takes whole blocks and no more, so this is where the
			// content begins.
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			a.files[name] = section{offset, h.Size}
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (a *tarArchive) open(name string) (io.ReadCloser, error) {
	name = path.Clean(name)
	for range 10 { // old versions of docker save link layers that are equal
		if s, ok := a.files[name]; ok {
			return io.NopCloser(io.NewSectionReader(a.r, s.offset, s.size)), nil
		}
		name = a.links[name]
	}
	return nil, fs.ErrNotExist
}

// readArchive finds the images of an archive.
func readArchive(a archive) ([]incoming, error) {
	data, err := blob(a, "manifest.json", "")
	if err == nil {
		return readDocker(a, data)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err = blob(a, "index.json", "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is neither a manifest.json (docker save) nor an index.json (OCI layout) in it", ErrBadImage)
	}
	if err != nil {
		return nil, err
	}
	all, err := readIndex(a, data, "", 0)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%w: it holds no image for linux/%s", ErrBadImage, runtime.GOARCH)
	}
	return all, err
}

// blob reads a small member.
func blob(a archive, name, digest string) ([]byte, error) {
	r, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readDocument(r, digest)
}

// readDocker reads what docker save writes.
func readDocker(a archive, data []byte) ([]incoming, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrBadImage, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: manifest.json names no image", ErrBadImage)
	}
	var all []incoming
	for _, m := range list {
		in := incoming{source: Loaded}
		for _, tag := range m.RepoTags {
			n, err := ParseName(tag)
			if err != nil {
				return nil, err
			}
			in.names = append(in.names, n.String())
		}
		var err error
		if in.config, err = blob(a, m.Config, ""); err != nil {
			return nil, missing(m.Config, err)
		}
		for _, l := range m.Layers {
			in.layers = append(in.layers, func() (io.ReadCloser, error) {
				r, err := a.open(l)
				return r, missing(l, err)
			})
		}
		all = append(all, in)
	}
	return all, nil
}

func missing(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %.200s: %w", ErrBadImage, name, err)
	}
	return nil
}

// readIndex reads an index of the OCI layout and those it leads to.
func readIndex(a archive, data []byte, name string, depth int) ([]incoming, error) {
	if depth > 4 {
		return nil, fmt.Errorf("%w: its indexes lead to each other", ErrBadImage)
	}
	x, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrBadImage, err)
	}
	var all []incoming
	for _, d := range x.Manifests {
		if p := d.Platform; p != nil && (p.OS != "linux" && p.OS != "" || p.Architecture != runtime.GOARCH && p.Architecture != "") {
			continue
		}
		named := name
		for _, key := range []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"} {
			// The second may be a bare tag, which names nothing.
			if v := d.Annotations[key]; v != "" && (strings.ContainsAny(v, "/:") || key[0] == 'i') {
				named = v
				break
			}
		}
		if d.Digest.Algorithm != "sha256" {
			return nil, fmt.Errorf("%w: checksum %s: only sha256 is known", ErrBadImage, d.Digest)
		}
		member := "blobs/sha256/" + d.Digest.Hex
		doc, err := blob(a, member, d.Digest.String())
		if err != nil {
			return nil, missing(member, err)
		}
		if d.MediaType.IsIndex() {
			more, err := readIndex(a, doc, named, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
			continue
		}
		in, ok, err := readManifest(a, doc)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if named != "" {
			n, err := ParseName(named)
			if err != nil {
				return nil, err
			}
			in.names = []string{n.String()}
			in.digest = []string{n.Repository + "@" + d.Digest.String()}
		}
		all = append(all, in)
		if len(all) > 1000 {
			return nil, fmt.Errorf("%w: it holds more than 1000 images", ErrBadImage)
		}
	}
	return all, nil
}

// readManifest reads one image of the OCI layout; false is something else that
// is kept beside images, as signatures are.
func readManifest(a archive, doc []byte) (incoming, bool, error) {
	m, err := v1.ParseManifest(bytes.NewReader(doc))
	if err != nil {
		return incoming{}, false, fmt.Errorf("%w: manifest: %w", ErrBadImage, err)
	}
	if !m.Config.MediaType.IsConfig() {
		return incoming{}, false, nil
	}
	in := incoming{source: Loaded}
	member := "blobs/sha256/" + m.Config.Digest.Hex
	if in.config, err = blob(a, member, m.Config.Digest.String()); err != nil {
		return in, false, missing(member, err)
	}
	for _, l := range m.Layers {
		in.layers = append(in.layers, func() (io.ReadCloser, error) {
			name := "blobs/sha256/" + l.Digest.Hex
			r, err := a.open(name)
			return r, missing(name, err)
		})
	}
	return in, true, nil
}
