package volume

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

// Objects are what volumes are made from. Errors that wrap envvar.ErrNotFound
// are forgiven where a source is optional.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token makes a token of the pod's service account.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
}

// Config of a Set.
type Config struct {
	Dir      string // of this pod's volumes
	Volatile string // the same in memory; empty: Dir
	Objects  Objects
}

// Set is the volumes of one pod. Calls come one after the other.
type Set struct {
	cfg    Config
	tokens map[string]token // volume/path
}

type token struct {
	value   string
	renewAt time.Time
	expires time.Time
}

// Volume is one that is there.
type Volume struct {
	Path string
	// File is set for a hostPath that is no directory.
	File bool
	// ReadOnly volumes cannot be written by containers.
	ReadOnly bool
}

// Error names the volume that could not be made.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// New makes a Set; nothing is on the machine yet.
func New(cfg Config) *Set {
	if cfg.Volatile == "" {
		cfg.Volatile = cfg.Dir
	}
	return &Set{cfg: cfg, tokens: map[string]token{}}
}

// Mount makes all volumes of the pod, and tells when to call it again because
// a token must be renewed (zero: no need).
func (s *Set) Mount(ctx context.Context, fields envvar.Fields) (map[string]Volume, time.Time, error) {
	p := fields.Pod
	out := make(map[string]Volume, len(p.Spec.Volumes))
	var again time.Time
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		made, next, err := s.mount(ctx, v, fields)
		if err != nil {
			return nil, time.Time{}, &Error{v.Name, err}
		}
		out[v.Name] = made
		if !next.IsZero() && (again.IsZero() || next.Before(again)) {
			again = next
		}
	}
	return out, again, nil
}

func (s *Set) mount(ctx context.Context, v *corev1.Volume, fields envvar.Fields) (Volume, time.Time, error) {
	p := fields.Pod
	group := fsGroup(p)
	dir := filepath.Join(s.cfg.Dir, v.Name)
	switch {
	case v.EmptyDir != nil:
		return Volume{Path: dir}, time.Time{}, emptyDir(dir, v.EmptyDir, group)
	case v.HostPath != nil:
		file, err := hostPath(v.HostPath)
		return Volume{Path: v.HostPath.Path, File: file}, time.Time{}, err
	}
	c := content{ctx: ctx, set: s, fields: fields, volume: v.Name, files: map[string]File{}, group: group, owner: soleUser(p)}
	switch {
	case v.ConfigMap != nil:
		c.mode = modeOr(v.ConfigMap.DefaultMode)
		c.configMap(v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.Secret != nil:
		dir = filepath.Join(s.cfg.Volatile, v.Name)
		c.mode = modeOr(v.Secret.DefaultMode)
		c.secret(v.Secret.SecretName, v.Secret.Items, v.Secret.Optional)
	case v.DownwardAPI != nil:
		c.mode = modeOr(v.DownwardAPI.DefaultMode)
		c.downward(v.DownwardAPI.Items)
	case v.Projected != nil:
		dir = filepath.Join(s.cfg.Volatile, v.Name)
		c.mode = modeOr(v.Projected.DefaultMode)
		for i := range v.Projected.Sources {
			c.projection(&v.Projected.Sources[i])
		}
	default:
		return Volume{}, time.Time{}, fmt.Errorf("this node has no driver for its type: use emptyDir, hostPath, configMap, secret, downwardAPI or projected")
	}
	if c.err != nil {
		return Volume{}, time.Time{}, c.err
	}
	return Volume{Path: dir, ReadOnly: true}, c.again, Write(dir, c.files, group)
}

func modeOr(mode *int32) os.FileMode {
	if mode == nil {
		return 0o644
	}
	return os.FileMode(*mode).Perm()
}

func fsGroup(p *corev1.Pod) *int64 {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	return p.Spec.SecurityContext.FSGroup
}

// soleUser gives the user that all containers run as, if there is one.
func soleUser(p *corev1.Pod) *int64 {
	var sole *int64
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		var user *int64
		if sc := p.Spec.SecurityContext; sc != nil {
			user = sc.RunAsUser
		}
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			user = c.SecurityContext.RunAsUser
		}
		if user == nil || sole != nil && *sole != *user {
			return nil
		}
		sole = user
	}
	return sole
}

// Unmount takes everything away; hostPaths stay.
func (s *Set) Unmount() error {
	for _, dir := range []string{s.cfg.Dir, s.cfg.Volatile} {
		if err := Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// Remove unmounts everything below a directory and removes it.
func Remove(dir string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
