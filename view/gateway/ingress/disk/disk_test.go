package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var taken = time.Date(2026, 6, 1, 12, 0, 0, 5, time.UTC)

func sample() *Contents {
	return &Contents{Source: "https://one:6443", Taken: taken, Records: []Record{
		{"Ingress", []byte("an ingress")}, {"Secret", []byte{0, 1, 2, 255}}, {"Service", []byte{}},
	}}
}

func open(t testing.TB, change func(*Config)) *File {
	t.Helper()
	c := Config{Path: filepath.Join(t.TempDir(), "nodes", "a", "routes"), Source: "https://one:6443", Now: func() time.Time { return taken.Add(time.Hour) }}
	if change != nil {
		change(&c)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t testing.TB, f *File, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.Path()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Path(), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestThereAndBack: what was saved is what is loaded, and only the owner may read
// it.
func TestThereAndBack(t *testing.T) {
	f := open(t, nil)
	if _, err := f.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no file: %v", err)
	}
	put(t, f, []byte("old"))
	if err := os.WriteFile(f.Path()+".new", []byte("left over"), 0o666); err != nil {
		t.Fatal(err)
	}
	want := sample()
	f.Save(func() ([]Record, time.Time) { return want.Records, want.Taken })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := f.Load()
	if err != nil || !got.Taken.Equal(want.Taken) || got.Source != want.Source || !reflect.DeepEqual(got.Records, want.Records) {
		t.Fatalf("%+v %v", got, err)
	}
	for path, mode := range map[string]fs.FileMode{f.Path(): 0o600, filepath.Dir(f.Path()): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
	if _, err := os.Stat(f.Path() + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was written first is still there: %v", err)
	}
}

func TestUseless(t *testing.T) {
	good := Encode(sample())
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	version := bytes.Clone(good)
	version[7]++
	for _, x := range []struct {
		name string
		file []byte
		cfg  func(*Config)
		says string
	}{
		{"good", good, nil, ""},
		{"empty", nil, nil, "no routes of this version"},
		{"foreign", []byte(strings.Repeat("hello, world\n", 10)), nil, "no routes of this version"},
		{"another version", version, nil, "no routes of this version"},
		{"cut", good[:len(good)-7], nil, "damaged"},
		{"flipped", flipped, nil, "damaged"},
		{"another source", good, func(c *Config) { c.Source = "https://two" }, `from "https://one:6443", not from "https://two"`},
		{"old", good, func(c *Config) { c.MaxAge = 30 * time.Minute }, "1h0m0s old"},
		{"of the future", good, func(c *Config) { c.Now = func() time.Time { return taken.Add(-time.Hour) } }, ""},
	} {
		f := open(t, x.cfg)
		put(t, f, x.file)
		_, err := f.Load()
		if (err == nil) != (x.says == "") || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", x.name, err, x.says)
		}
	}
	f := open(t, nil)
	if err := os.MkdirAll(f.Path(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); !errors.Is(err, ErrForeign) {
		t.Errorf("a directory: %v", err)
	}
}

// TestChurn: however often something is saved, it is written once a second, and
// the last state is.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes []Write
		f := open(t, func(c *Config) { c.Wrote = func(w Write) { writes = append(writes, w) } })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		for i := range 100 {
			f.Save(func() ([]Record, time.Time) { return []Record{{"n", fmt.Append(nil, i)}}, taken })
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(writes) < 9 || len(writes) > 12 {
			t.Errorf("%d writes in 10 s", len(writes))
		}
		if c, err := f.Load(); err != nil || string(c.Records[0].Data) != "99" {
			t.Errorf("%+v %v", c, err)
		}
		f.Save(func() ([]Record, time.Time) { return []Record{{"n", []byte("end")}}, taken })
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if c, err := f.Load(); err != nil || string(c.Records[0].Data) != "end" {
			t.Errorf("at the end: %+v %v", c, err)
		}
	})
}

// TestFullDisk: a write that fails is tried again.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 0
		f := open(t, func(c *Config) {
			c.Wrote = func(w Write) {
				if w.Err != nil {
					failures++
				}
			}
		})
		dir := filepath.Dir(filepath.Dir(f.Path()))
		if err := os.WriteFile(dir, nil, 0o600); err != nil { // in the place of the directory
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		f.Save(func() ([]Record, time.Time) { return sample().Records, taken })
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if failures != 4 {
			t.Errorf("%d failures", failures)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if _, err := f.Load(); err != nil || failures != 4 {
			t.Errorf("%d failures, %v", failures, err)
		}
		cancel()
		<-done
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(sample())[len(magic) : len(Encode(sample()))-sumLen])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeBody(b)
		if err != nil {
			return
		}
		// What is understood comes back, if not byte for byte.
		again, err := Decode(Encode(c))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%v\n%+v\n%+v", err, c, again)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := sample()
	for range 10_000 {
		c.Records = append(c.Records, Record{"Ingress", bytes.Repeat([]byte("x"), 400)})
	}
	b.SetBytes(int64(len(Encode(c))))
	for b.Loop() {
		Encode(c)
	}
}
