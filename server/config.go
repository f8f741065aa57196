package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/apiserver"
	"github.com/fingerpost/fingerpost/view/dns"
)

// Config of a system. The zero values of most fields have a default, see
// Default and DefaultServer.
type Config struct {
	// Server side.
	DataDir       string   // state, certificates, admin.kubeconfig
	Listen        string   // address of the API: host:port
	Advertise     string   // address at which others reach the API; "" = that of Listen, or the machine's
	EtcdEndpoints []string // external etcd; empty: embedded, in DataDir
	EtcdCA        string
	EtcdCert      string
	EtcdKey       string
	ServiceCIDRs  []netip.Prefix // a node without takes those of the server
	NodePorts     [2]int
	CertNames     []string // further names and addresses of the serving certificate
	UnsafeNoSync  bool     // embedded etcd without fsync

	// Node side.
	Rest       *rest.Config // the API server to follow (node)
	NodeName   string
	NodeZone   string
	DNSListen  []string // UDP and TCP; empty: no DNS
	DNSZone    string
	Upstreams  []string
	ResolvConf string
	// DNSTLS and DNSHTTPS are addresses for DNS over TLS and HTTPS. Without
	// DNSCert and DNSKey (PEM files) the certificate is one of the cluster's CA
	// (dev), or one that the node signs itself and keeps in StateDir.
	DNSTLS, DNSHTTPS []string
	DNSCert, DNSKey  string
	// DNS are the settings that DNSConfig, a file that is followed, changes and
	// adds to. Upstreams are among them.
	DNS        dns.Settings
	DNSConfig  string
	QueryLogTo io.Writer
	// Lameduck is how long the node goes on answering after it was told to
	// stop, and says at /readyz that it will.
	Lameduck time.Duration
	// StateDir is where a node keeps its last state, so that it can start while
	// the server is away; "": nowhere.
	StateDir string
	Proxy    bool // virtual IPs
	// ProxyMode is how: one of ProxyModes; "" is auto.
	ProxyMode    string
	ProxyFlavour string // of iptables: auto, legacy or nft
	// ProxyCounters has nftables count what each endpoint got; other modes that
	// can do so anyway.
	ProxyCounters bool
	// ProxyEnd removes the rules at the end. Else they stay, and the next
	// process takes them over.
	ProxyEnd bool
	// ProxyAlone: no other program serves ClusterIPs here, so that rules of
	// kube-proxy that are found are left ones.
	ProxyAlone bool
	NodeAddrs  []netip.Addr
	Pods       Pods
	Gateway    GatewayConfig

	Metrics string // address of /metrics, /healthz and /readyz; "": none
	// Profiling serves /debug/pprof on Metrics.
	Profiling bool
	Log       *slog.Logger
	Registry  *prometheus.Registry

	pki *apiserver.PKI // of the server in this process; nil: there is none
}

// UnprivilegedCIDR is the service range of a server that is not root: any
// address in 127.0.0.0/8 can be listened on by anybody on Linux.
var UnprivilegedCIDR = netip.MustParsePrefix("127.96.0.0/16")

// PrivilegedCIDR is the service range of a server that is root.
var PrivilegedCIDR = netip.MustParsePrefix("10.96.0.0/16")

// DefaultServer fills what is not set of the server side. Privileged: this
// process may add routes.
func (c *Config) DefaultServer(privileged bool) {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:6443"
	}
	if len(c.ServiceCIDRs) == 0 {
		c.ServiceCIDRs = []netip.Prefix{UnprivilegedCIDR}
		if privileged {
			c.ServiceCIDRs = []netip.Prefix{PrivilegedCIDR}
		}
	}
	if c.NodePorts == [2]int{} {
		c.NodePorts = [2]int{30000, 32767}
	}
}

// Default fills what is not set of both sides.
func (c *Config) Default() error {
	if c.NodeName == "" {
		h, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("server: the machine has no host name (%w); give --node-name", err)
		}
		c.NodeName = strings.ToLower(h)
	}
	if c.DNSZone == "" {
		c.DNSZone = "cluster.local"
	}
	if c.ResolvConf == "" {
		c.ResolvConf = resolvConf("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	return nil
}

// advertise finds the address of the endpoint of default/kubernetes.
func (c *Config) advertise(l net.Addr) (netip.Addr, error) {
	if c.Advertise != "" {
		a, err := netip.ParseAddr(c.Advertise)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("server: --advertise-address %q: want an IP address", c.Advertise)
		}
		return a, nil
	}
	ap, err := netip.ParseAddrPort(l.String())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("server: listen address %s: %w", l, err)
	}
	if !ap.Addr().IsUnspecified() {
		return ap.Addr().Unmap(), nil
	}
	return machineAddress()
}

// machineAddress is the first address of the machine that others may reach.
func machineAddress() (netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("server: the machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok && addr.Unmap().IsGlobalUnicast() && addr.Unmap().Is4() {
				return addr.Unmap(), nil
			}
		}
	}
	return netip.Addr{}, errors.New("server: the machine has no address but loopback ones; give --advertise-address, or listen on 127.0.0.1")
}

// resolvConf is where upstreams are read from. With systemd-resolved the usual
// file names only its own listener, which may ask us: then its list of the real
// ones.
func resolvConf(usual, resolved string) string {
	text, err := os.ReadFile(usual)
	if err != nil {
		return usual
	}
	stub := false
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			if f[1] != "127.0.0.53" {
				return usual
			}
			stub = true
		}
	}
	if _, err := os.Stat(resolved); stub && err == nil {
		return resolved
	}
	return usual
}
