package cluster

import (
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Key names a cluster: equal keys are one cluster.
type Key struct {
	Service  catalog.Key
	Port     string // name or number of the service's port; "": its only one
	External string // "host:port" of an ExternalName service; Port plays no part then
	Protocol route.Protocol
	TLS      *route.EndpointTLS // by pointer; nil: the usual, if Protocol says TLS
	Balance  Balance
}

// Balance is how a cluster's endpoints are chosen.
type Balance struct {
	Algorithm balance.Algorithm
	Bounded   int           // per cent, see balance.Options
	Subset    int           // with RingHash, see balance.Options
	SlowStart time.Duration // 0: that of Config
}

// KeyOf gives the key for a backend of a rule with this policy.
func KeyOf(b *route.Backend, p *route.Policy) (Key, error) {
	a, err := balance.ParseAlgorithm(p.Balance.Algorithm)
	k := Key{
		Service:  b.Service,
		Port:     b.Port,
		External: b.External,
		Protocol: p.Protocol,
		Balance:  Balance{Algorithm: a},
	}
	if a == balance.RingHash || a == balance.Maglev {
		k.Balance.Bounded = p.Balance.Bounded
	}
	if a == balance.RingHash {
		k.Balance.Subset = p.Balance.Subset
	}
	if k.secure() {
		k.TLS = p.EndpointTLS
	}
	return k, err
}

func (k *Key) secure() bool { return k.Protocol == route.HTTPS || k.Protocol == route.H2 }

// Problem says why there is no endpoint; "": there is one.
type Problem string
