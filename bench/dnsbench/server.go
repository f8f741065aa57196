//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// server is one that is measured, on core 0.
type server struct {
	name  string
	echo  bool
	start func(dir, addr string) (program string, args []string, err error)
}

// servers lists those that are there, in the order they are measured.
func (b *bench) servers() []server {
	all := []server{{name: "UDP echo in C", echo: true, start: func(dir, addr string) (string, []string, error) {
		program := filepath.Join(dir, "echo")
		if out, err := exec.Command("gcc", "-O2", "-o", program, b.echoSource).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("compile the echo: %w: %s", err, out)
		}
		_, port, err := net.SplitHostPort(addr)
		return program, []string{port}, err
	}}}
	all = append(all, server{name: "fingerpost", start: func(dir, addr string) (string, []string, error) {
		free, err := rig.Ports(1)
		if err != nil {
			return "", nil, err
		}
		return b.fingerpost, []string{"node", "--kubeconfig", b.kubeconfig, "--no-proxy", "--dns-address", addr, "--metrics-address", free[0]}, nil
	}})
	if b.coredns != "" {
		for name, cache := range map[string]string{"CoreDNS": "", "CoreDNS, cache 30": "cache 30\n"} {
			all = append(all, server{name: name, start: func(dir, addr string) (string, []string, error) {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					return "", nil, err
				}
				conf := filepath.Join(dir, "Corefile")
				text := fmt.Sprintf("%s:%s {\nbind %s\n%skubernetes {\nkubeconfig %s\n}\n}\n", zone, port, host, cache, b.kubeconfig)
				return b.coredns, []string{"-conf", conf}, os.WriteFile(conf, []byte(text), 0o600)
			}})
		}
	}
	if program, err := exec.LookPath("knotd"); err == nil {
		all = append(all, server{name: "knotd", start: func(dir, addr string) (string, []string, error) {
			conf := filepath.Join(dir, "knot.conf")
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return "", nil, err
			}
			text := fmt.Sprintf("server:\n  rundir: %q\n  listen: %s@%s\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\ndatabase:\n  storage: %q\nzone:\n  - domain: %s\n    storage: %q\n    file: zone\n    zonefile-sync: -1\n    zonefile-load: whole\n    journal-content: none\n",
				dir, host, port, dir, zone, b.dir)
			return program, []string{"-c", conf}, os.WriteFile(conf, []byte(text), 0o600)
		}})
	}
	if program, err := exec.LookPath("nsd"); err == nil {
		all = append(all, server{name: "nsd", start: func(dir, addr string) (string, []string, error) {
			conf := filepath.Join(dir, "nsd.conf")
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return "", nil, err
			}
			text := fmt.Sprintf("server:\n  server-count: 1\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n  receive-buffer-size: 4194304\n  send-buffer-size: 4194304\n  ip-address: %s@%s\n  username: \"\"\n  zonesdir: %q\n  pidfile: \"\"\n  xfrdir: %q\n  zonelistfile: %q\n  xfrdfile: \"\"\n  database: \"\"\nremote-control:\n  control-enable: no\nzone:\n  name: %s\n  zonefile: zone\n",
				host, port, b.dir, dir, filepath.Join(dir, "zone.list"), zone)
			return program, []string{"-d", "-c", conf}, os.WriteFile(conf, []byte(text), 0o600)
		}})
	}
	return all
}

// up starts a server on core 0 and waits until it answers as it should.
func (b *bench) up(ctx context.Context, s server) (*rig.Program, netip.AddrPort, error) {
	var to netip.AddrPort
	free, err := rig.Ports(1)
	if err != nil {
		return nil, to, err
	}
	dir, err := os.MkdirTemp(b.dir, "server")
	if err != nil {
		return nil, to, err
	}
	program, args, err := s.start(dir, free[0])
	if err != nil {
		return nil, to, err
	}
	p, err := rig.Run(dir, "taskset", append([]string{"-c", "0", program}, args...)...)
	if err != nil {
		return nil, to, err
	}
	to = netip.MustParseAddrPort(free[0])
	for end := time.Now().Add(2 * time.Minute); ; {
		if err = b.answers(s, to); err == nil {
			return p, to, nil
		}
		if time.Now().After(end) {
			_ = p.Stop()
			return nil, to, fmt.Errorf("%s does not answer: %w (see %s)", s.name, err, dir)
		}
		if err := rig.Sleep(ctx, 100*time.Millisecond); err != nil {
			_ = p.Stop()
			return nil, to, err
		}
	}
}

// answers asks for the last service there is.
func (b *bench) answers(s server, to netip.AddrPort) error {
	c := dns.Client{Timeout: time.Second}
	var m dns.Msg
	ns, svc := b.world.namespaces-1, b.world.services-1
	m.SetQuestion(b.world.name(svc)+"."+b.world.namespace(ns)+".svc."+zone, dns.TypeA)
	r, _, err := c.Exchange(&m, to.String())
	if s.echo {
		if r != nil || err == nil {
			return nil
		}
		return err
	}
	if err == nil && len(r.Answer) == 0 {
		err = fmt.Errorf("it says %s", dns.RcodeToString[r.Rcode])
	}
	return err
}
