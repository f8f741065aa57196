package catalog

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDump(t *testing.T) {
	c := New(nil)
	web := service("web", "10.96.0.1")
	web.Ports = append(web.Ports, Port{Protocol: UDP, Port: 53, NodePort: 30053, AppProtocol: "dns"})
	web.Affinity, web.PublishNotReady, web.InternalLocal = 3*time.Hour, true, true
	web.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	web.ExternalIPs = []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("2.2.2.2")}
	web.Labels = map[string]string{"b": "2", "a": "1"}
	eps := endpoints("10.0.0.10", "10.0.0.9")
	eps[0].Ready, eps[0].Serving = false, false
	eps[0].Health = Health{State: Failing, By: "probe http", Reason: "503\n  busy"}
	eps[1].Local, eps[1].Node, eps[1].Target = true, "here", Ref{Kind: "Pod", Name: "web-1"}
	eps[1].Metadata = map[string]string{"version": "v 2"}
	c.Update(func(tx *Txn) {
		tx.PutService(web)
		tx.PutEndpoints(web.Key, eps)
		tx.PutService(&Service{Key: key("ext"), Type: ExternalName, ExternalName: "example.com"})
		tx.PutService(&Service{Key: Key{"a", "z"}, Type: ClusterIP, Headless: true})
		tx.PutEndpoints(key("orphan"), endpoints("10.0.0.1"))
		tx.PutNamespace("default")
		tx.SetFreshness(Freshness{Synced: true, StaleSince: start})
	})
	const want = `synced, stale, 3 services, 2 endpoints
namespace default
service a/z ClusterIP headless
service default/ext ExternalName externalName=example.com
service default/web ClusterIP 10.96.0.1 externalIPs=1.1.1.1,2.2.2.2 sourceRanges=10.0.0.0/8 publishNotReady internalLocal affinity=3h0m0s labels=a:"1",b:"2"
  port http 80/TCP -> 8080
  port - 53/UDP nodePort=30053 app=dns
  endpoint 10.0.0.9 http:8080/TCP ready serving local weight=100 node=here target=Pod/web-1 metadata=version:"v 2"
  endpoint 10.0.0.10 http:8080/TCP out weight=100 Failing by "probe http": 503 busy
`
	var b strings.Builder
	if err := Dump(&b, c.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
