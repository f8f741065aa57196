package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Config of a File. Path must be set.
type Config struct {
	Path string
	// Source names where the objects come from. A file of another one is not read.
	Source string
	Every  time.Duration // least time between two writes; 1 s if 0
	MaxAge time.Duration // how old a file may be to be read; 7 days if 0

	Now func() time.Time // nil: time.Now
	// Wrote is told of every write; nil: nobody.
	Wrote func(Write)
}

// Write is what became of one attempt to write.
type Write struct {
	Took  time.Duration
	Bytes int
	Err   error
}

// File keeps objects on disk.
type File struct {
	cfg  Config
	jobs chan func() ([]Record, time.Time)
}

const (
	maxSize = 1 << 30 // a larger file is nobody's
	perSec  = 1 << 20 // bytes written a second, over time
)

// New makes a File. It touches nothing yet.
func New(cfg Config) (*File, error) {
	if cfg.Path == "" {
		return nil, errors.New("ingress/disk: a path must be given")
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = 7 * 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wrote == nil {
		cfg.Wrote = func(Write) {}
	}
	return &File{cfg: cfg, jobs: make(chan func() ([]Record, time.Time), 1)}, nil
}

// Path is where the file is.
func (f *File) Path() string { return f.cfg.Path }

// Load reads the file. An error of fs.ErrNotExist: there is none.
func (f *File) Load() (*Contents, error) {
	info, err := os.Stat(f.cfg.Path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSize {
		return nil, ErrForeign
	}
	b, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		return nil, err
	}
	c, err := Decode(b)
	if err != nil {
		return nil, err
	}
	if c.Source != f.cfg.Source {
		return nil, fmt.Errorf("it was taken from %q, not from %q", c.Source, f.cfg.Source)
	}
	// A clock that was set back makes files of the future: those are fine.
	if age := f.cfg.Now().Sub(c.Taken); age > f.cfg.MaxAge {
		return nil, fmt.Errorf("it is %s old", age.Round(time.Minute))
	}
	return c, nil
}

// Save asks for a write of what get gives; of several that wait for their turn the
// last one is written. get is called in Run, so that it must read only what does not
// change any more. It gives the time for which it holds, too. One goroutine calls
// Save.
func (f *File) Save(get func() ([]Record, time.Time)) {
	select {
	case <-f.jobs:
	default:
	}
	f.jobs <- get
}

// Run writes what Save asks for, until ctx ends; what waits then is written
// still. It returns nil: a disk that is full must not stop a gateway. A write that
// failed is tried again.
func (f *File) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	var failed func() ([]Record, time.Time)
	for {
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		get := failed
		select {
		case get = <-f.jobs:
		default:
			if get != nil || ctx.Err() != nil {
				break
			}
			select {
			case get = <-f.jobs:
			case <-ctx.Done():
			}
		}
		if get == nil {
			return nil
		}
		n, err := f.write(get)
		failed = nil
		if err != nil {
			failed = get
		}
		if ctx.Err() != nil {
			return nil
		}
		pause.Reset(max(f.cfg.Every, time.Duration(n)*time.Second/perSec))
	}
}

func (f *File) write(get func() ([]Record, time.Time)) (int, error) {
	began := f.cfg.Now()
	records, taken := get()
	b := Encode(&Contents{f.cfg.Source, taken, records})
	err := f.replace(b)
	f.cfg.Wrote(Write{Took: f.cfg.Now().Sub(began), Bytes: len(b), Err: err})
	return len(b), err
}

func (f *File) replace(b []byte) (err error) {
	dir := filepath.Dir(f.cfg.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Not one that somebody else made, with other rights.
	if err := os.Remove(f.cfg.Path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	tmp, err := os.OpenFile(f.cfg.Path+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(b); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), f.cfg.Path); err != nil {
		return err
	}
	if d, err := os.Open(dir); err == nil { // the name must last too
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}
