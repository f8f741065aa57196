package cli

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/controller/nodecert"
	nodejoin "github.com/fingerpost/fingerpost/node/join"
	"github.com/fingerpost/fingerpost/store"
)

// realServer runs an API server that lets nodes join, and gives the
// administrator's kubeconfig.
func realServer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Dir: dir, UnsafeNoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lo := netip.MustParseAddr("127.0.0.1")
	pki, err := apiserver.LoadPKI(filepath.Join(dir, "pki"), []string{"localhost"}, []netip.Addr{lo}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(apiserver.Config{
		Listener: l, Store: st, PKI: pki, NodeName: "here", Log: slog.New(slog.DiscardHandler),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/20")}, NodePorts: [2]int{30000, 32767}, Advertise: lo,
	})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := nodecert.New(nodecert.Config{Client: s.Client, Signer: pki, JoinGroup: apiserver.GroupJoining})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	cctx, ccancel := context.WithCancel(ctx)
	cdone := make(chan error, 1)
	go func() { cdone <- certs.Run(cctx) }()
	t.Cleanup(func() {
		ccancel()
		<-cdone
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	k := clientcmdapi.NewConfig()
	k.Clusters["x"] = &clientcmdapi.Cluster{Server: "https://" + l.Addr().String(), CertificateAuthorityData: pki.CACert}
	k.AuthInfos["x"] = &clientcmdapi.AuthInfo{ClientCertificateData: pki.Admin.Cert, ClientKeyData: pki.Admin.Key}
	k.Contexts["x"] = &clientcmdapi.Context{Cluster: "x", AuthInfo: "x"}
	k.CurrentContext = "x"
	path := filepath.Join(dir, "admin.kubeconfig")
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// What 'token create' prints is what a node joins with.
func TestTokens(t *testing.T) {
	config := realServer(t)
	run := func(want int, args ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		if code := Main(t.Context(), append([]string{"--kubeconfig", config}, args...), strings.NewReader(""), &out, &errs); code != want {
			t.Fatalf("%v: exit %d, want %d\n%s%s", args, code, want, out.String(), errs.String())
		}
		return out.String(), errs.String()
	}
	if _, errs := run(ExitOK, "token", "list"); !strings.Contains(errs, "no tokens") {
		t.Error(errs)
	}
	line, hint := run(ExitOK, "token", "create", "--ttl", "1h", "--description", "for a test")
	m := regexp.MustCompile(`^fingerpost node --server (https://\S+) --token ([a-z0-9]{6}\.[a-z0-9]{16}) --ca-hash (sha256:[0-9a-f]{64})\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("printed %q", line)
	}
	if !strings.Contains(hint, "this machine only") {
		t.Errorf("no word about a server on a loopback address: %q", hint)
	}
	f := joinFlags{server: m[1], token: m[2], caHash: m[3]}
	dir := filepath.Join(t.TempDir(), "node")
	if !f.wanted(dir) || (&joinFlags{}).wanted(dir) {
		t.Error("whether to join")
	}
	id, err := f.identity(t.Context(), dir, "n1", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, slog.New(slog.DiscardHandler))
	if err != nil || id.NodeName() != "n1" || !nodejoin.Joined(dir) {
		t.Fatal(err)
	}

	list, _ := run(ExitOK, "token", "list")
	tokenID, secret, _ := strings.Cut(m[2], ".")
	if !strings.Contains(list, tokenID) || !strings.Contains(list, "for a test") || !strings.Contains(list, "in ") || strings.Contains(list, secret) {
		t.Error(list)
	}
	run(ExitOK, "token", "delete", tokenID)
	run(ExitNotFound, "token", "delete", tokenID)
	f.caHash = "sha256:" + strings.Repeat("0", 64)
	if _, err := f.identity(t.Context(), filepath.Join(t.TempDir(), "x"), "n2", nil, nil); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a wrong hash: %v", err)
	}
	if only, _ := run(ExitOK, "token", "create", "-q", "--ttl", "0"); !regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}\n$`).MatchString(only) {
		t.Errorf("%q", only)
	}
	if list, _ := run(ExitOK, "token", "list"); !strings.Contains(list, "never") {
		t.Error(list)
	}
	run(ExitUsage, "token", "create", "--ttl", "-1h")
	run(ExitUsage, "token", "delete")
}
