package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
)

// Limits of what describes an image.
const (
	maxDocument = 8 << 20 // bytes of a manifest or configuration
	maxLayers   = 127     // as Docker has it
)

// incoming is an image on its way into the store.
type incoming struct {
	names  []string // in full
	digest []string // repository@digest
	source Source
	config []byte
	// layers open the content of each, compressed or not.
	layers []func() (io.ReadCloser, error)
}

// add unpacks what is missing of an image and gives it its names.
func (s *Store) add(ctx context.Context, in incoming) (Image, error) {
	cfg, err := v1.ParseConfigFile(bytes.NewReader(in.config))
	if err != nil {
		return Image{}, fmt.Errorf("%w: its configuration: %w", ErrBadImage, err)
	}
	if cfg.OS != "" && cfg.OS != "linux" || cfg.Architecture != "" && cfg.Architecture != runtime.GOARCH {
		return Image{}, fmt.Errorf("%w: it is for %s/%s, this machine is linux/%s", ErrBadImage, cfg.OS, cfg.Architecture, runtime.GOARCH)
	}
	diffs := cfg.RootFS.DiffIDs
	if len(diffs) != len(in.layers) {
		return Image{}, fmt.Errorf("%w: its configuration names %d layers, but there are %d", ErrBadImage, len(diffs), len(in.layers))
	}
	if len(diffs) > maxLayers {
		return Image{}, fmt.Errorf("%w: it has %d layers, at most %d can be mounted; build it with fewer", ErrBadImage, len(diffs), maxLayers)
	}
	sum := sha256.Sum256(in.config)
	r := record{Since: time.Now().UTC(), Image: Image{
		ID: "sha256:" + hex.EncodeToString(sum[:]), Source: in.source, Created: cfg.Created.Time,
		Entrypoint: cfg.Config.Entrypoint, Cmd: cfg.Config.Cmd, Env: cfg.Config.Env,
		WorkDir: cfg.Config.WorkingDir, User: cfg.Config.User, StopSignal: cfg.Config.StopSignal,
	}}
	if len(in.digest) > 0 {
		_, r.Digest, _ = strings.Cut(in.digest[0], "@")
	}

	l, err := lock(s.path("layers.lock"), false)
	if err != nil {
		return Image{}, fmt.Errorf("image: lock the layers: %w", err)
	}
	defer l.Close()
	work, done, err := s.workspace()
	if err != nil {
		return Image{}, err
	}
	defer done()
	left := &budget{bytes: s.cfg.MaxBytes, entries: s.cfg.MaxEntries}
	fresh := map[string]string{} // work directory → place
	for i, d := range diffs {
		if d.Algorithm != "sha256" || len(d.Hex) != 64 {
			return Image{}, fmt.Errorf("%w: layer %d: checksum %s: only sha256 is known", ErrBadImage, i+1, d)
		}
		r.Diffs = append(r.Diffs, d.String())
		place := s.layerDir(d.String())
		if _, err := os.Lstat(place); err == nil {
			continue
		}
		dir := filepath.Join(work, filepath.Base(place))
		if _, ok := fresh[dir]; ok {
			continue
		}
		if err := s.unpackLayer(ctx, dir, in.layers[i], d.Hex, left); err != nil {
			return Image{}, fmt.Errorf("layer %d of %d: %w", i+1, len(diffs), explain(err))
		}
		fresh[dir] = place
	}
	if len(fresh) > 0 {
		// On the disk before they have their names: a layer is never unpacked
		// twice, so a damaged one would stay damaged.
		if err := syncDir(work); err != nil {
			return Image{}, fmt.Errorf("image: write the layers: %w", explain(err))
		}
	}
	for dir, place := range fresh {
		if err := os.Rename(dir, place); err != nil {
			if _, serr := os.Lstat(place); serr == nil {
				continue // another process was faster
			}
			return Image{}, fmt.Errorf("image: store a layer: %w", err)
		}
	}
	for _, d := range r.Diffs {
		r.Size += treeSize(s.layerDir(d))
	}
	err = s.change(func(x *index) error {
		if old, ok := x.Images[r.ID]; ok {
			r.Since = old.Since
			if old.Source == Loaded {
				r.Source = Loaded // somebody wanted to have it without a registry
			}
			if r.Digest == "" {
				r.Digest = old.Digest
			}
		}
		x.Images[r.ID] = r
		for _, name := range append(in.names, in.digest...) {
			x.Names[name] = r.ID
		}
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	name := r.ID
	if len(in.names) > 0 {
		name = in.names[0]
	}
	return s.image(r, name), nil
}

// explain says what to do about errors of the machine.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: the disk of the image store is full; free some space or remove images with 'fingerpost image remove'", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w; raise the limit of open files", err)
	}
	return err
}

// unpackLayer unpacks one layer into a new directory, if its content has the
// right checksum.
func (s *Store) unpackLayer(ctx context.Context, dir string, open func() (io.ReadCloser, error), want string, left *budget) error {
	src, err := open()
	if err != nil {
		return err
	}
	defer src.Close()
	plain, err := decompress(src)
	if err != nil {
		return err
	}
	defer plain.Close()
	hash := sha256.New()
	// The stream may be longer than what is in it: a tar can be padded.
	bounded := &boundedReader{ctx: ctx, r: io.TeeReader(plain, hash), left: left.bytes + 64<<20}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return err
	}
	if err := unpack(dir, bounded, left, s.cfg.Log); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		return fmt.Errorf("%w: its content has the checksum sha256:%s, the configuration says sha256:%s", ErrBadImage, got, want)
	}
	return nil
}

// boundedReader ends with its context, and fails beyond a length.
type boundedReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("%w: it is larger than images may be here", ErrBadImage)
	}
	return n, err
}

// budget is what is left of the limits of one image.
type budget struct {
	bytes   int64
	entries int
}

func (b *budget) take(bytes int64) error {
	b.entries--
	if b.entries < 0 {
		return fmt.Errorf("%w: it has more files than images may have here", ErrBadImage)
	}
	if bytes < 0 || bytes > b.bytes {
		return fmt.Errorf("%w: it is larger than images may be here", ErrBadImage)
	}
	b.bytes -= bytes
	return nil
}

// decompress tells the compression by the first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	magic, err := br.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrBadImage, err)
		}
		return z, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrBadImage, err)
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("%w: it is compressed with xz, which is not supported; use gzip or zstd", ErrBadImage)
	}
	return io.NopCloser(br), nil
}

// readDocument reads a manifest or configuration and checks it against its
// digest, "" if there is none.
func readDocument(r io.Reader, digest string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%w: a description of more than %d MiB", ErrBadImage, maxDocument>>20)
	}
	sum := sha256.Sum256(data)
	if got := "sha256:" + hex.EncodeToString(sum[:]); digest != "" && got != digest {
		return nil, fmt.Errorf("%w: a description has the checksum %s, it should be %s", ErrBadImage, got, digest)
	}
	return data, nil
}
