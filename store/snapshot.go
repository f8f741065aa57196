package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// SaveSnapshot writes the whole state of a running store to file (0600, it
// holds Secrets). The file appears only when it is complete.
func (s *Store) SaveSnapshot(ctx context.Context, file string) error {
	cfg := clientv3.Config{Endpoints: s.Endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	if s.CAFile != "" || s.CertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}
		tlsConfig, err := info.ClientConfig()
		if err != nil {
			return fmt.Errorf("store: read the TLS files for etcd: %w", err)
		}
		cfg.TLS = tlsConfig
	}
	if _, err := snapshot.NewV3(zap.NewNop()).Save(ctx, cfg, file); err != nil {
		return fmt.Errorf("store: save a snapshot of %v: %w\nIs the server running?", s.Endpoints, err)
	}
	return nil
}

// Embedded names the store of a server that runs on a data directory, for
// tools beside it; it does not open the directory.
func Embedded(dir string) *Store {
	return &Store{Endpoints: []string{SocketURL(dir)}, Embedded: true, close: func() {}}
}

// revisionBump keeps clients that watched the old state from taking the
// restored one for older or newer than it is: every revision they know is
// compacted, so they list again.
const revisionBump = 1_000_000_000

// RestoreSnapshot makes a new data directory from a snapshot. What was in dir
// is kept beside it, under the name that is returned ("" if there was none).
func RestoreSnapshot(file, dir string, now time.Time) (kept string, err error) {
	if _, err := os.Stat(file); err != nil {
		return "", fmt.Errorf("store: restore: %w", err)
	}
	if err := prepareDir(dir); err != nil {
		return "", err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	etcd := filepath.Join(dir, "etcd")
	fresh := etcd + ".restoring"
	if err := os.RemoveAll(fresh); err != nil {
		return "", fmt.Errorf("store: restore: %w", err)
	}
	sockets := socketDir(dir)
	peer := "unix://" + filepath.Join(sockets, "p.sock")
	err = snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath:        file,
		Name:                memberName,
		OutputDataDir:       fresh,
		PeerURLs:            []string{peer},
		InitialCluster:      memberName + "=" + peer,
		InitialClusterToken: "etcd-cluster",
		RevisionBump:        revisionBump,
		MarkCompacted:       true,
	})
	if err != nil {
		_ = os.RemoveAll(fresh)
		return "", fmt.Errorf("store: %s is no complete snapshot: %w", file, err)
	}
	if _, err := os.Stat(etcd); err == nil {
		kept = etcd + ".before-" + now.UTC().Format("20060102-150405")
		if err := os.Rename(etcd, kept); err != nil {
			return "", fmt.Errorf("store: restore: keep the old state: %w", err)
		}
	}
	if err := os.Rename(fresh, etcd); err != nil {
		return "", errors.Join(fmt.Errorf("store: restore: %w", err), os.Rename(kept, etcd))
	}
	return kept, nil
}
