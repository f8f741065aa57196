package disk

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// fill sets every field that there is to something, so that a field that is
// added to the catalog and forgotten here fails a test.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Interface().(type) {
	case netip.Addr:
		a := netip.AddrFrom4([4]byte{10, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())})
		if r.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0xFD, 15: byte(r.Uint32())})
		}
		v.Set(reflect.ValueOf(a))
		return
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.Uint32())}), r.IntN(33))))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33)-1<<32, r.Int64N(1e9)).Local()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("word-%d", r.IntN(1000)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Uint16:
		v.SetUint(uint64(1 + r.IntN(65535)))
	case reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<40))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 3))
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for i := range 1 + r.IntN(3) {
			v.SetMapIndex(reflect.ValueOf(fmt.Sprint("key", i)), reflect.ValueOf(fmt.Sprint("value", r.IntN(9))))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	default:
		panic("no way to fill a " + v.Type().String())
	}
}

func full(seed uint64) (*catalog.Service, []catalog.Endpoint) {
	r := rand.New(rand.NewPCG(seed, 1))
	var s catalog.Service
	fill(reflect.ValueOf(&s).Elem(), r)
	s.Namespace, s.Name = fmt.Sprint("ns", seed%3), fmt.Sprint("svc", seed)
	eps := make([]catalog.Endpoint, r.IntN(4))
	for i := range eps {
		fill(reflect.ValueOf(&eps[i]).Elem(), r)
		if i > 0 && r.IntN(2) == 0 {
			eps[i].Ports = eps[0].Ports
		}
	}
	return &s, eps
}

func TestEveryFieldSurvives(t *testing.T) {
	c := catalog.New(nil)
	c.Update(func(tx *catalog.Txn) {
		for i := range uint64(50) {
			s, eps := full(i)
			tx.PutService(s)
			tx.PutEndpoints(s.Key, eps)
		}
		tx.PutService(&catalog.Service{Key: catalog.Key{Namespace: "a", Name: "bare"}})
		tx.PutNamespace("empty")
		tx.PutNamespace("ns1")
	})
	taken := time.Unix(1e9, 1)
	var b bytes.Buffer
	if err := encode(&b, header{"here", taken}, c.Snapshot()); err != nil {
		t.Fatal(err)
	}
	got, err := decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got.source != "here" || !got.taken.Equal(taken) || strings.Join(got.namespaces, " ") != "empty ns1" || len(got.entries) != 51 {
		t.Fatalf("%+v, %d entries", got.header, len(got.entries))
	}
	for _, e := range got.entries {
		want := c.Snapshot().Get(e.Service.Key)
		if want == nil || !e.Service.Equal(want.Service) || len(e.Endpoints) != len(want.Endpoints) {
			t.Fatalf("%+v\n-- not\n%+v", e, want)
		}
		for i := range e.Endpoints {
			if !e.Endpoints[i].Equal(&want.Endpoints[i]) {
				t.Fatalf("%+v\n-- not\n%+v", e.Endpoints[i], want.Endpoints[i])
			}
		}
		// Equal may know less than there is.
		if got, want := fmt.Sprintf("%+v", *e.Service), fmt.Sprintf("%+v", *want.Service); got != want {
			t.Fatalf("%s\n-- not\n%s", got, want)
		}
		if got, want := fmt.Sprintf("%+v", e.Endpoints), fmt.Sprintf("%+v", want.Endpoints); got != want && len(e.Endpoints) > 0 {
			t.Fatalf("%s\n-- not\n%s", got, want)
		}
	}
}

// TestWordsBeyondTheTable: more different words than the table holds.
func TestWordsBeyondTheTable(t *testing.T) {
	c := catalog.New(nil)
	c.Update(func(tx *catalog.Txn) {
		for i := range maxWords + 100 {
			tx.PutService(&catalog.Service{Key: catalog.Key{Namespace: fmt.Sprint("n", i), Name: "a"}, Labels: map[string]string{"k": "v"}})
		}
	})
	var b bytes.Buffer
	if err := encode(&b, header{}, c.Snapshot()); err != nil {
		t.Fatal(err)
	}
	got, err := decode(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range got.entries {
		if !e.Service.Equal(c.Snapshot().Get(e.Service.Key).Service) {
			t.Fatalf("%+v", e.Service)
		}
	}
}

func file(t *testing.T, cfg Config) *File {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(c *catalog.Catalog, name string, synced bool) {
	c.Update(func(tx *catalog.Txn) {
		k := catalog.Key{Namespace: "default", Name: name}
		tx.PutNamespace("default")
		tx.PutService(&catalog.Service{Key: k, Type: catalog.ClusterIP})
		tx.PutEndpoints(k, []catalog.Endpoint{{Addr: netip.MustParseAddr("10.0.0.1"), Ready: true}})
		if synced {
			tx.SetFreshness(catalog.Freshness{Synced: true})
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "deep", "catalog")
		var writes []Write
		cfg := Config{Path: path, Source: "s", Wrote: func(w Write) { writes = append(writes, w) }}
		f, c := file(t, cfg), catalog.New(nil)
		if f.Load(c) {
			t.Fatal("there is no file")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Run(ctx, c) }()

		put(c, "early", false)
		time.Sleep(11 * time.Second)
		if synctest.Wait(); len(writes) != 0 {
			t.Fatal("written before it was whole")
		}
		put(c, "web", true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		time.Sleep(time.Minute) // nothing new
		synctest.Wait()
		if len(writes) != 1 || writes[0].Err != nil || writes[0].Bytes == 0 {
			t.Fatalf("%+v", writes)
		}
		put(c, "last", true)
		at := time.Now()
		cancel()
		if err := <-done; err != nil || len(writes) != 2 {
			t.Fatal(err, writes)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}

		time.Sleep(time.Hour)
		d := catalog.New(nil)
		g := file(t, cfg)
		if !g.Load(d) {
			t.Fatal("not loaded")
		}
		s := d.Snapshot()
		if fresh := s.Freshness(); fresh.Synced || !fresh.StaleSince.Equal(at) {
			t.Errorf("%+v, want stale since %v", fresh, at)
		}
		for _, n := range []string{"early", "web", "last"} {
			if e := s.Get(catalog.Key{Namespace: "default", Name: n}); e == nil || len(e.Endpoints) != 1 {
				t.Errorf("%s: %+v", n, e)
			}
		}
		if !s.HasNamespace("default") {
			t.Error("no namespace")
		}
		// A process that never reaches its server leaves the file as it is.
		before, _ := os.ReadFile(path)
		g.save(d)
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Error("the file was written")
		}
	})
}

// TestUseless: files that must not be believed, and that must not be fatal.
func TestUseless(t *testing.T) {
	c := catalog.New(nil)
	put(c, "web", true)
	var good bytes.Buffer
	now := time.Unix(1e9, 0)
	if err := encode(&good, header{"s", now}, c.Snapshot()); err != nil {
		t.Fatal(err)
	}
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good.Bytes())
		b[(at+len(b))%len(b)] = to
		return b
	}
	for _, tc := range []struct {
		name   string
		b      []byte
		now    time.Time
		source string
		want   string
	}{
		{"good", good.Bytes(), now.Add(time.Hour), "s", ""},
		{"of the future", good.Bytes(), now.Add(-time.Hour), "s", ""},
		{"empty", nil, now, "s", "not a catalog"},
		{"of something else", []byte("#!/bin/sh\necho hello\n"), now, "s", "not a catalog"},
		{"of another version", change(7, 99), now, "s", "not a catalog"},
		{"a bit flipped", change(30, 0xFF), now, "s", "damaged"},
		{"half", good.Bytes()[:good.Len()/2], now, "s", "damaged"},
		{"of another server", good.Bytes(), now, "t", `taken from \"s\", not from \"t\"`},
		{"old", good.Bytes(), now.Add(8 * 24 * time.Hour), "s", "192h0m0s old"},
	} {
		path := filepath.Join(t.TempDir(), "catalog")
		if err := os.WriteFile(path, tc.b, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		f := file(t, Config{Path: path, Source: tc.source, Now: func() time.Time { return tc.now }, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		d := catalog.New(nil)
		if got := f.Load(d); got != (tc.want == "") || !strings.Contains(log.String(), tc.want) || got == (log.Len() > 0) {
			t.Errorf("%s: loaded %v, log %q", tc.name, got, log.String())
		}
		if n, _ := d.Snapshot().Len(); (n == 1) != (tc.want == "") {
			t.Errorf("%s: %d services", tc.name, n)
		}
	}
	f := file(t, Config{Path: t.TempDir()})
	if f.Load(catalog.New(nil)) {
		t.Error("a directory was loaded")
	}
}

// TestFullDisk: a directory that cannot be written is told of, and that is all.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var told Write
	f := file(t, Config{Path: filepath.Join(dir, "file", "catalog"), Wrote: func(w Write) { told = w }})
	c := catalog.New(nil)
	put(c, "web", true)
	if f.save(c); told.Err == nil || f.last != 0 {
		t.Errorf("%+v", told)
	}
}

// TestSizeSlowsDown: a large catalog that changes all the time is written
// less often than a small one.
func TestSizeSlowsDown(t *testing.T) {
	c := large(2000, 10)
	f := file(t, Config{Path: filepath.Join(t.TempDir(), "catalog")})
	var bytes int64
	f.cfg.Wrote = func(w Write) { bytes = w.Bytes }
	if f.save(c); f.cost != time.Duration(bytes)*time.Second/perSec || bytes < 100_000 {
		t.Errorf("%d bytes, %v", bytes, f.cost)
	}
}

// large is a cluster: every endpoint is a pod on one of 100 nodes.
func large(services, endpoints int) *catalog.Catalog {
	c := catalog.New(nil)
	created := time.Unix(1e9, 0)
	c.Update(func(tx *catalog.Txn) {
		for i := range services {
			k := catalog.Key{Namespace: fmt.Sprintf("team-%d", i%100), Name: fmt.Sprintf("service-%d", i)}
			tx.PutNamespace(k.Namespace)
			tx.PutService(&catalog.Service{
				Key: k, Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
				Ports:  []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80, Target: "8080"}},
				Labels: map[string]string{"app": k.Name, "team": k.Namespace}, Created: created.Add(time.Duration(i) * time.Second),
			})
			eps := make([]catalog.Endpoint, endpoints)
			ports := []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}
			for j := range eps {
				eps[j] = catalog.Endpoint{
					Addr: netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)}), Ports: ports, Node: fmt.Sprint("node-", j*i%100), Zone: fmt.Sprint("zone-", j%3),
					Ready: true, Serving: true, Weight: 100, Target: catalog.Ref{Kind: "Pod", Name: fmt.Sprintf("service-%d-5d4f8c7b9-x%dk%d", i, j, i)}, Origin: "kube",
					Health: catalog.Health{State: catalog.Passing, By: "kubelet", Since: created.Add(time.Duration(j*i) * time.Millisecond)},
				}
			}
			tx.PutEndpoints(k, eps)
		}
		tx.SetFreshness(catalog.Freshness{Synced: true})
	})
	return c
}

// FuzzDecode: bytes of anybody, without the protection of the checksum. What
// can be read can be written and read again.
func FuzzDecode(f *testing.F) {
	c := catalog.New(nil)
	c.Update(func(tx *catalog.Txn) {
		for i := range uint64(3) {
			s, eps := full(i)
			tx.PutService(s)
			tx.PutEndpoints(s.Key, eps)
		}
		tx.PutNamespace("x")
	})
	for _, c := range []*catalog.Catalog{c, catalog.New(nil), large(3, 3)} {
		var b bytes.Buffer
		if err := encode(&b, header{"s", time.Unix(1, 0)}, c.Snapshot()); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes()[len(magic) : b.Len()-sumLen])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decode(b)
		got, err := decodeBody(b)
		if err != nil {
			return
		}
		c := catalog.New(nil)
		c.Update(func(tx *catalog.Txn) {
			for i := range got.entries {
				tx.PutService(got.entries[i].Service)
				tx.PutEndpoints(got.entries[i].Service.Key, got.entries[i].Endpoints)
			}
		})
		var again bytes.Buffer
		if err := encode(&again, got.header, c.Snapshot()); err != nil {
			t.Fatal(err)
		}
		if back, err := decode(again.Bytes()); err != nil || len(back.entries) > len(got.entries) {
			t.Fatal(err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	c := large(10_000, 10)
	f, err := New(Config{Path: filepath.Join(b.TempDir(), "catalog")})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n, err := f.write(c.Snapshot(), time.Unix(1e9, 0))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(n)/1e6, "MB")
	}
}

func BenchmarkLoad(b *testing.B) {
	f, err := New(Config{Path: filepath.Join(b.TempDir(), "catalog"), MaxAge: 1 << 62})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.write(large(10_000, 10).Snapshot(), time.Unix(1e9, 0)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !f.Load(catalog.New(nil)) {
			b.Fatal("not loaded")
		}
	}
}
