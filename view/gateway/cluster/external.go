package cluster

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// external is what an external cluster knows of its name. Cluster.mu guards it.
type external struct {
	host  string
	port  uint16
	due   time.Duration // when to resolve it; 0: never, it is an address
	asked time.Duration
	fails int
	busy  bool
}

// external gives the cluster its name, at the beginning.
func (c *Cluster) external() {
	c.mu.Lock()
	defer c.mu.Unlock()
	host, port, err := net.SplitHostPort(c.key.External)
	number, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || number == 0 || host == "" {
		c.swap(nil, Problem("external backend "+strconv.Quote(c.key.External)+" is not host:port"))
		return
	}
	c.name = external{host: host, port: uint16(number)}
	if c.tls != nil {
		c.tls.ServerName = host
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		c.addresses([]netip.Addr{addr})
		return
	}
	c.name.due = c.set.now()
	c.swap(nil, Problem("host "+host+" is not resolved yet"))
}

// addresses takes those of the name. c.mu is held.
func (c *Cluster) addresses(all []netip.Addr) {
	var found []candidate
	for _, a := range all {
		if a = a.Unmap(); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			found = append(found, candidate{identity: identity{addr: netip.AddrPortFrom(a, c.name.port)}, weight: 100})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	found = slices.CompactFunc(found, func(a, b candidate) bool { return a.addr == b.addr })
	problem := Problem("")
	if len(found) == 0 {
		problem = Problem("host " + c.name.host + " has no address")
	}
	c.swap(found, problem)
}

// failedAddress has the name resolved anew, but not more than once a second:
// the endpoint may have moved.
func (c *Cluster) failedAddress() {
	if c.key.External == "" {
		return
	}
	c.mu.Lock()
	if c.name.due != 0 {
		c.name.due = min(c.name.due, max(c.set.now(), c.name.asked+time.Second))
	}
	c.mu.Unlock()
	select {
	case c.set.wake <- struct{}{}:
	default:
	}
}

// lookupTime is how long one resolution may take.
const lookupTime = 5 * time.Second

// resolve asks for the addresses of the name. A failure leaves those that are
// known.
func (c *Cluster) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addrs, err := c.set.cfg.Lookup(ctx, c.name.host)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.set.now()
	c.name.busy, c.name.asked = false, now
	if err == nil && len(addrs) > 0 {
		c.name.fails = 0
		c.name.due = now + c.set.cfg.Refresh
		c.addresses(addrs)
		return
	}
	c.name.due = now + min(c.set.cfg.Refresh, time.Second<<min(c.name.fails, 10))
	c.name.fails++
	if len(c.list.Load().endpoints) == 0 {
		why := "it has no address"
		if err != nil {
			why = err.Error()
		}
		c.swap(nil, Problem("host "+c.name.host+" cannot be resolved: "+why))
	}
	if c.name.fails == 1 {
		c.set.log.Warn("external backend: the host cannot be resolved; what was known stays",
			"service", c.key.Service.String(), "host", c.name.host, "error", err)
	}
}

// names resolves the names of external clusters when they are due. It is for
// the goroutine of Run.
type names struct {
	set   *Set
	timer *time.Timer
	done  chan struct{}
	busy  int
}

func newNames(s *Set) *names {
	n := &names{set: s, timer: time.NewTimer(time.Hour), done: make(chan struct{}, 64)}
	return n
}

// refresh starts what is due, and sets the timer to the next.
func (n *names) refresh(ctx context.Context) {
	next := time.Hour
	now := n.set.now()
	for _, c := range n.set.All() {
		if c.key.External == "" {
			continue
		}
		c.mu.Lock()
		wait := c.name.due - now
		start := c.name.due != 0 && !c.name.busy && !c.closed && wait <= 0
		idle := c.name.due == 0 || c.name.busy || c.closed
		c.name.busy = c.name.busy || start
		c.mu.Unlock()
		switch {
		case start:
			n.busy++
			go func() {
				c.resolve(ctx)
				n.done <- struct{}{}
			}()
		case !idle:
			next = min(next, wait)
		}
	}
	n.timer.Reset(next)
}

// stop waits for the resolutions under way, which ctx has ended.
func (n *names) stop() {
	n.timer.Stop()
	for range n.busy {
		<-n.done
	}
}
