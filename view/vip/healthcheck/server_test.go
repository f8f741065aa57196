package healthcheck

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

type rig struct {
	t   *testing.T
	s   *Server
	c   *catalog.Catalog
	sub *catalog.Subscription
}

var loopback = netip.MustParseAddr("127.0.0.1")

func newRig(t *testing.T, failed func(catalog.Key, error)) *rig {
	r := &rig{t: t, s: New(Config{Node: "a", Addresses: []netip.Addr{loopback}, Failed: failed}), c: catalog.New(nil)}
	r.sub = r.c.Subscribe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.s.Run(ctx) }()
	t.Cleanup(func() {
		r.sub.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) apply(f func(*catalog.Txn)) {
	r.t.Helper()
	r.c.Update(f)
	if err := r.s.Apply(r.t.Context(), r.sub.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

func TestMain(m *testing.M) {
	viptest.Alone()
	os.Exit(m.Run())
}

var ports viptest.Ports

// free gives a port that nobody has.
func free(t *testing.T) uint16 {
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, ports.Next()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func service(name string, port uint16) *catalog.Service {
	return &catalog.Service{
		Key: catalog.Key{Namespace: "shop", Name: name}, Type: catalog.LoadBalancer, ExternalLocal: true, HealthCheckNodePort: port,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.1")},
	}
}

func ep(n byte, node string, ready bool) catalog.Endpoint {
	return catalog.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, n}), Node: node, Ready: ready, Serving: true, Terminating: !ready, Weight: 100}
}

func get(port uint16) (status int, weight, body string) {
	resp, err := http.Get("http://" + netip.AddrPortFrom(loopback, port).String())
	if err != nil {
		return 0, "", err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), strings.TrimSpace(string(b))
}

func TestAnswers(t *testing.T) {
	r, port := newRig(t, nil), free(t)
	s := service("web", port)
	r.apply(func(tx *catalog.Txn) { tx.PutService(s) })
	for _, tc := range []struct {
		name   string
		eps    []catalog.Endpoint
		status int
		n      int
	}{
		{"none", nil, 503, 0},
		{"elsewhere", []catalog.Endpoint{ep(1, "b", true)}, 503, 0},
		{"two here", []catalog.Endpoint{ep(1, "a", true), ep(2, "a", true), ep(3, "b", true)}, 200, 2},
		{"terminating", []catalog.Endpoint{ep(1, "a", false)}, 503, 0},
	} {
		r.apply(func(tx *catalog.Txn) { tx.PutEndpoints(s.Key, tc.eps) })
		status, weight, body := get(port)
		want := `{"service":{"namespace":"shop","name":"web"},"localEndpoints":` + strconv.Itoa(tc.n) + `,"serviceProxyHealthy":true}`
		if status != tc.status || weight != strconv.Itoa(tc.n) || body != want {
			t.Errorf("%s: %d, weight %s, %s", tc.name, status, weight, body)
		}
	}
	r.apply(func(tx *catalog.Txn) {
		cluster := *s
		cluster.ExternalLocal = false
		tx.PutService(&cluster)
	})
	if status, _, body := get(port); status != 0 {
		t.Errorf("policy Cluster: %d %s", status, body)
	}
}

// TestPortMoves: the port of one service becomes that of another in one batch.
func TestPortMoves(t *testing.T) {
	r, port := newRig(t, nil), free(t)
	r.apply(func(tx *catalog.Txn) { tx.PutService(service("one", port)) })
	r.apply(func(tx *catalog.Txn) {
		tx.DeleteService(service("one", 0).Key)
		tx.PutService(service("two", port))
	})
	if _, _, body := get(port); !strings.Contains(body, `"two"`) {
		t.Errorf("got %s", body)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", netip.AddrPortFrom(loopback, ports.Next()).String())
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	var told []string
	r := newRig(t, func(k catalog.Key, err error) { told = append(told, k.String()+": "+err.Error()) })
	r.apply(func(tx *catalog.Txn) { tx.PutService(service("web", port)) })
	if len(told) != 1 || !strings.HasPrefix(told[0], "shop/web: health check node port") {
		t.Fatalf("told %q", told)
	}
	l.Close()
	r.s.retry()
	if status, _, body := get(port); status != 503 {
		t.Errorf("after the port is free: %d %s", status, body)
	}
	if len(told) != 1 {
		t.Errorf("told %q", told)
	}
}
