package http

import (
	"bytes"
	"strings"
	"testing"
)

// TestIdentify: each well-known name is found in any case, and no name that
// differs in one byte.
func TestIdentify(t *testing.T) {
	known := map[string]ID{}
	for id := Host; int(id) < ids; id++ {
		if id.Text() == "" {
			t.Fatalf("%d has no text", id)
		}
		known[strings.ToLower(id.Text())] = id
	}
	if len(known) != ids-1 {
		t.Fatalf("%d different names of %d", len(known), ids-1)
	}
	for id := Host; int(id) < ids; id++ {
		for _, name := range []string{id.Text(), strings.ToLower(id.Text()), strings.ToUpper(id.Text())} {
			if got := Identify([]byte(name)); got != id {
				t.Errorf("%s: %d, want %d", name, got, id)
			}
		}
		name := []byte(id.Text())
		for i := range name {
			was := name[i]
			for c := range 256 {
				name[i] = byte(c)
				// A map keeps bytes from 0x80 and controls as they are.
				if got, want := Identify(name), known[string(lower(name))]; got != want {
					t.Errorf("%q: %d, want %d", name, got, want)
				}
			}
			name[i] = was
		}
		if got := Identify(name[1:]); got != known[string(lower(name[1:]))] {
			t.Errorf("%q: %d", name[1:], got)
		}
		if !bytes.Equal(id.Bytes(), name) {
			t.Errorf("%q: bytes %q", name, id.Bytes())
		}
	}
	for _, name := range []string{"", "a", "x-forwarded-for-and-more-that-nobody-knows"} {
		if got := Identify([]byte(name)); got != Other {
			t.Errorf("%q: %d", name, got)
		}
	}
}

func lower(b []byte) []byte {
	out := bytes.Clone(b)
	for i, c := range out {
		if 'A' <= c && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return out
}

func TestFields(t *testing.T) {
	var f Fields
	f.AddNamed([]byte("x-own"), []byte("1"))
	f.AddNamed([]byte("cookie"), []byte("a"))
	f.Add(Cookie, []byte("b"))
	f.AddNamed([]byte("X-Own"), []byte("2"))
	if got := string(f.Lookup([]byte("COOKIE"))); got != "a" || f[1].ID != Cookie {
		t.Errorf("first cookie: %q", got)
	}
	if got := string(f.Lookup([]byte("X-OWN"))); got != "1" {
		t.Errorf("first own field: %q", got)
	}
	f.Set(Cookie, []byte("c"))
	f.DelNamed([]byte("x-OWN"))
	if len(f) != 1 || f[0].ID != Cookie || string(f[0].Name) != "Cookie" || string(f[0].Value) != "c" {
		t.Errorf("left: %+v", f)
	}
	f.DelNamed([]byte("cookie"))
	if len(f) != 0 || f.Get(Cookie) != nil || f.Lookup([]byte("x")) != nil {
		t.Errorf("left: %+v", f)
	}
}

func TestEqualFold(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			x, y := []byte{byte(a)}, []byte{byte(b)}
			if got, want := EqualFold(x, y), bytes.Equal(lower(x), lower(y)); got != want {
				t.Errorf("%q and %q: %v", x, y, got)
			}
		}
	}
	if EqualFold([]byte("a"), []byte("aa")) {
		t.Error("of different length")
	}
}

func BenchmarkIdentify(b *testing.B) {
	names := [][]byte{[]byte("Host"), []byte("Connection"), []byte("User-Agent"), []byte("Accept-Encoding"), []byte("Accept-Language"), []byte("Content-Length"), []byte("X-Forwarded-For"), []byte("Upgrade-Insecure-Requests")}
	for b.Loop() {
		for _, n := range names {
			Identify(n)
		}
	}
}
