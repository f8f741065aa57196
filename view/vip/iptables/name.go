package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// Chains of which there is one.
const (
	chainServices    = "KUBE-SERVICES"
	chainExternal    = "KUBE-EXTERNAL-SERVICES"
	chainNodePorts   = "KUBE-NODEPORTS"
	chainPostrouting = "KUBE-POSTROUTING"
	chainMarkMasq    = "KUBE-MARK-MASQ"
	chainForward     = "KUBE-FORWARD"
	chainFirewall    = "KUBE-PROXY-FIREWALL"
	chainClusterIPs  = "KUBE-CLUSTER-IPS"
	chainOffCluster  = "KUBE-OFF-CLUSTER"
	chainProbe       = "KUBE-PROXY-CANARY"
)

// Beginnings of the names of chains of which there are many.
const (
	prefixService  = "KUBE-SVC-"
	prefixLocal    = "KUBE-SVL-"
	prefixExternal = "KUBE-EXT-"
	prefixFirewall = "KUBE-FW-"
	prefixEndpoint = "KUBE-SEP-"
)

// ours says whether a chain is one that this package writes.
func ours(chain string) bool {
	switch chain {
	case chainServices, chainExternal, chainNodePorts, chainPostrouting, chainMarkMasq, chainForward,
		chainFirewall, chainClusterIPs, chainOffCluster, chainProbe:
		return true
	}
	return perService(chain)
}

// perService says whether a chain is of a service.
func perService(chain string) bool {
	for _, p := range []string{prefixService, prefixLocal, prefixExternal, prefixFirewall, prefixEndpoint} {
		if strings.HasPrefix(chain, p) {
			return true
		}
	}
	return false
}

// hash makes what tells chains of one kind apart: a chain's name is at most 28
// bytes. It is kube-proxy's, so that what people have noted stays true.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
	}
	return base32.StdEncoding.EncodeToString(h.Sum(nil))[:16]
}

// portName names a service's port in comments: "namespace/name:port".
func portName(k catalog.Key, port string) string {
	s := k.String()
	if port != "" {
		s += ":" + port
	}
	return clean(s)
}

// clean keeps what a source of the catalog calls its things from becoming part
// of a rule.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_./:", r):
			return r
		}
		return '_'
	}, s)
	// With the words around it a comment has at most 255 bytes.
	return s[:min(len(s), 160)]
}
