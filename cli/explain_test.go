package cli

import (
	"bytes"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

func TestExplain(t *testing.T) {
	s := world().Snapshot()
	for name, arg := range map[string]string{
		"explain-web": "web", "explain-web-port": "web:http", "explain-web-target-port": "web:8080",
		"explain-db": "db", "explain-nobody": "nobody", "explain-outside": "outside", "explain-queue": "queue",
		"explain-cart": "cart.shop", "explain-cart-port": "cart.shop:80",
	} {
		t.Run(name, func(t *testing.T) {
			k, port := parseTarget(arg, "default")
			var out bytes.Buffer
			err := renderExplain(&out, s, k, port, formatTable, testNow)
			golden(t, name, withExit(&out, nil, err))
		})
	}
	t.Run("explain-json", func(t *testing.T) {
		var out bytes.Buffer
		err := renderExplain(&out, s, catalog.Key{Namespace: "default", Name: "db"}, "", formatJSON, testNow)
		golden(t, "explain-json", withExit(&out, nil, err))
	})
	for name, k := range map[string]catalog.Key{
		"explain-not-here": {Namespace: "default", Name: "cart"}, "explain-no-namespace": {Namespace: "shopp", Name: "cart"}, "explain-slip": {Namespace: "default", Name: "ouside"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, withExit(&bytes.Buffer{}, nil, notFound(s, k, true)))
		})
	}
}

func TestParseTarget(t *testing.T) {
	key := func(ns, name string) catalog.Key { return catalog.Key{Namespace: ns, Name: name} }
	for in, want := range map[string]struct {
		key  catalog.Key
		port string
	}{
		"web":                            {key("default", "web"), ""},
		"web:80":                         {key("default", "web"), "80"},
		"web.shop":                       {key("shop", "web"), ""},
		"web.shop.svc:http":              {key("shop", "web"), "http"},
		"web.shop.svc.cluster.local.":    {key("shop", "web"), ""},
		"shop/web":                       {key("shop", "web"), ""},
		"service/web":                    {key("default", "web"), ""},
		"http://web.shop:8080/some/path": {key("shop", "web"), "8080"},
	} {
		if k, port := parseTarget(in, "default"); k != want.key || port != want.port {
			t.Errorf("%s: got %v %q, want %v %q", in, k, port, want.key, want.port)
		}
	}
}
