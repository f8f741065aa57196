package envvar

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// ErrNotFound is what Sources give for objects that are not there.
var ErrNotFound = errors.New("not found")

// Sources are where values come from.
type Sources struct {
	// ConfigMap and Secret give the data of an object of the pod's namespace;
	// an error that wraps ErrNotFound is forgiven where optional.
	ConfigMap func(name string) (map[string]string, error)
	Secret    func(name string) (map[string][]byte, error)
	// Fields gives values of fieldRef.
	Fields Fields
	// Services are variables (NAME=value) that everything else wins over.
	Services []string
}

// Env is an ordered environment.
type Env struct {
	names  []string
	values map[string]string
}

func (e *Env) set(name, value string) {
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, there := e.values[name]; !there {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// SetDefault sets a variable that is not set.
func (e *Env) SetDefault(name, value string) {
	if _, there := e.values[name]; !there {
		e.set(name, value)
	}
}

// Lookup gives a variable.
func (e *Env) Lookup(name string) (string, bool) {
	v, ok := e.values[name]
	return v, ok
}

// List gives NAME=value, in the order in which names were first set.
func (e *Env) List() []string {
	list := make([]string, len(e.names))
	for i, n := range e.names {
		list[i] = n + "=" + e.values[n]
	}
	return list
}

// Make makes the environment of a container. The image's own variables are the
// caller's: they are the lowest layer.
func Make(c *corev1.Container, s Sources) (*Env, error) {
	env := &Env{}
	for _, v := range s.Services {
		if name, value, ok := strings.Cut(v, "="); ok {
			env.set(name, value)
		}
	}
	for i := range c.EnvFrom {
		if err := env.from(&c.EnvFrom[i], s); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		v := &c.Env[i]
		value, set := "", true
		var err error
		switch {
		case v.Value != "":
			value = Expand(v.Value, env.Lookup)
		case v.ValueFrom != nil:
			value, set, err = resolve(v.ValueFrom, c, s)
		}
		if err != nil {
			return nil, err
		}
		if set {
			env.set(v.Name, value)
		}
	}
	return env, nil
}

func (e *Env) from(f *corev1.EnvFromSource, s Sources) error {
	switch {
	case f.ConfigMapRef != nil:
		data, err := s.ConfigMap(f.ConfigMapRef.Name)
		if err != nil {
			return forgive(err, f.ConfigMapRef.Optional)
		}
		for _, k := range sorted(data) {
			e.set(f.Prefix+k, data[k])
		}
	case f.SecretRef != nil:
		data, err := s.Secret(f.SecretRef.Name)
		if err != nil {
			return forgive(err, f.SecretRef.Optional)
		}
		for _, k := range sorted(data) {
			e.set(f.Prefix+k, string(data[k]))
		}
	}
	return nil
}

func resolve(from *corev1.EnvVarSource, c *corev1.Container, s Sources) (value string, set bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = s.Fields.Field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = s.Fields.Resource(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		data, err := s.ConfigMap(r.Name)
		if err != nil {
			return "", false, forgive(err, r.Optional)
		}
		if v, ok := data[r.Key]; ok {
			return v, true, nil
		}
		return "", false, missing(r.Optional, "couldn't find key %s in ConfigMap %s/%s", r.Key, s.Fields.Pod.Namespace, r.Name)
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		data, err := s.Secret(r.Name)
		if err != nil {
			return "", false, forgive(err, r.Optional)
		}
		if v, ok := data[r.Key]; ok {
			return string(v), true, nil
		}
		return "", false, missing(r.Optional, "couldn't find key %s in Secret %s/%s", r.Key, s.Fields.Pod.Namespace, r.Name)
	}
	return "", false, fmt.Errorf("a value comes from a source that this node does not know: use fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef")
}

func forgive(err error, optional *bool) error {
	if optional != nil && *optional && errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func missing(optional *bool, format string, args ...any) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf(format, args...)
}
