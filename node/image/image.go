package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// Errors that callers tell apart. Each comes wrapped in a text for the user.
var (
	// ErrInvalidName: the reference cannot name an image.
	ErrInvalidName = errors.New("invalid image name")
	// ErrNotFound: the node has no such image, and was not to pull it.
	ErrNotFound = errors.New("image is not on this node")
	// ErrNoSuchImage: the registry has no such image.
	ErrNoSuchImage = errors.New("the registry has no such image")
	// ErrDenied: the registry wants other credentials.
	ErrDenied = errors.New("the registry refuses access")
	// ErrBadImage: the image is damaged, hostile or beyond the limits.
	ErrBadImage = errors.New("bad image")
)

// Image is what a container can be started from.
type Image struct {
	Name string `json:"name"` // in full: docker.io/library/nginx:latest
	// ID is the digest of the configuration, "sha256:…", or "local:PATH" of
	// something mapped, or "builtin:NAME".
	ID     string `json:"id"`
	Digest string `json:"digest,omitempty"` // of the manifest, if it is known
	// Layers are directories, the lowest first. None: the machine's own file
	// system (a mapped program).
	Layers     []string  `json:"layers,omitempty"`
	Entrypoint []string  `json:"entrypoint,omitempty"`
	Cmd        []string  `json:"cmd,omitempty"`
	Env        []string  `json:"env,omitempty"`
	WorkDir    string    `json:"workDir,omitempty"`
	User       string    `json:"user,omitempty"`
	StopSignal string    `json:"stopSignal,omitempty"`
	Size       int64     `json:"size"` // unpacked, bytes
	Created    time.Time `json:"created,omitzero"`
	Source     Source    `json:"source"`
}

// Source says how an image came to the node.
type Source string

// Sources of images.
const (
	Mapped  Source = "mapped"
	Loaded  Source = "loaded"
	Pulled  Source = "pulled"
	BuiltIn Source = "built-in"
)

// PullPolicy is that of a container.
type PullPolicy string

// Pull policies, as Kubernetes names them.
const (
	Always       PullPolicy = "Always"
	IfNotPresent PullPolicy = "IfNotPresent"
	Never        PullPolicy = "Never"
)

// Config of a store.
type Config struct {
	Dir string
	// BuiltIn answers for names that nothing else answers for; nil is none.
	BuiltIn func(Name) (Image, bool)
	// MaxBytes of one image, unpacked (default 32 GiB), and MaxEntries, files
	// and directories of it (default two million).
	MaxBytes   int64
	MaxEntries int
	Log        *slog.Logger
}

// Name is a reference, in full.
type Name struct {
	Repository string // docker.io/library/nginx
	Tag        string // empty with a digest
	Digest     string
	Tagged     bool // the tag was given, not "latest" by default
}

func (n Name) String() string {
	if n.Digest != "" {
		return n.Repository + "@" + n.Digest
	}
	return n.Repository + ":" + n.Tag
}

// Familiar is the repository as people write it: without what is default.
func (n Name) Familiar() string {
	s := strings.TrimPrefix(n.Repository, "docker.io/")
	if rest, ok := strings.CutPrefix(s, "library/"); ok && s != n.Repository {
		return rest
	}
	return s
}

// ParseName reads a reference.
func ParseName(s string) (Name, error) {
	bad := func(err error) (Name, error) {
		return Name{}, fmt.Errorf("image: %w %q: %w; names look like nginx:1.27 or registry.example.com/team/app@sha256:…", ErrInvalidName, s, err)
	}
	if s == "" {
		return bad(errors.New("it is empty"))
	}
	if len(s) > 1024 {
		s = s[:60] + "…"
		return bad(errors.New("it is too long"))
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return bad(err)
	}
	n := Name{Repository: named.Name(), Tag: "latest"}
	if t, ok := named.(reference.Tagged); ok {
		n.Tag, n.Tagged = t.Tag(), true
	}
	if d, ok := named.(reference.Digested); ok {
		if d.Digest().Algorithm() != "sha256" {
			return bad(errors.New("of digests, only sha256 is known"))
		}
		n.Tag, n.Tagged, n.Digest = "", false, d.Digest().String()
	}
	return n, nil
}

// Resolve finds the image for a container: what is mapped, then what is on the
// node, pulled if policy says so, then what is built in.
func (s *Store) Resolve(ctx context.Context, ref string, policy PullPolicy, auth Auth) (Image, error) {
	n, err := ParseName(ref)
	if err != nil {
		return Image{}, err
	}
	img, found, err := s.lookup(n)
	if err != nil {
		return Image{}, err
	}
	// Loaded by hand is newer than any registry: who loads an image wants it.
	if found && (img.Source != Pulled || policy != Always) {
		return img, nil
	}
	if !found && s.cfg.BuiltIn != nil && n.Digest == "" {
		if img, ok := s.cfg.BuiltIn(n); ok {
			img.Name, img.Source = n.String(), BuiltIn
			return img, nil
		}
	}
	if policy == Never {
		return Image{}, fmt.Errorf("image: %s: %w, and the pull policy is Never; load it with 'fingerpost image load' or map a program with 'fingerpost image map %s PATH'", n, ErrNotFound, n.Familiar())
	}
	return s.Pull(ctx, ref, auth)
}
