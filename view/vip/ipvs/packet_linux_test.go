package ipvs

import (
	"embed"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/catalog/viewtest"
	"github.com/fingerpost/fingerpost/view/vip"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

//go:embed testdata/*.txt
var scripts embed.FS

// TestPackets is the suite that every driver runs.
func TestPackets(t *testing.T) {
	needIPVS(t)
	own, err := fs.Sub(scripts, "testdata")
	must(t, err)
	s := viptest.Suite{
		Random: 15, Churn: 100, Extra: own,
		Can:  []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut", "early"},
		Skip: map[string]string{"affinity-ports": "IPVS remembers a client for each port by itself; whether two ports agree is chance"},
		After: func(t *testing.T) {
			if k, err := open(); err != nil {
				t.Error(err)
			} else if all, err := k.servers(); err != nil || len(all) > 0 {
				t.Errorf("virtual servers of nobody: %v (%v)", all, err)
			}
			if err := Cleanup(Config{}); err != nil {
				t.Error(err)
			}
			if _, err := netlink.LinkByName(Device); err == nil {
				t.Error("the device is still there")
			}
			if tables, err := (&nft.Conn{}).ListTables(); err != nil || len(tables) > 0 {
				t.Errorf("tables of nftables after Cleanup: %v (%v)", tables, err)
			}
		},
	}
	s.Run(t)
}

// TestConformance runs the suite of views.
func TestConformance(t *testing.T) {
	needIPVS(t)
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		d, err := New(Config{Node: viewtest.Node})
		must(t, err)
		t.Cleanup(func() {
			if err := Cleanup(Config{}); err != nil {
				t.Error(err)
			}
		})
		return d
	})
}

// TestRepair: what others take away comes back.
func TestRepair(t *testing.T) {
	needIPVS(t)
	d, err := New(Config{Node: "a"})
	must(t, err)
	t.Cleanup(func() { must(t, Cleanup(Config{})) })
	d.mu.Lock()
	must(t, d.start())
	must(t, d.filter.commit(true))
	d.mu.Unlock()
	f := front("10.96.0.12:80", "TCP")
	d.want[f] = &virtual{backends: backends("10.244.1.2:8080"), bind: true}
	must(t, d.servers.Put(f, d.want[f].backends, 0, true))
	for name, harm := range map[string]func() error{
		"flushed rules": func() error {
			c := &nft.Conn{}
			c.FlushRuleset()
			return c.Flush()
		},
		"a virtual server": func() error { return d.servers.k.delServer(d.servers.servers[f].server) },
		"an address":       func() error { return netlink.AddrDel(d.servers.device, single(f.Addr.Addr())) },
	} {
		must(t, harm())
		d.checkAt = d.cfg.Now()
		d.tick()
		if differs, err := d.servers.differs(); err != nil || differs {
			t.Errorf("%s: not as it should be (%v)", name, err)
		}
		if held, err := d.servers.held(); err != nil || !held[f.Addr.Addr()] {
			t.Errorf("%s: the device has %v (%v)", name, held, err)
		}
		if ok, err := d.filter.intact(); err != nil || !ok {
			t.Errorf("%s: the rules are not as they should be (%v)", name, err)
		}
	}
}

// TestSettle: addresses are in force when Settle has returned. Those of IPv6 are
// not when the kernel has answered, and a first packet would be lost.
func TestSettle(t *testing.T) {
	needIPVS(t)
	tb, err := Open(Options{})
	must(t, err)
	t.Cleanup(func() { must(t, Cleanup(Config{})) })
	late := 0
	for round := range 5 {
		var all []vip.Front
		for i := range 40 {
			a := netip.AddrFrom16([16]byte{0xfd, 0x96, 14: byte(round), 15: byte(i)})
			f := vip.Front{Addr: netip.AddrPortFrom(a, 80), Proto: catalog.TCP}
			all = append(all, f)
			must(t, tb.Put(f, nil, 0, true))
			if !isLocal(a) {
				late++
			}
		}
		must(t, tb.Settle())
		for _, f := range all {
			if !isLocal(f.Addr.Addr()) {
				t.Errorf("%s is not in force", f.Addr.Addr())
			}
			must(t, tb.Remove(f))
		}
	}
	t.Logf("%d of 200 addresses were not in force when the kernel had answered", late)
}

// TestProbe: a kernel without IPVS is named.
func TestProbe(t *testing.T) {
	err := Probe(Config{})
	if _, missing := open(); missing == nil {
		must(t, err)
	} else if err == nil || !strings.Contains(err.Error(), "this kernel has no IPVS") {
		t.Errorf("Probe says %v", err)
	}
	if err := Probe(Config{Scheduler: "best"}); err == nil || !strings.Contains(err.Error(), "best") {
		t.Errorf("a scheduler that nobody knows: %v", err)
	}
}

// TestHits: connections are counted for the service's port.
func TestHits(t *testing.T) {
	needIPVS(t)
	pod(t, "p1", 1)
	d, err := New(Config{Node: "a"})
	must(t, err)
	t.Cleanup(func() { must(t, Cleanup(Config{})) })
	var _ vip.HitCounter = d
	if hits, ok, err := d.Hits(); !ok || err != nil || len(hits) > 0 {
		t.Errorf("before the start: %v, %v, %v", hits, ok, err)
	}
	c := catalog.New(nil)
	sub := c.Subscribe()
	key := catalog.Key{Namespace: "default", Name: "web"}
	c.Update(func(txn *catalog.Txn) {
		txn.SetFreshness(catalog.Freshness{Synced: true})
		txn.PutService(&catalog.Service{
			Key: key, Type: catalog.NodePort, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.13")},
			Ports: []catalog.Port{{Name: "http", Port: 80, Protocol: catalog.TCP, NodePort: 30300}},
		})
		txn.PutEndpoints(key, []catalog.Endpoint{{
			Addr: netip.MustParseAddr("10.244.1.2"), Ready: true, Serving: true, Weight: 100,
			Ports: []catalog.EndpointPort{{Name: "http", Port: 8080, Protocol: catalog.TCP}},
		}})
	})
	must(t, d.Apply(t.Context(), sub.TryNext()))
	for _, to := range []string{"10.96.0.13:80", "10.96.0.13:80", "10.244.1.1:30300"} {
		conn, err := net.DialTimeout("tcp", to, 20*time.Second)
		must(t, err)
		if got := ask(conn); got != "p1" {
			t.Errorf("%s: %q", to, got)
		}
		must(t, conn.Close())
	}
	// The kernel sums up every two seconds.
	for end := time.Now().Add(time.Minute); ; <-time.After(100 * time.Millisecond) {
		hits, ok, err := d.Hits()
		if !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
		sum := uint64(0)
		for _, h := range hits {
			sum += h.Count
			if h.Service != key || h.Port != "http" || h.Proto != catalog.TCP || h.Backend.String() != "10.244.1.2:8080" {
				t.Errorf("%+v", h)
			}
		}
		if sum == 3 {
			return
		}
		if sum > 3 || time.Now().After(end) {
			t.Fatalf("3 connections are counted as %v", hits)
		}
	}
}
