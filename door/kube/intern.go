package kube

import "sync"

// interner makes equal strings share their bytes. Names of nodes and zones
// repeat in every slice, and each decoded object brings its own copy.
type interner struct {
	mu sync.Mutex
	m  map[string]string
}

// internLimit bounds the table. Past it the table starts anew: strings given
// out stay valid, later ones share with each other.
const internLimit = 1 << 16

func newInterner() *interner { return &interner{m: map[string]string{}} }

func (in *interner) get(s string) string {
	if s == "" {
		return ""
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if t, ok := in.m[s]; ok {
		return t
	}
	if len(in.m) >= internLimit {
		in.m = map[string]string{}
	}
	in.m[s] = s
	return s
}

func (in *interner) ptr(s *string) string {
	if s == nil {
		return ""
	}
	return in.get(*s)
}
