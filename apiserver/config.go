package apiserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/store"
)

// Liveness takes heartbeats. Renew is on the hot path: it must not block.
type Liveness interface {
	// Renew extends one claim of an instance, or all of them when door and id
	// are empty, and says for how long.
	Renew(namespace, name, door, id string, now time.Time) (ttl time.Duration, err error)
}

// Config of the API server.
type Config struct {
	Listener     net.Listener // already listening, so that a port in use is found early
	Store        *store.Store
	PKI          *PKI
	ServiceCIDRs []netip.Prefix // one, or one of each family; the first gives the default family
	NodePorts    [2]int         // first and last, inclusive
	Advertise    netip.Addr     // address of the endpoint of default/kubernetes
	NodeName     string         // the node of that endpoint when the address is a loopback one
	Liveness     Liveness
	// Transform trims what the shared informers keep; nil: managed fields only.
	Transform cache.TransformFunc
	Log       *slog.Logger
}

func (c *Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("apiserver: no listener")
	case c.Store == nil:
		return errors.New("apiserver: no store")
	case c.PKI == nil:
		return errors.New("apiserver: no certificates")
	case len(c.ServiceCIDRs) == 0 || len(c.ServiceCIDRs) > 2:
		return fmt.Errorf("apiserver: %d service ranges given, want one or one of each family", len(c.ServiceCIDRs))
	case len(c.ServiceCIDRs) == 2 && c.ServiceCIDRs[0].Addr().Is4() == c.ServiceCIDRs[1].Addr().Is4():
		return fmt.Errorf("apiserver: the service ranges %v are of one family, want one of each", c.ServiceCIDRs)
	case c.NodePorts[0] < 1 || c.NodePorts[1] > 65535 || c.NodePorts[0] > c.NodePorts[1]:
		return fmt.Errorf("apiserver: node ports %d-%d are no range", c.NodePorts[0], c.NodePorts[1])
	}
	for _, p := range c.ServiceCIDRs {
		if p != p.Masked() {
			return fmt.Errorf("apiserver: service range %s has host bits set, use %s", p, p.Masked())
		}
		if bits := p.Addr().BitLen() - p.Bits(); bits < 4 {
			return fmt.Errorf("apiserver: service range %s is too small, want at least 16 addresses", p)
		}
		if p.Addr().Is6() && p.Bits() < 64 {
			return fmt.Errorf("apiserver: service range %s is too large, want /64 or smaller", p)
		}
	}
	if c.Transform == nil {
		c.Transform = lean
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// APIServiceIP is the ClusterIP of default/kubernetes: the first address of
// the first range.
func (c *Config) APIServiceIP() netip.Addr { return c.ServiceCIDRs[0].Addr().Next() }
