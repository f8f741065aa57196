package viptest

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// early begins a connection to a service before the driver has any rules, and
// gives what says, once it has, whether one of the client's repetitions got
// through (kubernetes/kubernetes#48719).
func (w *world) early(t testing.TB) (finish func(*testing.T, *run)) {
	const vip = "10.97.0.10"
	hole, err := netlink.ParseIPNet("10.97.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	a, o := w.hosts["a"], w.hosts["o"]
	o.must(o.nl.RouteAdd(&netlink.Route{Dst: hole, Type: unix.RTN_BLACKHOLE}))
	// Connections are tracked where a rule asks for it, as a node's firewall has.
	firewall := &nft.Table{Family: nft.TableFamilyIPv4, Name: "firewall"}
	a.must(a.in(func() error {
		c := &nft.Conn{}
		chain := c.AddChain(&nft.Chain{
			Table: c.AddTable(firewall), Name: "forward", Type: nft.ChainTypeFilter, Hooknum: nft.ChainHookForward, Priority: nft.ChainPriorityFilter,
		})
		c.AddRule(&nft.Rule{Table: firewall, Chain: chain, Exprs: []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, &expr.Counter{}}})
		return c.Flush()
	}))
	connected := make(chan error, 1)
	go func() {
		connected <- w.hosts["p1"].in(func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", vip+":80")
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}()
	for n := 0; n == 0; runtime.Gosched() {
		a.must(a.in(func() error {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
			n = len(flows)
			return err
		}))
	}
	return func(t *testing.T, r *run) {
		defer r.begin(t)()
		// In one batch: a service without endpoints would refuse the client.
		for _, line := range [][]string{
			{"together"}, {"service", "web", "ports=http:80", "clusterip=" + vip}, {"endpoint", "web", "q1", "http=8080"}, {"apply"},
		} {
			if _, err := r.do(line); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-connected; err != nil {
			t.Errorf("a connection that was begun before there were rules: %v", err)
		}
		a.must(a.in(func() error {
			c := &nft.Conn{}
			c.DelTable(firewall)
			return c.Flush()
		}))
	}
}
