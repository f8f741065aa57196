package nftables

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
)

// within runs f in the driver's namespace.
func within(t *testing.T, d *Driver, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Setns(d.cfg.netns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestHits: the kernel counts connections, with and without affinity, and a
// table that was made without counters gets them.
func TestHits(t *testing.T) {
	r := newRig(t, nil)
	backend := netip.MustParseAddrPort("10.9.9.9:8080")
	within(t, r.d, func() error {
		for _, c := range []string{"link set lo up", "addr add 10.9.9.9/32 dev lo", "addr add 10.9.9.10/32 dev lo", "route add default dev lo src 10.9.9.10"} {
			if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", c, err, out)
			}
		}
		l, err := net.Listen("tcp", backend.String())
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
		return nil
	})
	put := func(name, ip string, hold time.Duration) {
		t.Helper()
		s := &catalog.Service{
			Key: catalog.Key{Namespace: "ns", Name: name}, Type: catalog.NodePort, Affinity: hold,
			ClusterIPs: []netip.Addr{netip.MustParseAddr(ip)}, Ports: []catalog.Port{{Name: "a", Protocol: catalog.TCP, Port: 80, NodePort: 30080}},
		}
		if err := r.apply(func(txn *catalog.Txn) {
			txn.PutService(s)
			txn.PutEndpoints(s.Key, []catalog.Endpoint{{
				Addr: backend.Addr(), Ready: true, Serving: true, Weight: 100, Node: "n1",
				Ports: []catalog.EndpointPort{{Name: "a", Protocol: catalog.TCP, Port: backend.Port()}},
			}})
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("plain", "10.96.0.1", 0)
	if _, ok, err := r.d.Hits(); ok || err != nil {
		t.Errorf("counts without counters: %v, %v", ok, err)
	}

	cfg := r.d.cfg
	cfg.Counters = true
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer d.k.close()
	if err := d.Apply(t.Context(), func() catalog.Batch { s := r.c.Subscribe(); defer s.Close(); return s.TryNext() }()); err != nil {
		t.Fatal(err)
	}
	r.d = d
	put("sticky", "10.96.0.2", time.Hour)
	for range 7 {
		within(t, d, func() error {
			for _, at := range []string{"10.96.0.1:80", "10.9.9.10:30080", "10.96.0.2:80"} {
				c, err := net.Dial("tcp", at)
				if err != nil {
					return err
				}
				_ = c.Close()
			}
			return nil
		})
	}
	hits, ok, err := d.Hits()
	if !ok || err != nil {
		t.Fatalf("no counts: %v, %v", ok, err)
	}
	got := map[string]uint64{}
	for _, h := range hits {
		if h.Backend != backend || h.Port != "a" || h.Proto != catalog.TCP {
			t.Errorf("%+v", h)
		}
		got[h.Service.Name] += h.Count
	}
	if got["plain"] != 14 || got["sticky"] != 7 {
		t.Errorf("%v, want 14 and 7", got)
	}
	r.agrees()
	if _, err := exec.LookPath("nft"); err == nil {
		within(t, d, func() error {
			out, err := exec.Command("nft", "list", "map", "ip", "fingerpost", "slots").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "counter packets 7") {
				return fmt.Errorf("nft list map: %w: %s", err, out)
			}
			if out, err := exec.Command("nft", "list", "ruleset").CombinedOutput(); err != nil {
				return fmt.Errorf("nft list ruleset: %w: %s", err, out)
			}
			return nil
		})
	}
}

// FuzzCounters: whatever the kernel says is decoded without harm.
func FuzzCounters(f *testing.F) {
	attr := func(kind uint16, v []byte) []byte { return appendAttribute(nil, kind, v) }
	counter := attr(unix.NFTA_EXPR_NAME, []byte("counter\x00"))
	counter = append(counter, attr(unix.NFTA_EXPR_DATA, attr(unix.NFTA_COUNTER_PACKETS, binary.BigEndian.AppendUint64(nil, 5)))...)
	e := append(attr(unix.NFTA_SET_ELEM_KEY, attr(unix.NFTA_DATA_VALUE, []byte("key!"))), attr(unix.NFTA_SET_ELEM_EXPR, counter)...)
	whole := attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS, attr(1, e))
	f.Add(whole)
	f.Add(whole[:len(whole)-5])
	n := uint64(0)
	if err := countersOf(whole, func(key []byte, packets uint64) {
		if string(key) == "key!" {
			n = packets
		}
	}); err != nil || n != 5 {
		f.Errorf("%d packets, %v", n, err)
	}
	f.Fuzz(func(_ *testing.T, b []byte) { _ = countersOf(b, func([]byte, uint64) {}) })
}
