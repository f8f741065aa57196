package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/door/kube"
	"github.com/fingerpost/fingerpost/view/gateway"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/ingress"
	"github.com/fingerpost/fingerpost/view/gateway/observe"
)

// GatewayConfig is that of the way in: HTTP from outside by Ingresses.
type GatewayConfig struct {
	HTTP, HTTPS []string // addresses; without any there is no gateway
	// Other are tried for an address that is taken or not allowed.
	Other map[string]string
	// Proxied begin connections with a PROXY protocol header, and are believed
	// what they say of clients in X-Forwarded-*, as Trusted are.
	Proxied, Trusted []netip.Prefix
	Ingress          ingress.Options
	Publish          []string           // addresses in the status of Ingresses
	AccessLog        *observe.LogConfig // nil: none
	Timeouts         gateway.Timeouts
	Limits           gateway.Limits
	HTTPSPort        uint16 // to which clients are redirected; 0: that of the first of HTTPS
	Trace            bool   // a traceparent for requests without
	// AffinityKey is a file with the key of affinity cookies, the same for
	// gateways that share clients; "": one in StateDir.
	AffinityKey string
	// HSTS is the value of Strict-Transport-Security; "": none.
	HSTS string
}

// Gateway composes the gateway alone, following the API server of c.Rest.
func Gateway(_ context.Context, c Config) (*System, error) {
	s := newSystem(c.Log)
	s.lameduck = c.Lameduck
	return s.finish(&c, s.addGatewayAlone(&c))
}

func (s *System) addGatewayAlone(c *Config) error {
	cat := catalog.New(nil)
	s.catalog = cat
	loaded, err := s.keep(c, cat)
	if err != nil {
		return err
	}
	if err := s.addGateway(c, cat); err != nil {
		return err
	}
	door, err := kube.New(kube.Config{Rest: c.Rest, Catalog: cat, Log: c.Log, Registerer: c.Registry, ClientName: "fingerpost-gateway"})
	if err != nil {
		return err
	}
	s.add("door kube", door.Run, s.orPatience(door.Synced(), loaded))
	return nil
}

// addGateway adds the gateway and its source of routes.
func (s *System) addGateway(c *Config, cat *catalog.Catalog) error {
	g := &c.Gateway
	cfg := gateway.Config{
		Node: c.NodeName, Zone: c.NodeZone, Timeouts: g.Timeouts, Limits: g.Limits, AccessLog: g.AccessLog,
		Filter: filter.Config{Trusted: append(g.Trusted, g.Proxied...), Trace: g.Trace, HSTS: g.HSTS},
		Log:    c.Log, Registerer: c.Registry,
	}
	for _, l := range []struct {
		addrs []string
		tls   bool
	}{{g.HTTP, false}, {g.HTTPS, true}} {
		for i, a := range l.addrs {
			var err error
			if l.addrs[i], err = g.available(a); err != nil {
				return err
			}
			cfg.Listeners = append(cfg.Listeners, gateway.Listener{Addr: l.addrs[i], TLS: l.tls, Proxied: g.Proxied})
		}
	}
	var err error
	if cfg.Filter.Key, err = g.affinityKey(c.StateDir); err != nil {
		return err
	}
	cfg.Filter.HTTPSPort = g.HTTPSPort
	if len(g.HTTPS) > 0 && g.HTTPSPort == 0 {
		if ap, err := net.ResolveTCPAddr("tcp", g.HTTPS[0]); err == nil {
			cfg.Filter.HTTPSPort = uint16(ap.Port)
		}
	}
	e, err := gateway.New(cfg)
	if err != nil {
		return err
	}
	if err := e.Listen(); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run as root, or allow everybody these ports with 'sysctl net.ipv4.ip_unprivileged_port_start=80', or choose others", err)
	} else if err != nil {
		return err
	}
	source, err := ingress.New(ingress.Config{
		Rest: rest.AddUserAgent(rest.CopyConfig(c.Rest), "gateway"), Name: c.NodeName, Options: g.Ingress, Publish: g.addresses(c),
		OnUpdate: e.SetRoutes, Log: c.Log, Registerer: c.Registry,
		File: g.routesFile(c), FileSource: c.Rest.Host,
	})
	if err != nil {
		return err
	}
	s.shown["GET /gateway/routes"] = shown(func(*http.Request) any { return e.Routes() })
	s.shown["GET /gateway/stats"] = shown(func(*http.Request) any { return GatewayStats{e.Stats(), source.Stale()} })
	s.shown["GET /gateway/explain"] = shown(func(r *http.Request) any { return e.Explain(question(r)) })
	s.parts = append(s.parts, part{name: "gateway", run: e.Run, drain: max(g.Timeouts.Drain, 0)})
	f := follow("gateway", cat, e, c)
	s.add(f.name, f.run, nil)
	s.add("routes", source.Run, s.orPatience(source.Synced(), source.Kept()))
	return nil
}

// GatewayStats is what a gateway tells of itself at /gateway/stats.
type GatewayStats struct {
	gateway.Stats
	// RoutesStale is since when the routes may be old, because the API server does
	// not answer.
	RoutesStale time.Time `json:"routesStale,omitzero"`
}

// routesFile is where the routes are kept for a start without the API server; "":
// nowhere. Where that server is a part of this process there is no such start.
func (g *GatewayConfig) routesFile(c *Config) string {
	if c.stateDir() == "" || c.pki != nil {
		return ""
	}
	return filepath.Join(c.stateDir(), "routes")
}

// affinityKey is what hides endpoints in cookies. It is kept, so that clients
// find their endpoint again after a restart.
func (g *GatewayConfig) affinityKey(dir string) ([]byte, error) {
	file := g.AffinityKey
	if file == "" && dir != "" {
		file = filepath.Join(dir, "gateway.key")
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, fmt.Errorf("keep the key of affinity cookies: %w", err)
			}
			if err := os.WriteFile(file, []byte(rand.Text()+"\n"), 0o600); err != nil {
				return nil, fmt.Errorf("keep the key of affinity cookies: %w", err)
			}
		}
	}
	if file == "" {
		return nil, nil // one for this run
	}
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key of affinity cookies: %w", err)
	}
	if key = bytes.TrimSpace(key); len(key) < 16 {
		return nil, fmt.Errorf("the key of affinity cookies in %s is shorter than 16 bytes: write a longer one, or remove the file", file)
	}
	return key, nil
}

// available gives the address to listen at.
func (g *GatewayConfig) available(addr string) (string, error) {
	other, ok := g.Other[addr]
	if !ok {
		return addr, nil
	}
	for _, a := range []string{addr, other} {
		l, err := net.Listen("tcp", a)
		if err == nil {
			return a, l.Close()
		}
	}
	host, _, err := net.SplitHostPort(other)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("listen for the gateway: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// addresses are where clients find the gateway, for the status of Ingresses.
func (g *GatewayConfig) addresses(c *Config) []string {
	if len(g.Publish) > 0 {
		return g.Publish
	}
	var all []string
	seen := map[string]bool{}
	add := func(a netip.Addr) {
		if s := a.Unmap().String(); !seen[s] {
			seen[s] = true
			all = append(all, s)
		}
	}
	for _, l := range append(append([]string{}, g.HTTP...), g.HTTPS...) {
		host, _, err := net.SplitHostPort(l)
		if err != nil {
			continue
		}
		if a, err := netip.ParseAddr(host); err == nil && !a.IsUnspecified() {
			add(a)
		} else {
			add(c.NodeAddress())
		}
	}
	return all
}

// shown answers with JSON.
func shown(what func(*http.Request) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what(r))
	})
}

// question reads what 'fingerpost gateway explain' asks.
func question(r *http.Request) gateway.Question {
	v := r.URL.Query()
	q := gateway.Question{Method: v.Get("method"), Scheme: v.Get("scheme"), Host: v.Get("host"), Path: v.Get("path")}
	q.Client, _ = netip.ParseAddr(v.Get("client"))
	for _, h := range v["header"] {
		if name, value, ok := strings.Cut(h, ":"); ok {
			q.Headers = append(q.Headers, [2]string{strings.TrimSpace(name), strings.TrimSpace(value)})
		}
	}
	return q
}
