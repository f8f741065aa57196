package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/controller/nodecert"
	"github.com/fingerpost/fingerpost/store"
)

var loopback = netip.MustParseAddr("127.0.0.1")

type world struct {
	*apiserver.Server
	url  string
	hash string
}

// serve runs a server that signs certificates of nodes.
func serve(t *testing.T) *world {
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
	pki, err := apiserver.LoadPKI(filepath.Join(dir, "pki"), []string{"localhost"}, []netip.Addr{loopback}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s, err := apiserver.New(apiserver.Config{
		Listener: l, Store: st, PKI: pki, NodeName: "here", Log: slog.New(slog.DiscardHandler),
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/20")}, NodePorts: [2]int{30000, 32767}, Advertise: loopback,
	})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := nodecert.New(nodecert.Config{Client: s.Client, Signer: pki, JoinGroup: apiserver.GroupJoining})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
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
		if err := <-cdone; err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &world{Server: s, url: "https://" + l.Addr().String(), hash: pki.CAHash()}
}

// token makes a joining token.
func (w *world) token(t *testing.T, id string, change func(map[string]string)) string {
	t.Helper()
	data := map[string]string{
		"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true", "auth-extra-groups": Group,
		"expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	if change != nil {
		change(data)
	}
	_, err := w.Client.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-" + id}, Type: corev1.SecretTypeBootstrapToken, StringData: data,
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return id + ".0123456789abcdef"
}

func (w *world) config(t *testing.T, name, token string) Config {
	return Config{Server: w.url, Token: token, CAHash: w.hash, NodeName: name, Addresses: []netip.Addr{loopback}, Dir: filepath.Join(t.TempDir(), "node"), Patience: 20 * time.Second}
}

func TestJoin(t *testing.T) {
	w := serve(t)
	c := w.config(t, "n1", w.token(t, "abcdef", nil))
	id, err := Bootstrap(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(id.Rest)
	if err != nil {
		t.Fatal(err)
	}
	who, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, metav1.CreateOptions{})
	if err != nil || who.Name != "n1" {
		t.Fatalf("a node cannot register itself: %v", err)
	}
	if _, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("a node cannot read services: %v", err)
	}
	if st, err := os.Stat(filepath.Join(c.Dir, clientFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the credentials: %v, %v", st, err)
	}

	// The serving certificate is of the nodes' CA, which the API server trusts
	// for nodes, and not of the one that clients trust for servers.
	pair, err := id.GetCertificate(nil)
	if err != nil || pair == nil {
		t.Fatal("no serving certificate", err)
	}
	nodeCA, ca := x509.NewCertPool(), id.ClientCAs()
	nodeCA.AppendCertsFromPEM(w.PKI.NodeCACert)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: nodeCA, DNSName: "127.0.0.1"}); err != nil {
		t.Error(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: ca}); err == nil {
		t.Error("a node could stand in for a server")
	}

	// A restart needs neither token nor server URL.
	again, err := Bootstrap(t.Context(), Config{NodeName: "n1", Dir: c.Dir, Addresses: c.Addresses})
	if err != nil {
		t.Fatal(err)
	}
	same, _ := again.GetCertificate(nil)
	if again.Rest.Host != w.url || !bytes.Equal(same.Certificate[0], pair.Certificate[0]) || !Joined(c.Dir) {
		t.Error("a restart made new credentials")
	}
	// Other addresses need another certificate.
	moved, err := Bootstrap(t.Context(), Config{NodeName: "n1", Dir: c.Dir, Addresses: []netip.Addr{loopback, netip.MustParseAddr("192.0.2.7")}})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := moved.GetCertificate(nil); got.Leaf.VerifyHostname("192.0.2.7") != nil {
		t.Error("the certificate is not for the new address")
	}
}

func TestRenewal(t *testing.T) {
	w := serve(t)
	c := w.config(t, "n1", w.token(t, "abcdef", nil))
	id, err := Bootstrap(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := id.GetCertificate(nil)
	old, err := os.ReadFile(filepath.Join(c.Dir, clientFile))
	if err != nil {
		t.Fatal(err)
	}
	// Two thirds of a year later, as far as the node knows.
	id.c.Now = func() time.Time { return time.Now().Add(250 * 24 * time.Hour) }
	if at := id.dueAt(t.Context(), clientFile, "kubernetes.io/kube-apiserver-client-kubelet"); !at.Equal(renewalOf(mustRead(t, c.Dir).Leaf)) {
		t.Errorf("next look at %s", at)
	}
	if now, err := os.ReadFile(filepath.Join(c.Dir, clientFile)); err != nil || bytes.Equal(old, now) {
		t.Error("the client certificate was not renewed", err)
	}
	id.dueAt(t.Context(), servingFile, "kubernetes.io/kubelet-serving")
	if now, _ := id.GetCertificate(nil); bytes.Equal(now.Certificate[0], first.Certificate[0]) {
		t.Error("the serving certificate was not renewed")
	}
}

func mustRead(t *testing.T, dir string) *tls.Certificate {
	t.Helper()
	p, err := readPair(filepath.Join(dir, clientFile))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBadJoins(t *testing.T) {
	w := serve(t)
	good := w.token(t, "good00", nil)
	ended := w.token(t, "ended0", func(d map[string]string) { d["expiration"] = time.Now().Add(-time.Minute).UTC().Format(time.RFC3339) })
	other := w.token(t, "other0", func(d map[string]string) { d["auth-extra-groups"] = "system:bootstrappers:elsewhere" })
	now := metav1.NewMicroTime(time.Now())
	holder, life := "taken", int32(40)
	if _, err := w.Client.CoordinationV1().Leases("kube-node-lease").Create(t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "taken"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &life, RenewTime: &now},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no token":       {func(c *Config) { c.Token = "" }, "needs a token"},
		"malformed":      {func(c *Config) { c.Token = "Hello" }, "ID.SECRET"},
		"wrong secret":   {func(c *Config) { c.Token = "good00.aaaaaaaaaaaaaaaa" }, "does not accept the token"},
		"ended":          {func(c *Config) { c.Token = ended }, "does not accept the token"},
		"other purpose":  {func(c *Config) { c.Token = other }, "not for a node"},
		"wrong hash":     {func(c *Config) { c.CAHash = "sha256:00" }, "somebody is in between"},
		"no hash":        {func(c *Config) { c.CAHash = "" }, "--ca-hash"},
		"name in use":    {func(c *Config) { c.NodeName = "taken" }, "live node"},
		"bad name":       {func(c *Config) { c.NodeName = "No_Name" }, "name of a node"},
		"nobody there":   {func(c *Config) { c.Server = "https://127.0.0.1:1" }, "does not answer"},
		"no URL":         {func(c *Config) { c.Server = "10.0.0.1" }, "want a URL"},
		"clock behind":   {func(c *Config) { c.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) } }, "clock"},
		"clock ahead":    {func(c *Config) { c.Now = func() time.Time { return time.Now().Add(3 * 365 * 24 * time.Hour) } }, "clock"},
		"other name":     {func(c *Config) { c.Server = strings.Replace(c.Server, "127.0.0.1", "127.0.0.2", 1) }, "does not answer"},
		"unreadable dir": {func(c *Config) { c.Dir = "/dev/null/x" }, "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.config(t, "n9", good)
			tc.change(&c)
			_, err := Bootstrap(t.Context(), c)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "0123456789abcdef") {
				t.Errorf("the token is in the error: %v", err)
			}
			if c.Dir != "/dev/null/x" && Joined(c.Dir) {
				t.Error("it left credentials")
			}
		})
	}
	// A token opens nothing else.
	client := kubernetes.NewForConfigOrDie(&rest.Config{Host: w.url, BearerToken: good, TLSClientConfig: rest.TLSClientConfig{CAData: w.PKI.CACert}})
	if _, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a joining token reads secrets: %v", err)
	}
}

// A node asks for what is not its own.
func TestForeignCertificates(t *testing.T) {
	w := serve(t)
	for i, n := range []string{"n1", "n2"} {
		if _, err := w.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.0.2.%d", i+1)}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	id, err := Bootstrap(t.Context(), w.config(t, "n1", w.token(t, "abcdef", nil)))
	if err != nil {
		t.Fatal(err)
	}
	client, err := id.client()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.request(t.Context(), client, "kubernetes.io/kubelet-serving", []netip.Addr{netip.MustParseAddr("192.0.2.2")}); err == nil || !strings.Contains(err.Error(), `that of node "n2"`) {
		t.Errorf("the address of another node: %v", err)
	}
	id.c.NodeName = "n2"
	for _, signer := range []string{"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"} {
		if _, err := id.request(t.Context(), client, signer, nil); err == nil || !strings.Contains(err.Error(), "system:node:") {
			t.Errorf("%s: the name of another node: %v", signer, err)
		}
	}
}
