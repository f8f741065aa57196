package object

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// keptPatience is how long the API may take to say what an object is before
// what was kept of it is taken.
const keptPatience = 2 * time.Second

func (s *Store) path(r Ref) string {
	return filepath.Join(s.dir, string(r.Kind), r.Namespace, r.Name)
}

// saw notes what the API said.
func (s *Store) saw(e *entry, obj runtime.Object) {
	s.set(e, obj)
	if s.dir == "" {
		return
	}
	if err := s.keep(e.ref, obj); err != nil {
		s.log.Warn("an object cannot be kept: without the API the next agent does not know it", "object", e.ref.String(), "namespace", e.ref.Namespace, "error", err)
	}
}

func (s *Store) keep(r Ref, obj runtime.Object) error {
	path := s.path(r)
	if obj == nil {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new~", text, 0o600); err != nil { // no object has such a name
		return err
	}
	return os.Rename(path+".new~", path)
}

// fallBack takes what was kept, if the API has said nothing yet.
func (s *Store) fallBack(e *entry) {
	if s.dir == "" {
		return
	}
	var obj runtime.Object = &corev1.ConfigMap{}
	if e.ref.Kind == Secret {
		obj = &corev1.Secret{}
	}
	text, err := os.ReadFile(s.path(e.ref))
	if err == nil {
		err = json.Unmarshal(text, obj)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("what was kept of an object is of no use", "object", e.ref.String(), "namespace", e.ref.Namespace, "error", err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !e.seen {
		e.obj, e.seen = obj, true
		close(e.ready)
	}
}

func (s *Store) forget(r Ref, path string) error {
	s.mu.Lock() // who begins to hold it writes it after this
	defer s.mu.Unlock()
	if s.entries[r] != nil {
		return nil
	}
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep removes what was kept of objects that nobody holds any more.
func (s *Store) Sweep() error {
	if s.dir == "" {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "*", "*"))
	errs := []error{err}
	for _, f := range files {
		rel, err := filepath.Rel(s.dir, f)
		if err != nil {
			continue
		}
		part := strings.Split(rel, string(filepath.Separator))
		errs = append(errs, s.forget(Ref{Kind(part[0]), part[1], part[2]}, f))
	}
	return errors.Join(errs...)
}
