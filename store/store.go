package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Config says which etcd to use. With Endpoints it is that one, otherwise an
// embedded one in Dir.
type Config struct {
	// Dir is the directory of the embedded etcd (made if it does not exist).
	Dir string
	// Endpoints of an external etcd, as URLs: https://10.0.0.1:2379.
	Endpoints []string
	// CAFile, CertFile and KeyFile: TLS to the external etcd, PEM.
	CAFile, CertFile, KeyFile string
	// QuotaBytes is how large the embedded database may grow; 8 GiB if zero.
	QuotaBytes int64
	// UnsafeNoSync skips fsync: writes are lost on power failure. For tests.
	UnsafeNoSync bool
	Log          *slog.Logger
}

func (c *Config) validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("store: --etcd-certfile and --etcd-keyfile must be given together")
	}
	if len(c.Endpoints) == 0 && c.Dir == "" {
		return errors.New("store: neither a data directory nor etcd endpoints are given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Store is an open etcd.
type Store struct {
	// Endpoints, CAFile, CertFile and KeyFile are what a client needs.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	// Embedded: this process is the only writer.
	Embedded bool
	// Guard watches the disk of an embedded etcd; nil for an external one.
	Guard *Guard

	direct *kubernetes.Client
	close  func()
}

// Open starts the embedded etcd, or checks that the external one answers.
func Open(ctx context.Context, c Config) (*Store, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if len(c.Endpoints) == 0 {
		return openEmbedded(ctx, c)
	}
	s := &Store{Endpoints: c.Endpoints, CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, close: func() {}}
	cli, err := s.Client()
	if err != nil {
		return nil, err
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := cli.Get(ctx, "health"); err != nil {
		if reason := s.handshake(); reason != nil {
			err = reason // "deadline exceeded" says less
		}
		return nil, fmt.Errorf("store: etcd at %v does not answer: %w\nCheck --etcd-endpoints and, for https, --etcd-cafile, --etcd-certfile and --etcd-keyfile.", c.Endpoints, err)
	}
	return s, nil
}

// Close stops the embedded etcd; everything acknowledged is on disk.
func (s *Store) Close() { s.close() }

// handshake says why TLS to an endpoint fails, if that is what fails.
func (s *Store) handshake() error {
	info := transport.TLSInfo{TrustedCAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}
	for _, e := range s.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Scheme != "https" {
			continue
		}
		cfg, err := info.ClientConfig()
		if err != nil {
			return err
		}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", u.Host, cfg)
		if err != nil {
			return err
		}
		_ = conn.Close()
	}
	return nil
}

// Client opens a client of the store. The caller closes it.
func (s *Store) Client() (*clientv3.Client, error) {
	var tlsConfig *tls.Config
	if s.CAFile != "" || s.CertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}
		var err error
		if tlsConfig, err = info.ClientConfig(); err != nil {
			return nil, fmt.Errorf("store: read the TLS files for etcd: %w", err)
		}
	}
	cli, err := clientv3.New(clientv3.Config{
		Endpoints:   s.Endpoints,
		TLS:         tlsConfig,
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("store: connect to etcd at %v: %w", s.Endpoints, err)
	}
	return cli, nil
}

// SocketURL gives the client URL of the embedded etcd in a data directory, for
// tools that run beside the server.
func SocketURL(dir string) string {
	return "unix://" + filepath.Join(socketDir(dir), "c.sock")
}

// socketDir is dir itself, or a link to it with a short name when the path
// would not fit into a socket address (108 bytes on Linux).
func socketDir(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	if len(abs)+len("/c.sock") < 100 {
		return abs
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("fingerpost-%d-%08x", os.Geteuid(), fnv32(abs)))
}

func fnv32(s string) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
