package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/fingerpost/fingerpost/node/network"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// Errors of Images that the agent tells apart. All others are ErrImagePull.
var (
	// ErrImageMissing: the image is not here and must not be fetched.
	ErrImageMissing = errors.New("no such image on this node")
	// ErrImageName: the name can be no image's.
	ErrImageName = errors.New("invalid image name")
)

// Image is what containers are made from.
type Image struct {
	ID                   string   // "sha256:…"
	Layers               []string // directories, the lowest first; empty: the machine's own file system
	Entrypoint, Cmd, Env []string
	WorkDir, User        string
	StopSignal           string
	Pulled               bool // it was fetched for this call
}

// Images finds images. auths are the contents of the pod's image pull secrets
// (.dockerconfigjson).
type Images interface {
	Resolve(ctx context.Context, ref string, policy corev1.PullPolicy, auths [][]byte) (Image, error)
}

// Network gives pods their network; *network.Network is one.
type Network interface {
	Setup() error
	Attach(ctx context.Context, podUID string) (network.Attachment, error)
	Detach(ctx context.Context, podUID string) error
	List() ([]network.Attachment, error)
	SetHostPorts(podUID string, ports []network.HostPort) error
	SetRoutes(peers []network.Peer) error
	Teardown() error
}

// Config of an Agent.
type Config struct {
	NodeName string
	// Addresses of the node: the first is the one that others reach it at.
	Addresses []netip.Addr
	Labels    map[string]string // more labels of the Node object
	Zone      string            // topology.kubernetes.io/zone
	Taints    []corev1.Taint    // of a new Node object
	Client    kubernetes.Interface

	// Runtime may be a runtime.Notifier and a runtime.Streamer as well; without
	// the first ends of containers are found by looking every second.
	Runtime runtime.Runtime
	Images  Images
	// Network makes the pod network for the node's ranges; nil: every pod uses
	// the machine's network.
	Network func(ranges []netip.Prefix) (Network, error)
	// ClusterCIDRs are the ranges of all pods, of which the node claims a part
	// if it was given none: /24 of IPv4, /64 of IPv6. Default 10.244.0.0/16.
	ClusterCIDRs []netip.Prefix

	Dir           string // state: pods, volumes, logs
	SecretsOnDisk bool   // do not mount a file system in memory for them
	ClusterDNS    []netip.Addr
	ClusterDomain string // "cluster.local"
	ResolvConf    string // the machine's; "/etc/resolv.conf"
	// Env gives the service variables for a namespace (NAME=value); for ""
	// those that every namespace has. An error delays containers.
	Env func(namespace string) ([]string, error)

	// Called tells whether services still send to addresses of a pod: nil if
	// none knows them, else a question that can be asked again. With it, a pod
	// that goes is told so only when nobody sends to it any more.
	Called func(namespace string, addrs []netip.Addr) func() bool

	StreamPort int32               // of the API for exec and logs; 0: none
	Capacity   corev1.ResourceList // what is not given is asked of the machine
	Reserved   corev1.ResourceList // capacity that is not allocatable
	MaxPods    int64               // 250
	Version    string              // told as kubeletVersion

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) complete() (Config, error) {
	switch {
	case c.NodeName == "":
		return c, errors.New("agent: no node name")
	case c.Client == nil:
		return c, errors.New("agent: no client of the API")
	case c.Runtime == nil:
		return c, errors.New("agent: no runtime")
	case c.Images == nil:
		return c, errors.New("agent: no images")
	case c.Dir == "":
		return c, errors.New("agent: no directory for the state")
	case len(c.Addresses) == 0:
		return c, errors.New("agent: no address of the node: give one that other nodes reach")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, fmt.Errorf("agent: directory %s: %w", c.Dir, err)
	}
	c.Dir = dir
	c.ClusterCIDRs = c.clusterCIDRs()
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Env == nil {
		c.Env = func(string) ([]string, error) { return nil, nil }
	}
	if c.MaxPods <= 0 {
		c.MaxPods = 250
	}
	if c.Version == "" {
		c.Version = "v1.37.1"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

func (c *Config) clusterCIDRs() []netip.Prefix {
	if len(c.ClusterCIDRs) == 0 {
		return []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	}
	return c.ClusterCIDRs
}

// paths of a pod and of the agent.

func (c *Config) podsDir() string               { return filepath.Join(c.Dir, "pods") }
func (c *Config) podDir(uid string) string      { return filepath.Join(c.podsDir(), uid) }
func (c *Config) volatileDir() string           { return filepath.Join(c.Dir, "volatile") }
func (c *Config) volatilePod(uid string) string { return filepath.Join(c.volatileDir(), uid) }

func (c *Config) logPath(uid, container string, attempt int) string {
	return filepath.Join(c.podDir(uid), "logs", container, fmt.Sprintf("%d.log", attempt))
}

func (c *Config) terminationPath(uid, container string, attempt int) string {
	return filepath.Join(c.podDir(uid), "termination", fmt.Sprintf("%s.%d", container, attempt))
}

func (c *Config) filePath(uid, name string) string {
	return filepath.Join(c.podDir(uid), "etc", name)
}

func (c *Config) makeDirs() error {
	for _, d := range []string{c.Dir, c.podsDir(), c.volatileDir()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	return os.Chmod(c.volatileDir(), 0o711)
}
