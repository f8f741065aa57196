package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/internal/kernel"
	"github.com/fingerpost/fingerpost/view/vip/ebpf"
	"github.com/fingerpost/fingerpost/view/vip/iptables"
	"github.com/fingerpost/fingerpost/view/vip/ipvs"
	"github.com/fingerpost/fingerpost/view/vip/nftables"
	"github.com/fingerpost/fingerpost/view/vip/userspace"
)

// Modes of the service proxy.
const (
	ProxyAuto      = "auto"
	ProxyNFTables  = "nftables"
	ProxyIPTables  = "iptables"
	ProxyEBPF      = "ebpf"
	ProxyIPVS      = "ipvs"
	ProxyUserspace = "userspace"
)

// driver is one way to serve virtual IPs.
type driver interface {
	catalog.View
	Run(ctx context.Context) error
}

// proxyMode is a driver that may be chosen.
type proxyMode struct {
	name string
	// kernel: packets are translated, so that ClusterIPs must not be addresses
	// of this machine.
	kernel bool
	// asked: somebody must ask for it by name.
	asked bool
	// probe says what keeps this machine from it.
	probe func() error
	make  func(events func(catalog.Key, string, string)) (driver, error)
	// cleanup removes what the mode left; nil: it leaves nothing.
	cleanup func() error
	// shared: what cleanup removes may be another program's.
	shared bool
	// beside is the mode whose rules this one has, too.
	beside string
}

// bpfRoot is where eBPF programs and maps can outlive this process.
const bpfRoot = "/sys/fs/bpf"

// both serves this machine's sockets in one way and what comes from outside in
// another.
type both struct{ inside, outside driver }

// Apply implements catalog.View.
func (d both) Apply(ctx context.Context, b catalog.Batch) error {
	return errors.Join(d.inside.Apply(ctx, b), d.outside.Apply(ctx, b))
}

// Run runs both until ctx ends, or one of them does.
func (d both) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 2)
	for _, one := range []driver{d.inside, d.outside} {
		go func() { done <- one.Run(ctx) }()
	}
	err := <-done
	cancel()
	return errors.Join(err, <-done)
}

// ProxyModes are the names that Config.ProxyMode may have.
func ProxyModes() []string {
	names := []string{ProxyAuto}
	for _, m := range proxyModes(&Config{}) {
		names = append(names, m.name)
	}
	return names
}

// proxyModes lists the modes in the order in which auto tries them.
func proxyModes(c *Config) []proxyMode {
	nft := nftables.Config{
		Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: c.nodePortAddresses(), PodCIDRs: c.Pods.CIDRs,
		ServiceCIDRs: c.translated(), Counters: c.ProxyCounters, Log: c.Log, Registerer: c.Registry,
	}
	ipt := iptables.Config{
		Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: c.nodePortAddresses(), PodCIDRs: c.Pods.CIDRs,
		ServiceCIDRs: c.translated(), Flavour: c.ProxyFlavour, Log: c.Log, Registerer: c.Registry,
	}
	bpf := ebpf.Config{
		Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: c.nodePortAddresses(),
		Log: c.Log, Registerer: c.Registry,
	}
	lvs := ipvs.Config{
		Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: c.nodePortAddresses(), PodCIDRs: c.Pods.CIDRs,
		ServiceCIDRs: c.translated(), Log: c.Log, Registerer: c.Registry,
	}
	if kernel.IsBPF(bpfRoot) {
		bpf.PinPath = filepath.Join(bpfRoot, "fingerpost")
	}
	return []proxyMode{
		{
			name: ProxyNFTables, kernel: true,
			probe: func() error { return nftables.Probe(nft) },
			make: func(events func(catalog.Key, string, string)) (driver, error) {
				nft.Events = events
				d, err := nftables.New(nft)
				return c.reachable(d, err, events)
			},
			cleanup: func() error { return nftables.Cleanup(nft) },
		},
		{
			name: ProxyIPTables, kernel: true, shared: true,
			probe: func() error { return iptables.Probe(ipt) },
			make: func(events func(catalog.Key, string, string)) (driver, error) {
				ipt.Events = events
				d, err := iptables.New(ipt)
				return c.reachable(d, err, events)
			},
			cleanup: func() error { return iptables.Cleanup(ipt) },
		},
		{
			name: ProxyEBPF, kernel: true, asked: true,
			probe: func() error { return errors.Join(ebpf.Probe(bpf), nftables.Probe(nft)) },
			make: func(events func(catalog.Key, string, string)) (driver, error) {
				nft.Events = events // the two complain of the same
				rules, err := nftables.New(nft)
				outside, err := c.relayed(rules, err, events)
				if err != nil {
					return nil, err
				}
				inside, err := ebpf.New(bpf)
				if err != nil {
					return nil, err
				}
				return both{inside, outside}, nil
			},
			cleanup: func() error { return ebpf.Cleanup(bpf) },
			beside:  ProxyNFTables,
		},
		{
			name: ProxyIPVS, kernel: true, asked: true,
			probe: func() error { return ipvs.Probe(lvs) },
			make: func(events func(catalog.Key, string, string)) (driver, error) {
				lvs.Events = events
				return ipvs.New(lvs)
			},
			cleanup: func() error { return ipvs.Cleanup(lvs) }, shared: true, // kube-ipvs0 is kube-proxy's as well
		},
		{
			name:  ProxyUserspace,
			probe: func() error { return nil },
			make: func(events func(catalog.Key, string, string)) (driver, error) {
				if _, err := kernel.RaiseFileLimit(1 << 20); err != nil {
					c.Log.Warn("few files may be open: many virtual IPs or connections will not fit", "error", err)
				}
				return userspace.New(userspace.Config{
					Node: c.NodeName, NodeZone: c.NodeZone, NodeAddresses: c.NodeAddrs,
					Owned: kernel.IsLocalAddress, Log: c.Log, Registerer: c.Registry, Events: events,
				})
			},
		},
	}
}

// chooseProxy decides how virtual IPs are served, and says why.
func (c *Config) chooseProxy(ctx context.Context) (*proxyMode, error) {
	modes := proxyModes(c)
	loopback := func(m *proxyMode) error {
		if i := slices.IndexFunc(c.ServiceCIDRs, func(p netip.Prefix) bool { return p.Addr().IsLoopback() }); i >= 0 && m.kernel {
			return fmt.Errorf("the kernel does not translate what goes to loopback addresses, such as the ClusterIPs in %s", c.ServiceCIDRs[i])
		}
		return nil
	}
	m, err := pickMode(c.ProxyMode, modes, loopback, c.Log)
	if err == nil && m.kernel {
		if c.rangesForKernel(ctx); loopback(m) != nil { // only now is it known
			m, err = pickMode(c.ProxyMode, modes, loopback, c.Log)
		}
	}
	return m, err
}

// pickMode chooses the mode of a name, or for auto the first one that works
// here. check is asked before the probe.
func pickMode(want string, modes []proxyMode, check func(*proxyMode) error, log *slog.Logger) (*proxyMode, error) {
	try := func(m *proxyMode) error {
		if err := check(m); err != nil {
			return err
		}
		return m.probe()
	}
	if want != "" && want != ProxyAuto {
		i := slices.IndexFunc(modes, func(m proxyMode) bool { return m.name == want })
		if i < 0 {
			return nil, fmt.Errorf("proxy mode %q is not known", want)
		}
		if err := try(&modes[i]); err != nil {
			return nil, fmt.Errorf("virtual IPs by %s cannot be had here: %w; use --proxy-mode=auto to take what can", want, err)
		}
		log.Info("virtual IPs", "mode", want, "why", "it was asked for")
		return &modes[i], nil
	}
	var not []string
	for i := range modes {
		m := &modes[i]
		if m.asked {
			continue
		}
		err := try(m)
		if err == nil {
			why := "the first choice, and it works here"
			if len(not) > 0 {
				why = strings.Join(not, "; ")
			}
			log.Info("virtual IPs", "mode", m.name, "why", why)
			return m, nil
		}
		not = append(not, "not "+m.name+": "+err.Error())
	}
	return nil, errors.New("virtual IPs can be served in no way here: " + strings.Join(not, "; "))
}

// nodePortAddresses are where the kernel answers on node ports. It cannot on
// loopback addresses, so that a machine that was told no other ones uses its
// own; empty: all.
func (c *Config) nodePortAddresses() []netip.Addr {
	var out []netip.Addr
	for _, a := range c.NodeAddrs {
		if !a.IsLoopback() {
			out = append(out, a)
		}
	}
	if len(out) == 0 && len(c.NodeAddrs) > 0 {
		if a := c.NodeAddress(); !a.IsLoopback() {
			out = append(out, a)
		}
	}
	return out
}

// translated are the service ranges as the kernel has to know them: without
// the addresses at which this machine answers DNS itself.
func (c *Config) translated() (out []netip.Prefix) {
	for _, p := range c.ServiceCIDRs {
		if c.answersPods() {
			out = append(out, without(p, ClusterDNS(p))...)
		} else {
			out = append(out, p)
		}
	}
	return out
}

// answersPods says whether the DNS server listens where pods ask.
func (c *Config) answersPods() bool { return c.Pods.Enabled && len(c.DNSListen) > 0 }

// without splits a range so that one address is not in it.
func without(p netip.Prefix, a netip.Addr) (out []netip.Prefix) {
	p = p.Masked()
	if !p.Contains(a) {
		return []netip.Prefix{p}
	}
	for bits := p.Bits() + 1; bits <= a.BitLen(); bits++ {
		// The half that a is not in: a with that bit turned round.
		b := a.AsSlice()
		b[(bits-1)/8] ^= 0x80 >> ((bits - 1) % 8)
		other, _ := netip.AddrFromSlice(b)
		out = append(out, netip.PrefixFrom(other, bits).Masked())
	}
	return out
}

// settle gives the addresses of services what the mode needs: in userspace
// they are this machine's; in the kernel they must not be, but for the one of
// DNS, and there must be some way to them.
func (s *System) settle(c *Config, mode *proxyMode) error {
	if mode == nil || !mode.kernel {
		if !c.Proxy && !c.Pods.Enabled {
			return nil
		}
		for _, p := range c.ServiceCIDRs {
			if mode != nil && !p.Addr().IsLoopback() && kernel.CanAddRoutes() { // of a kernel mode before
				_ = kernel.RemoveReach(p)
			}
		}
		return s.makeLocal(c.ServiceCIDRs)
	}
	for _, p := range c.ServiceCIDRs {
		// What a userspace proxy that was killed left.
		if err := kernel.RemoveLocalRange(p); err != nil {
			return err
		}
		if c.answersPods() {
			dns := ClusterDNS(p)
			if err := s.makeLocal([]netip.Prefix{netip.PrefixFrom(dns, dns.BitLen())}); err != nil {
				return err
			}
		}
		made, err := kernel.AddReach(p)
		if err != nil {
			c.Log.Warn("virtual IPs may not be reachable from this machine itself", "error", err)
		}
		if made && c.ProxyEnd { // else rules stay, and are of use with it only
			s.onClose(func() { _ = kernel.RemoveReach(p) })
		}
	}
	return nil
}

// rangesForKernel asks for the service ranges where rules need them. A node
// that cannot know them goes on without: what goes to a ClusterIP that no
// service has then leaves the machine instead of being dropped.
func (c *Config) rangesForKernel(ctx context.Context) {
	if len(c.ServiceCIDRs) > 0 || c.Rest == nil {
		return
	}
	ranges, err := c.rangesNow(ctx)
	if err != nil {
		c.Log.Warn("the service ranges are not known; give --service-cidr", "error", err)
		return
	}
	c.ServiceCIDRs = ranges
}

// proxy makes the driver of a mode.
func (s *System) proxy(ctx context.Context, c *Config, mode *proxyMode) (driver, error) {
	if !mode.kernel && len(c.ServiceCIDRs) == 0 {
		s.add("service ranges", func(ctx context.Context) error { return s.learnRanges(ctx, c) }, nil)
	}
	if err := c.tellProxy(mode); err != nil {
		return nil, err
	}
	d, err := mode.make(events(ctx, c))
	if err != nil {
		return nil, err
	}
	s.shown["GET /vip/hits"] = shown(func(*http.Request) any { return hitsOf(d) })
	if c.ProxyEnd {
		s.onClose(func() { c.endProxy(mode) })
	}
	h := &handover{driver: d, clean: func() { c.cleanOthers(mode) }}
	if c.ProxyAlone || !kernel.CanAddRoutes() {
		return h, nil
	}
	var changed func()
	if !mode.kernel { // sockets are opened for addresses that are there
		changed = func() { h.again(s.catalog.Snapshot()) }
	}
	return h, s.addAnnouncer(c, s.catalog, changed)
}

// endProxy removes the rules of a mode.
func (c *Config) endProxy(mode *proxyMode) {
	for _, m := range proxyModes(c) {
		if m.cleanup == nil || m.name != mode.name && m.name != mode.beside {
			continue
		}
		if err := m.cleanup(); err != nil {
			c.Log.Warn("rules of virtual IPs were left behind", "mode", m.name, "error", err)
		}
	}
	c.endRelays()
}

// handover removes what other modes left once its driver serves everything:
// at no time is there nobody who serves. Connections stay: their translation
// is remembered by the kernel, not looked up in rules.
type handover struct {
	driver
	mu    sync.Mutex
	clean func() // nil: it was done
}

// Apply implements catalog.View.
func (h *handover) Apply(ctx context.Context, b catalog.Batch) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.driver.Apply(ctx, b)
	if h.clean != nil && b.Snapshot.Freshness().Synced {
		h.clean()
		h.clean = nil
	}
	return err
}

// again makes the driver look anew at the services whose addresses depend on
// what this machine has.
func (h *handover) again(snap *catalog.Snapshot) {
	var gone, back []catalog.Change
	for e := range snap.All() {
		if len(e.Service.LoadBalancerIPs) > 0 {
			gone = append(gone, catalog.Change{Key: e.Service.Key, Old: e})
			back = append(back, catalog.Change{Key: e.Service.Key, New: e})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, changes := range [][]catalog.Change{gone, back} {
		_ = h.driver.Apply(context.Background(), catalog.Batch{Snapshot: snap, Changes: changes}) // what fails is an event
	}
}

// cleanOthers removes the rules of all modes but this one. Chains that another
// program may have made are removed only if this node was the last to use them,
// or stands in for that program.
func (c *Config) cleanOthers(now *proxyMode) {
	last := c.lastMode()
	for _, m := range proxyModes(c) {
		if m.name == now.name || m.name == now.beside || m.cleanup == nil || m.shared && last != m.name && !c.ProxyAlone || m.probe() != nil {
			continue
		}
		if err := m.cleanup(); err != nil {
			c.Log.Warn("rules of another mode could not be removed", "mode", m.name, "error", err)
		} else if last == m.name {
			c.Log.Info("rules of the former mode are removed", "mode", m.name)
		}
	}
	if !now.kernel {
		c.endRelays()
	}
	c.keepMode(now.name)
}

// The mode of the last run is kept beside the node's other state.

func (c *Config) modeFile() string {
	if dir := c.stateDir(); dir != "" {
		return filepath.Join(dir, "proxy-mode")
	}
	return ""
}

func (c *Config) lastMode() string {
	if f := c.modeFile(); f != "" {
		if b, err := os.ReadFile(f); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	return ""
}

func (c *Config) keepMode(name string) {
	f := c.modeFile()
	if f == "" || c.lastMode() == name {
		return
	}
	err := os.MkdirAll(filepath.Dir(f), 0o700)
	if err == nil {
		err = os.WriteFile(f, []byte(name+"\n"), 0o600)
	}
	if err != nil {
		c.Log.Warn("the proxy mode could not be kept; rules of this mode may stay when it is changed", "error", err)
	}
}
