package ipvs

import (
	"strings"
	"testing"

	nft "github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/fingerpost/fingerpost/catalog/viewtest"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestPackets is the suite that every driver runs.
func TestPackets(t *testing.T) {
	needIPVS(t)
	s := viptest.Suite{
		// No random run: it counts a first packet that is sent again after a
		// second as no answer, and over IPv6 that happens, see the limits in doc.go.
		Churn: 200,
		Can:   []string{"source", "check", "affinity", "udp-cleanup", "kept", "ipv6", "drop", "shortcut", "early"},
		Skip:  map[string]string{"affinity-ports": "IPVS remembers a client for each port by itself; whether two ports agree is chance"},
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
