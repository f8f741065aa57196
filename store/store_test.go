package store

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *Store, k, v string) {
	t.Helper()
	c, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(context.Background(), k, v); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, k string) (string, int64) {
	t.Helper()
	c, err := s.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Get(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) == 0 {
		return "", r.Header.Revision
	}
	return string(r.Kvs[0].Value), r.Header.Revision
}

func TestEmbeddedKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, "a", "1")
	s.Close()
	s = open(t, dir)
	defer s.Close()
	if v, _ := get(t, s, "a"); v != "1" {
		t.Fatalf("after a restart a = %q, want 1", v)
	}
	st, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o700 {
		t.Errorf("data directory has mode %o, want 700: others could reach the sockets", st.Mode().Perm())
	}
}

func TestLongDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	s := open(t, dir)
	put(t, s, "a", "1")
	if v, _ := get(t, Embedded(dir), "a"); v != "1" {
		t.Errorf("a tool beside the server reads %q, want 1", v)
	}
	s.Close()
	_ = os.Remove(socketDir(dir))
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	_, err := Open(t.Context(), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another fingerpost") {
		t.Fatalf("a second open gave %v", err)
	}
}

func TestOtherLayoutIsRefusedUntouched(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"newer layout":  {"layout": "fingerpost-data 9\n"},
		"a plain etcd":  {"etcd/member/x": "x"},
		"garbage":       {"layout": "\x00\x01"},
		"empty marking": {"layout": ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for f, content := range files {
				p := filepath.Join(dir, f)
				if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "--data-dir") {
				t.Fatalf("got %v, want an error that says what to do", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "etcd", "member", "wal")); err == nil {
				t.Error("etcd was started on it")
			}
		})
	}
}

func TestSnapshotRestore(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "snap.db")
	s := open(t, dir)
	put(t, s, "a", "1")
	_, before := get(t, s, "a")
	if err := Embedded(dir).SaveSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a", "2")
	if _, err := RestoreSnapshot(file, dir, time.Now()); err == nil {
		t.Fatal("restored under a running server")
	}
	s.Close()
	kept, err := RestoreSnapshot(file, dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("the old state is not kept: %v", err)
	}
	s = open(t, dir)
	defer s.Close()
	v, after := get(t, s, "a")
	if v != "1" {
		t.Errorf("a = %q after restore, want 1", v)
	}
	if after <= before+revisionBump/2 {
		t.Errorf("revision %d after restore, %d before: old watchers would not notice", after, before)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("snapshot has mode %v, %v: it holds Secrets", st.Mode(), err)
	}
}

func TestRestoreOfGarbageTouchesNothing(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "snap.db")
	s := open(t, dir)
	put(t, s, "a", "1")
	s.Close()
	if err := os.WriteFile(file, []byte("not a snapshot, but long enough to hold a hash at its end ............"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreSnapshot(file, dir, time.Now()); err == nil {
		t.Fatal("garbage was restored")
	}
	s = open(t, dir)
	defer s.Close()
	if v, _ := get(t, s, "a"); v != "1" {
		t.Errorf("a = %q, want 1", v)
	}
}

func TestDamagedDatabase(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).Close()
	db := filepath.Join(dir, "etcd", "member", "snap", "db")
	if err := os.WriteFile(db, []byte(strings.Repeat("garbage ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "snapshot restore") {
		t.Fatalf("got %v, want an error that says how to go on", err)
	}
}

func TestExternalThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, Config{Endpoints: []string{"http://127.0.0.1:1"}})
	if err == nil || !strings.Contains(err.Error(), "--etcd-endpoints") {
		t.Fatalf("got %v, want an error that says what to check", err)
	}
}

func TestGuard(t *testing.T) {
	free := uint64(1 << 40)
	g := &Guard{dir: "/d", free: func(string) (uint64, uint64, error) { return free, 1 << 40, nil }}
	if err := g.Check(); err != nil || g.Full() != nil {
		t.Fatalf("an empty disk is full: %v", err)
	}
	free = 10 << 20
	if err := g.Check(); err == nil || g.Full() == nil || !strings.Contains(g.Full().Error(), "10 MiB free") {
		t.Fatalf("a full disk is not: %v", g.Full())
	}
	free = 1 << 40
	if err := g.Check(); err != nil || g.Full() != nil {
		t.Fatalf("it stays full: %v", g.Full())
	}
	var none *Guard
	if none.Full() != nil {
		t.Error("no guard, but full")
	}
}
