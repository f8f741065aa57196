package image

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Auth is what a puller may show to registries.
type Auth struct {
	// DockerConfigs are documents as in secrets of the types
	// kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg.
	DockerConfigs [][]byte
	// User lets the credentials count that the user of this process has
	// stored with 'docker login' or the like.
	User bool
}

// flight is a pull that is on its way.
type flight struct {
	done    chan struct{}
	waiting int
	cancel  context.CancelFunc
	img     Image
	err     error
}

// Pull fetches an image from its registry. Layers that are here are not
// fetched again.
func (s *Store) Pull(ctx context.Context, ref string, auth Auth) (Image, error) {
	n, err := ParseName(ref)
	if err != nil {
		return Image{}, err
	}
	hash := sha256.New()
	for _, c := range auth.DockerConfigs {
		fmt.Fprintf(hash, "%d:%s", len(c), c)
	}
	// Nobody gets what only another's credentials open.
	key := fmt.Sprintf("%s %x %t", n, hash.Sum(nil), auth.User)

	s.mu.Lock()
	f := s.flights[key]
	if f == nil {
		work, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		s.flights[key] = f
		go func() {
			defer cancel()
			f.img, f.err = s.pull(work, n, auth)
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			close(f.done)
		}()
	}
	f.waiting++
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.img, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	if last {
		if s.flights[key] == f {
			delete(s.flights, key)
		}
		f.cancel()
	}
	s.mu.Unlock()
	if last {
		<-f.done // so that nothing of it goes on
	}
	return Image{}, fmt.Errorf("image: pull %s: %w", n, ctx.Err())
}

func (s *Store) pull(ctx context.Context, n Name, auth Auth) (Image, error) {
	fail := func(err error) (Image, error) {
		return Image{}, fmt.Errorf("image: pull %s: %w", n, explainPull(err, n))
	}
	ref, err := name.ParseReference(n.String(), name.WeakValidation)
	if err != nil {
		return fail(err)
	}
	keys, err := auth.keychain()
	if err != nil {
		return fail(err)
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(keys), remote.WithUserAgent("fingerpost"),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}))
	if err != nil {
		return fail(err)
	}
	img, err := desc.Image()
	if err != nil {
		return fail(err)
	}
	in := incoming{source: Pulled, digest: []string{n.Repository + "@" + desc.Digest.String()}}
	if n.Digest == "" {
		in.names = []string{n.String()}
	}
	if own, err := img.Digest(); err != nil {
		return fail(err)
	} else if own != desc.Digest { // chosen from an index
		in.digest = append(in.digest, n.Repository+"@"+own.String())
	}
	if size, err := img.Size(); err != nil {
		return fail(err)
	} else if size > maxDocument {
		return fail(fmt.Errorf("%w: its manifest has more than %d MiB", ErrBadImage, maxDocument>>20))
	}
	if in.config, err = img.RawConfigFile(); err != nil {
		return fail(err)
	}
	layers, err := img.Layers()
	if err != nil {
		return fail(err)
	}
	for _, l := range layers {
		in.layers = append(in.layers, func() (io.ReadCloser, error) { return l.Compressed() })
	}
	got, err := s.add(ctx, in)
	if err != nil {
		return fail(err)
	}
	got.Name = n.String()
	return got, nil
}

// explainPull says what a failure means for the one who wanted the image.
func explainPull(err error, n Name) error {
	var status *transport.Error
	var dns *net.DNSError
	var op *net.OpError
	host, _, _ := strings.Cut(n.Repository, "/")
	switch {
	case errors.Is(err, ErrBadImage):
		return err
	case errors.As(err, &status):
		switch status.StatusCode {
		case http.StatusNotFound:
			return fmt.Errorf("%w; check the name and the tag (%w)", ErrNoSuchImage, err)
		case http.StatusUnauthorized, http.StatusForbidden:
			return fmt.Errorf("%w: the image does not exist, or needs credentials: add an imagePullSecret for %s (%w)", ErrDenied, host, err)
		case http.StatusTooManyRequests:
			return fmt.Errorf("%s limits how often images are pulled; wait, or use credentials (%w)", host, err)
		}
		return err
	case errors.As(err, &dns), errors.As(err, &op):
		return fmt.Errorf("the registry %s cannot be reached: %w; on a machine without a network use 'fingerpost image load FILE' or 'fingerpost image map %s PATH'", host, err, n.Familiar())
	}
	return err
}

// keychain reads the documents.
func (a Auth) keychain() (authn.Keychain, error) {
	var k keychain
	for i, data := range a.DockerConfigs {
		var doc struct {
			Auths map[string]authn.AuthConfig `json:"auths"`
		}
		err := json.Unmarshal(data, &doc)
		if err == nil && doc.Auths == nil {
			err = json.Unmarshal(data, &doc.Auths) // the older form
		}
		if err != nil {
			// Not the cause's text: it might show the secret.
			return nil, fmt.Errorf("%w: credential document %d is not in the form of Docker's config.json", ErrDenied, i+1)
		}
		for where, c := range doc.Auths {
			k = append(k, credential{where: cleanRegistry(where), config: c})
		}
	}
	if a.User {
		return authn.NewMultiKeychain(k, authn.DefaultKeychain), nil
	}
	return k, nil
}

type credential struct {
	where  string // host, or host/path
	config authn.AuthConfig
}

// keychain gives the credential with the longest matching name.
type keychain []credential

func cleanRegistry(s string) string {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	s = strings.TrimSuffix(s, "/")
	for _, v := range []string{"/v1", "/v2"} {
		s = strings.TrimSuffix(s, v)
	}
	if rest, ok := strings.CutPrefix(s, "docker.io"); ok && (rest == "" || rest[0] == '/') {
		return name.DefaultRegistry + rest
	}
	return s
}

// Resolve is authn.Keychain's.
func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	best := -1
	for i, c := range k {
		if matches(c.where, r.String()) && (best < 0 || len(c.where) > len(k[best].where)) {
			best = i
		}
	}
	if best < 0 {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(k[best].config), nil
}

// matches compares a registry of a credential, in which * stands for a part of
// the host name, with a repository.
func matches(where, repository string) bool {
	host, prefix, _ := strings.Cut(where, "/")
	gotHost, gotPath, _ := strings.Cut(repository, "/")
	if prefix != "" && gotPath != prefix && !strings.HasPrefix(gotPath, prefix+"/") {
		return false
	}
	// As in a path, a star does not go beyond a dot.
	ok, err := path.Match(strings.ReplaceAll(host, ".", "/"), strings.ReplaceAll(gotHost, ".", "/"))
	return err == nil && ok
}
