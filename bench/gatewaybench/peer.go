//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// place is where a proxy listens, and a directory of its own.
type place struct {
	dir, http, https string
	bare             bool // endpoints are not told about the client
}

// setup is what a proxy is to do.
type setup struct {
	Web  []string // endpoints of everything
	WS   []string // endpoints of /ws; empty: there is no such route
	Cert int      // which of the certificates
	// Routes is the number of hosts, each with one path to a service of its own
	// that has the endpoints Web; 0: only the one default.
	Routes int
	// Moved is the number of the host that goes to the endpoint Other instead;
	// 0: none.
	Moved int
	Other string
}

// peer is a proxy that is measured.
type peer interface {
	name() string
	// start runs it and waits until it answers.
	start(ctx context.Context, at place, s setup) (*process, error)
	// change makes it do something else, as its users do.
	change(ctx context.Context, s setup) error
}

// routeHost is the name of a host of the table.
func routeHost(i int) string { return fmt.Sprintf("app-%05d.example.com", i) }

// pairFile is a certificate with its key; haproxy wants both in one file.
func pairFile(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("pair-%d.pem", i)) }

// masterStarts is when a master surely handles signals: later than its worker
// listens.
const masterStarts = 300 * time.Millisecond

// nginx is Debian's.
type nginx struct {
	at   place
	p    *process
	path string
}

func (*nginx) name() string { return "nginx" }

func (n *nginx) start(ctx context.Context, at place, s setup) (*process, error) {
	n.at, n.path = at, filepath.Join(at.dir, "nginx.conf")
	if err := os.WriteFile(n.path, n.render(s), 0o600); err != nil {
		return nil, err
	}
	var err error
	if n.p, err = begin(at.dir, proxyCore, "nginx", nil, "nginx", "-c", n.path, "-p", at.dir, "-e", filepath.Join(at.dir, "nginx-error.log")); err != nil {
		return nil, err
	}
	if err := n.p.await(ctx, at.http); err != nil {
		return n.p, err
	}
	return n.p, sleep(ctx, masterStarts)
}

func (n *nginx) change(ctx context.Context, s setup) error {
	if err := os.WriteFile(n.path, n.render(s), 0o600); err != nil {
		return err
	}
	return n.p.cmd.Process.Signal(syscall.SIGHUP)
}

// check is what a careful operator, and ingress-nginx, does before a reload.
func (n *nginx) check(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, "taskset", "-c", proxyCore, "nginx", "-t", "-q", "-c", n.path, "-p", n.at.dir, "-e", filepath.Join(n.at.dir, "nginx-error.log"))
}

// render writes a configuration as its manual recommends it for a proxy:
// upstream connections are kept, nothing is logged or spilt to the disk, and
// endpoints are told about the client as an ingress does.
func (n *nginx) render(s setup) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `worker_processes 1;
daemon off;
pid nginx.pid;
error_log nginx-error.log error;
events { worker_connections 30000; }
http {
  access_log off;
  server_tokens off;
  tcp_nodelay on;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  client_body_buffer_size 128k;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header Connection $connection_upgrade;
  proxy_set_header Upgrade $http_upgrade;
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache off;
  ssl_session_tickets off;
  ssl_certificate %s;
  ssl_certificate_key %s;
  server_names_hash_max_size 65536;
  server_names_hash_bucket_size 128;
`, pairFile(n.at.dir, s.Cert), pairFile(n.at.dir, s.Cert))
	if !n.at.bare {
		b.WriteString(`  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Forwarded-Proto $scheme;
`)
	}
	pool := func(name string, endpoints []string, keep int) {
		fmt.Fprintf(&b, "  upstream %s {\n", name)
		for _, e := range endpoints {
			fmt.Fprintf(&b, "    server %s;\n", e)
		}
		if len(endpoints) == 0 {
			fmt.Fprintf(&b, "    server 127.0.0.1:1 down;\n")
		}
		fmt.Fprintf(&b, "    keepalive %d;\n    keepalive_requests 1000000000;\n    keepalive_timeout 3600s;\n  }\n", keep)
	}
	pool("web", s.Web, 4096)
	fmt.Fprintf(&b, "  server {\n    listen %s backlog=65535 default_server;\n    listen %s ssl http2 backlog=65535 default_server;\n    location / { proxy_pass http://web; }\n", n.at.http, n.at.https)
	if len(s.WS) > 0 {
		fmt.Fprintf(&b, "    location /ws { proxy_pass http://sockets; proxy_read_timeout 3600s; }\n")
	}
	b.WriteString("  }\n")
	if len(s.WS) > 0 {
		pool("sockets", s.WS, 16)
	}
	for i := range s.Routes {
		name := fmt.Sprintf("svc-%05d", i)
		pool(name, s.Web, 16) // it takes memory for each, used or not
		if s.Moved > 0 && s.Moved == i {
			name = "moved"
		}
		fmt.Fprintf(&b, "  server {\n    listen %s;\n    listen %s ssl http2;\n    server_name %s;\n    location / { proxy_pass http://%s; }\n  }\n", n.at.http, n.at.https, routeHost(i), name)
	}
	if s.Moved > 0 {
		pool("moved", []string{s.Other}, 16)
	}
	b.WriteString("}\n")
	return []byte(b.String())
}

// haproxy is Debian's.
type haproxy struct {
	at   place
	p    *process
	path string
}

func (*haproxy) name() string { return "haproxy" }

func (h *haproxy) start(ctx context.Context, at place, s setup) (*process, error) {
	h.at, h.path = at, filepath.Join(at.dir, "haproxy.cfg")
	if err := h.write(s); err != nil {
		return nil, err
	}
	var err error
	if h.p, err = begin(at.dir, proxyCore, "haproxy", nil, "haproxy", "-W", "-db", "-q", "-f", h.path); err != nil {
		return nil, err
	}
	if err := h.p.await(ctx, at.http); err != nil {
		return h.p, err
	}
	return h.p, sleep(ctx, masterStarts)
}

func (h *haproxy) change(ctx context.Context, s setup) error {
	if err := h.write(s); err != nil {
		return err
	}
	return h.p.cmd.Process.Signal(syscall.SIGUSR2)
}

func (h *haproxy) check(ctx context.Context) *exec.Cmd {
	return exec.CommandContext(ctx, "taskset", "-c", proxyCore, "haproxy", "-c", "-q", "-f", h.path)
}

func (h *haproxy) write(s setup) error {
	var b, hosts strings.Builder
	fmt.Fprintf(&b, `global
  nbthread 1
  maxconn 12000
  no strict-limits
  tune.ssl.cachesize 0
  ssl-default-bind-options no-tls-tickets ssl-min-ver TLSv1.2
defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 5s
  timeout client 3600s
  timeout server 3600s
  timeout http-keep-alive 3600s
  retry-on conn-failure empty-response response-timeout
  retries 3
  option redispatch 1
frontend in
  bind %s backlog 65535
  bind %s ssl crt %s alpn h2,http/1.1 backlog 65535
`, h.at.http, h.at.https, pairFile(h.at.dir, s.Cert))
	if !h.at.bare {
		b.WriteString(`  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
`)
	}
	if len(s.WS) > 0 {
		b.WriteString("  use_backend sockets if { path_beg /ws }\n")
	}
	if s.Routes > 0 {
		fmt.Fprintf(&b, "  use_backend %%[req.hdr(host),lower,map_str(%s,web)]\n", filepath.Join(h.at.dir, "hosts.map"))
	}
	b.WriteString("  default_backend web\n")
	pool := func(name string, endpoints []string) {
		fmt.Fprintf(&b, "backend %s\n", name)
		for i, e := range endpoints {
			fmt.Fprintf(&b, "  server e%d %s pool-max-conn 4096 pool-purge-delay 3600s\n", i, e)
		}
	}
	pool("web", s.Web)
	if len(s.WS) > 0 {
		pool("sockets", s.WS)
	}
	for i := range s.Routes {
		name := fmt.Sprintf("svc-%05d", i)
		pool(name, s.Web)
		if s.Moved > 0 && s.Moved == i {
			name = "moved"
		}
		fmt.Fprintf(&hosts, "%s %s\n", routeHost(i), name)
	}
	if s.Moved > 0 {
		pool("moved", []string{s.Other})
	}
	if err := os.WriteFile(filepath.Join(h.at.dir, "hosts.map"), []byte(hosts.String()), 0o600); err != nil {
		return err
	}
	return os.WriteFile(h.path, []byte(b.String()), 0o600)
}
