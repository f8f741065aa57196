package cli

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

func TestWatch(t *testing.T) {
	for name, o := range map[string]watchOptions{
		"watch":      {format: formatTable, namespace: "default"},
		"watch-wide": {format: formatWide, all: true},
		"watch-json": {format: formatJSON, namespace: "default", name: "web"},
		"watch-yaml": {format: formatYAML, namespace: "default", count: 1},
		"watch-name": {format: formatName, namespace: "default", count: 3},
	} {
		o.clock = time.UTC
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := catalog.New(nil)
				k := catalog.Key{Namespace: "default", Name: "web"}
				ep := catalog.Endpoint{
					Addr: addr("10.0.0.1"), Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}, Ready: true, Serving: true,
					Weight: 100, Origin: "process", Node: "laptop", Health: catalog.Health{State: catalog.Passing, By: "check http", Since: time.Now()},
				}
				put := func(ep catalog.Endpoint) {
					c.Update(func(t *catalog.Txn) { t.PutEndpoints(k, []catalog.Endpoint{ep}) })
					synctest.Wait()
				}
				c.Update(func(t *catalog.Txn) {
					t.PutService(&catalog.Service{Key: k, Type: catalog.ClusterIP})
					t.PutEndpoints(k, []catalog.Endpoint{ep})
					t.SetFreshness(catalog.Freshness{Synced: true})
				})
				var out bytes.Buffer
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- o.stream(ctx, &out, c) }()
				synctest.Wait()

				time.Sleep(time.Minute)
				ep.Ready, ep.Serving = false, false
				ep.Health = catalog.Health{State: catalog.Failing, Reason: "connection refused", By: "check http", Since: time.Now().Add(-12 * time.Millisecond)}
				put(ep)
				ep.Health.Reason = "HTTP 503"
				put(ep)
				ep.Ready, ep.Serving = true, true
				ep.Health = catalog.Health{State: catalog.Passing, By: "check http", Since: time.Now()}
				put(ep)
				ep.Weight = 50
				put(ep)
				ep.ForZones = []string{"a"} // nothing to tell
				put(ep)
				since := time.Now()
				c.Update(func(t *catalog.Txn) { t.SetFreshness(catalog.Freshness{Synced: true, StaleSince: since}) })
				synctest.Wait()
				time.Sleep(2500 * time.Millisecond)
				c.Update(func(t *catalog.Txn) {
					t.SetFreshness(catalog.Freshness{Synced: true})
					t.PutService(&catalog.Service{Key: k, Type: catalog.ClusterIP, ClusterIPs: []netip.Addr{addr("10.96.0.1")}})
					t.PutService(&catalog.Service{Key: catalog.Key{Namespace: "default", Name: "new"}, Type: catalog.ClusterIP})
				})
				synctest.Wait()
				c.Update(func(t *catalog.Txn) {
					t.PutEndpoints(k, nil)
					t.DeleteService(catalog.Key{Namespace: "default", Name: "new"})
				})
				synctest.Wait()
				cancel()
				golden(t, name, withExit(&out, nil, <-done))
			})
		})
	}
}

func TestWatchTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := watchOptions{timeout: 5 * time.Second}
		if err := o.stream(t.Context(), &bytes.Buffer{}, catalog.New(nil)); err != nil {
			t.Errorf("timeout without a count: %v", err)
		}
		o.count = 2
		if err := o.stream(t.Context(), &bytes.Buffer{}, catalog.New(nil)); err == nil || !strings.Contains(err.Error(), "0 of 2 changes within 5s") {
			t.Errorf("timeout before the count: %v", err)
		}
	})
}
