package apiserver

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	first, err := LoadPKI(dir, []string{"localhost"}, local, now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadPKI(dir, []string{"localhost"}, local, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Serving.Cert, again.Serving.Cert) || !bytes.Equal(first.CACert, again.CACert) || !first.SAKey.Equal(again.SAKey) {
		t.Error("a restart made new certificates")
	}
	more, err := LoadPKI(dir, []string{"localhost", "api.example.com"}, local, now)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first.Serving.Cert, more.Serving.Cert) || !bytes.Equal(first.CACert, more.CACert) {
		t.Error("a new name wants a new serving certificate of the same CA")
	}
	late, err := LoadPKI(dir, []string{"localhost"}, local, now.Add(certLife-renewBefore+time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(more.Admin.Cert, late.Admin.Cert) {
		t.Error("a certificate near its end is kept")
	}
	for _, f := range []string{"ca.key", "sa.key", "serving.key", "admin.key"} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v, want 600", f, st.Mode(), err)
		}
	}
	for name, spoil := range map[string]func() error{
		"garbage CA":  func() error { return os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o600) },
		"garbage key": func() error { return os.WriteFile(filepath.Join(dir, "ca.key"), []byte("x"), 0o600) },
		"foreign key": func() error {
			b, err := os.ReadFile(filepath.Join(dir, "sa.key"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "ca.key"), b, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ca, _ := os.ReadFile(filepath.Join(dir, "ca.crt"))
			key, _ := os.ReadFile(filepath.Join(dir, "ca.key"))
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadPKI(dir, nil, nil, now); err == nil {
				t.Error("accepted")
			}
			_ = os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o644)
			_ = os.WriteFile(filepath.Join(dir, "ca.key"), key, 0o600)
		})
	}
}
