package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fingerpost/fingerpost/node/agent/envvar"
)

// content collects the files of one volume. The first error stays.
type content struct {
	ctx    context.Context
	set    *Set
	fields envvar.Fields
	volume string
	files  map[string]File
	mode   os.FileMode
	group  *int64
	owner  *int64
	again  time.Time
	err    error
}

func (c *content) fail(err error, optional *bool) {
	if err == nil || optional != nil && *optional && errors.Is(err, envvar.ErrNotFound) || c.err != nil {
		return
	}
	c.err = err
}

func (c *content) put(path string, data []byte, mode *int32) {
	f := File{Data: data, Mode: c.mode}
	if mode != nil {
		f.Mode = os.FileMode(*mode).Perm()
	}
	if c.group != nil {
		f.Mode |= 0o040
	}
	c.files[path] = f
}

// items puts the keys that are asked for, or all.
func (c *content) items(what string, data map[string][]byte, items []corev1.KeyToPath, optional *bool) {
	if items == nil {
		for k, v := range data {
			c.put(k, v, nil)
		}
		return
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			c.fail(fmt.Errorf("%s references non-existent config key: %s: %w", what, item.Key, envvar.ErrNotFound), optional)
			continue
		}
		c.put(item.Path, v, item.Mode)
	}
}

func (c *content) configMap(name string, items []corev1.KeyToPath, optional *bool) {
	o, err := c.set.cfg.Objects.ConfigMap(c.ctx, c.fields.Pod.Namespace, name)
	if err != nil {
		c.fail(err, optional)
		return
	}
	data := make(map[string][]byte, len(o.Data)+len(o.BinaryData))
	for k, v := range o.Data {
		data[k] = []byte(v)
	}
	for k, v := range o.BinaryData {
		data[k] = v
	}
	c.items("configmap", data, items, optional)
}

func (c *content) secret(name string, items []corev1.KeyToPath, optional *bool) {
	o, err := c.set.cfg.Objects.Secret(c.ctx, c.fields.Pod.Namespace, name)
	if err != nil {
		c.fail(err, optional)
		return
	}
	c.items("secret", o.Data, items, optional)
}

func (c *content) downward(items []corev1.DownwardAPIVolumeFile) {
	for _, item := range items {
		var v string
		var err error
		switch {
		case item.FieldRef != nil:
			v, err = c.fields.Field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			v, err = c.fields.Resource(item.ResourceFieldRef, &corev1.Container{})
		}
		c.fail(err, nil)
		c.put(item.Path, []byte(v), item.Mode)
	}
}

func (c *content) projection(p *corev1.VolumeProjection) {
	switch {
	case p.ConfigMap != nil:
		c.configMap(p.ConfigMap.Name, p.ConfigMap.Items, p.ConfigMap.Optional)
	case p.Secret != nil:
		c.secret(p.Secret.Name, p.Secret.Items, p.Secret.Optional)
	case p.DownwardAPI != nil:
		c.downward(p.DownwardAPI.Items)
	case p.ServiceAccountToken != nil:
		c.token(p.ServiceAccountToken)
	default:
		c.fail(errors.New("a projected source is of a type that this node does not know: use configMap, secret, downwardAPI or serviceAccountToken"), nil)
	}
}

// left gives a token that an earlier agent wrote. When nobody makes another one
// it is what containers have, whether it is still good or not.
func (c *content) left(path string) (t token) {
	if text, err := os.ReadFile(filepath.Join(c.set.cfg.Volatile, c.volume, path)); err == nil {
		t.value = string(text)
	}
	return t
}

// token keeps a token until four fifths of its life are over, at most a day.
func (c *content) token(p *corev1.ServiceAccountTokenProjection) {
	key := c.volume + "/" + p.Path
	t, now := c.set.tokens[key], time.Now()
	if t.value == "" || !now.Before(t.renewAt) {
		seconds := int64(3600)
		if p.ExpirationSeconds != nil {
			seconds = *p.ExpirationSeconds
		}
		value, expires, err := c.set.cfg.Objects.Token(c.ctx, c.fields.Pod, p.Audience, seconds)
		if err != nil && t.value == "" {
			t = c.left(p.Path)
		}
		switch {
		case err == nil:
			t = token{value, now.Add(min(expires.Sub(now)*4/5, 24*time.Hour)), expires}
		case t.value == "" || !t.expires.IsZero() && !now.Before(t.expires):
			c.fail(fmt.Errorf("failed to fetch token: %w", err), nil)
			return
		default: // the old one is still good: try again soon
			t.renewAt = now.Add(10 * time.Second)
		}
		c.set.tokens[key] = t
	}
	if c.again.IsZero() || t.renewAt.Before(c.again) {
		c.again = t.renewAt
	}
	f := File{Data: []byte(t.value), Mode: c.mode}
	switch {
	case c.group != nil:
		f.Mode = 0o640
	case c.owner != nil:
		f.Mode, f.UID = 0o600, c.owner
	}
	c.files[p.Path] = f
}
