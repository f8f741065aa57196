package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Config of a File. Path must be set.
type Config struct {
	Path string
	// Source names where the catalog's content comes from: the URL of the
	// server, say. A file of another source is not loaded.
	Source string
	// Every is the least time between two writes; 10 s if 0.
	Every time.Duration
	// MaxAge is how old a file may be to be loaded; 7 days if 0.
	MaxAge time.Duration

	Log *slog.Logger // nil: none
	Now func() time.Time
	// Wrote is told of every write; nil: nobody.
	Wrote func(Write)
}

// Write is what became of one attempt to write.
type Write struct {
	Took  time.Duration
	Bytes int64
	Err   error
}

// File keeps a catalog on disk.
type File struct {
	cfg  Config
	last uint64        // revision that the file shows
	cost time.Duration // how long the next write must wait for the size of the last
}

const (
	maxSize = 1 << 30   // a larger file is nobody's catalog
	perSec  = 128 << 10 // bytes written a second, over time
)

// New makes a File. It touches nothing yet.
func New(cfg Config) (*File, error) {
	if cfg.Path == "" {
		return nil, errors.New("catalog/disk: a path must be given")
	}
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 7 * 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wrote == nil {
		cfg.Wrote = func(Write) {}
	}
	return &File{cfg: cfg}, nil
}

// Load fills an empty catalog from the file, marked as not synced and stale
// since the file was written, and says whether it did. A file that is not
// there is nothing to speak of; one that is of no use is a warning.
func (f *File) Load(c *catalog.Catalog) bool {
	got, err := f.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case err != nil:
		f.cfg.Log.Warn("the snapshot of the last run is not used: names are known when the server answers", "file", f.cfg.Path, "reason", err)
		return false
	}
	c.Update(func(t *catalog.Txn) {
		for _, n := range got.namespaces {
			t.PutNamespace(n)
		}
		for i := range got.entries {
			e := &got.entries[i]
			t.PutService(e.Service)
			t.PutEndpoints(e.Service.Key, e.Endpoints)
		}
		t.SetFreshness(catalog.Freshness{StaleSince: got.taken})
	})
	s := c.Snapshot()
	services, endpoints := s.Len()
	f.cfg.Log.Info("answering from the snapshot of the last run until the server does", "file", f.cfg.Path, "services", services, "endpoints", endpoints, "taken", got.taken)
	f.last = s.Revision()
	return true
}

func (f *File) read() (*contents, error) {
	info, err := os.Stat(f.cfg.Path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		return nil, errForeign
	}
	b, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		return nil, err
	}
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	if c.source != f.cfg.Source {
		return nil, fmt.Errorf("it was taken from %q, not from %q", c.source, f.cfg.Source)
	}
	// A clock that was set back makes files of the future: those are fine.
	if age := f.cfg.Now().Sub(c.taken); age > f.cfg.MaxAge {
		return nil, fmt.Errorf("it is %s old", age.Round(time.Minute))
	}
	return c, nil
}

// Run writes the catalog to the file when it has changed, until ctx ends, and
// once more then. It returns nil: a disk that is full must not stop a view.
func (f *File) Run(ctx context.Context, c *catalog.Catalog) error {
	t := time.NewTimer(f.cfg.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			f.save(c)
			return nil
		case <-t.C:
		}
		f.save(c)
		t.Reset(max(f.cfg.Every, f.cost))
	}
}

// save writes if there is something new that is whole.
func (f *File) save(c *catalog.Catalog) {
	s := c.Snapshot()
	if s.Revision() == f.last || !s.Freshness().Synced {
		return
	}
	began := f.cfg.Now()
	n, err := f.write(s, began)
	f.cfg.Wrote(Write{Took: f.cfg.Now().Sub(began), Bytes: n, Err: err})
	if err != nil {
		f.cfg.Log.Warn("the catalog could not be kept on disk: a restart without the server would answer from an older state", "file", f.cfg.Path, "error", err)
		return
	}
	f.last = s.Revision()
	f.cost = time.Duration(n) * time.Second / perSec
}

func (f *File) write(s *catalog.Snapshot, now time.Time) (n int64, err error) {
	dir := filepath.Dir(f.cfg.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, err
	}
	tmp, err := os.OpenFile(f.cfg.Path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	// The last state that can be believed is that of the moment when the
	// source was lost.
	taken := now
	if since := s.Freshness().StaleSince; !since.IsZero() {
		taken = since
	}
	if err := encode(tmp, header{f.cfg.Source, taken}, s); err != nil {
		return 0, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return 0, err
	}
	if err := tmp.Sync(); err != nil {
		return 0, err
	}
	if err := tmp.Close(); err != nil {
		return 0, err
	}
	if err := os.Rename(tmp.Name(), f.cfg.Path); err != nil {
		return 0, err
	}
	if d, err := os.Open(dir); err == nil { // the name must last too
		_ = d.Sync()
		_ = d.Close()
	}
	return info.Size(), nil
}
