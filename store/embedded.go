package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// layout is the version of the data directory's layout. It changes when an
// older binary could not read what a newer one wrote.
const layout = "fingerpost-data 1"

// clusterToken of the embedded etcd; the same for snapshot restore.
const memberName = "fingerpost"

func openEmbedded(ctx context.Context, c Config) (*Store, error) {
	if err := prepareDir(c.Dir); err != nil {
		return nil, err
	}
	unlock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	guard := newGuard(c.Dir)
	if err := guard.Check(); err != nil {
		unlock()
		return nil, err
	}
	sockets, err := prepareSockets(c.Dir)
	if err != nil {
		unlock()
		return nil, err
	}
	if err := checkDatabase(c.Dir); err != nil {
		unlock()
		return nil, err
	}
	e, err := embed.StartEtcd(etcdConfig(c, sockets))
	if err != nil {
		unlock()
		return nil, fmt.Errorf("store: start etcd in %s: %w", c.Dir, err)
	}
	stop := func() {
		e.Close()
		unlock()
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		stop()
		return nil, fmt.Errorf("store: start etcd in %s: %w", c.Dir, err)
	case <-e.Server.StopNotify():
		stop()
		return nil, fmt.Errorf("store: etcd in %s stopped while it started; see the log above", c.Dir)
	case <-ctx.Done():
		stop()
		return nil, ctx.Err()
	}
	guard.start()
	return &Store{
		Endpoints: []string{"unix://" + filepath.Join(sockets, "c.sock")},
		Embedded:  true,
		Guard:     guard,
		direct:    newDirect(e),
		close: func() {
			guard.stop()
			stop()
		},
	}, nil
}

func etcdConfig(c Config, sockets string) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = memberName
	cfg.Dir = filepath.Join(c.Dir, "etcd")
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "c.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "p.sock")}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = memberName + "=" + peer.String()
	cfg.QuotaBackendBytes = c.QuotaBytes
	if cfg.QuotaBackendBytes == 0 {
		cfg.QuotaBackendBytes = 8 << 30
	}
	cfg.UnsafeNoFsync = c.UnsafeNoSync
	// A member that is alone needs no patience for an election.
	cfg.TickMs, cfg.ElectionMs = 20, 100
	cfg.MaxRequestBytes = 8 << 20 // etcd's default of 1.5 MiB is below what the API accepts in one object (3 MiB)
	cfg.SnapshotCount = 10000
	// Memory: the log kept for followers that do not exist.
	cfg.SnapshotCatchUpEntries = 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: c.Log.With("component", "etcd")}))
	return cfg
}

// prepareDir makes the data directory, or refuses one that is not ours.
func prepareDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("store: make the data directory: %w\nChoose another one with --data-dir.", err)
	}
	path := filepath.Join(dir, "layout")
	got, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, "etcd")); err == nil {
			return fmt.Errorf("store: %s has an etcd directory but no layout file: it was not made by fingerpost; choose another --data-dir", dir)
		}
		if err := writeFileSync(path, []byte(layout+"\n")); err != nil {
			return fmt.Errorf("store: write to the data directory: %w", err)
		}
		return nil
	case err != nil:
		return fmt.Errorf("store: read the data directory: %w", err)
	case strings.TrimSpace(string(got)) != layout:
		return fmt.Errorf("store: %s was written by another version (its layout is %q, this binary reads %q); use that version, or another --data-dir with 'fingerpost snapshot restore'", dir, strings.TrimSpace(string(got)), layout)
	}
	return nil
}

func writeFileSync(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// checkDatabase opens the database before etcd does: etcd ends the process when
// it cannot.
func checkDatabase(dir string) error {
	path := filepath.Join(dir, "etcd", "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("store: the database %s cannot be read: %w; restore a snapshot with 'fingerpost snapshot restore'", path, err)
	}
	return db.Close()
}

// prepareSockets removes what a killed process left and makes sure that the
// sockets' directory is ours alone.
func prepareSockets(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("store: data directory: %w", err)
	}
	if err := os.Chmod(abs, 0o700); err != nil {
		return "", fmt.Errorf("store: close the data directory to others: %w", err)
	}
	sockets := socketDir(abs)
	if sockets != abs {
		if old, err := os.Readlink(sockets); err != nil || old != abs {
			_ = os.Remove(sockets)
			if err := os.Symlink(abs, sockets); err != nil {
				return "", fmt.Errorf("store: the data directory's path is too long for a socket, and no short link to it can be made: %w", err)
			}
		}
	}
	for _, s := range []string{"c.sock", "p.sock"} {
		if err := os.Remove(filepath.Join(abs, s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("store: remove a stale socket: %w", err)
		}
	}
	return sockets, nil
}

// slogCore sends etcd's log to ours, one level lower: its Info narrates, and its
// warnings are about single slow requests.
type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), level(l))
}

func (c *slogCore) With(f []zapcore.Field) zapcore.Core {
	return &slogCore{c.log, append(append([]zapcore.Field(nil), c.fields...), f...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// harmless are warnings that tell nothing here: there is one member, it listens
// on sockets that only its owner reaches, and the first start finds no schema.
var harmless = []string{"Running http and grpc server on single port", "simple token is not cryptographically signed", "Failed to detect schema version", "failed to update storage version", "setting up serving from embedded etcd failed"}

func (c *slogCore) Write(e zapcore.Entry, f []zapcore.Field) error {
	for _, h := range harmless {
		if strings.HasPrefix(e.Message, h) {
			e.Level = zapcore.DebugLevel
		}
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, x := range c.fields {
		x.AddTo(enc)
	}
	for _, x := range f {
		x.AddTo(enc)
	}
	attrs := make([]any, 0, 2*len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, k, v)
	}
	c.log.Log(context.Background(), level(e.Level), e.Message, attrs...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

// guardInterval is how often free space is looked at.
const guardInterval = time.Second
