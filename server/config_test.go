package server

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestResolvConf(t *testing.T) {
	dir := t.TempDir()
	usual, resolved := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "resolved")
	for text, want := range map[string]string{
		"nameserver 127.0.0.53\noptions edns0\n":               resolved,
		"nameserver 127.0.0.53\nnameserver 192.0.2.1\n":        usual,
		"nameserver 192.0.2.1\n":                               usual,
		"# nameserver 127.0.0.53\nsearch example\n":            usual,
		"search lan\nnameserver 127.0.0.53 # systemd-resolved": resolved,
	} {
		if err := os.WriteFile(usual, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := resolvConf(usual, resolved); got != usual {
			t.Errorf("%q without resolved's file: %s", text, got)
		}
		if err := os.WriteFile(resolved, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := resolvConf(usual, resolved); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
		if err := os.Remove(resolved); err != nil {
			t.Fatal(err)
		}
	}
	if got := resolvConf(filepath.Join(dir, "none"), resolved); filepath.Base(got) != "none" {
		t.Errorf("without a file: %s", got)
	}
}

func TestClusterDNS(t *testing.T) {
	for in, want := range map[string]string{"10.96.0.0/16": "10.96.0.10", "fd00:96::/112": "fd00:96::a", "10.96.0.5/16": "10.96.0.10"} {
		if got := ClusterDNS(netip.MustParsePrefix(in)); got.String() != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
