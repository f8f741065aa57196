package cert

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Config is what can be chosen. The zero value is good.
type Config struct {
	MinVersion   uint16        // 0: TLS 1.2
	MaxVersion   uint16        // 0: the newest
	CipherSuites []uint16      // of TLS 1.2; nil: those of crypto/tls
	Curves       []tls.CurveID // nil: those of crypto/tls
	Protocols    []string      // ALPN; nil: h2, http/1.1, http/1.0
	TicketPeriod time.Duration // after which a new key is used for tickets; 0: 6 h. Four are accepted.
	NoTickets    bool
	Now          func() time.Time // nil: time.Now
}

// Store gives certificates to handshakes.
type Store struct {
	config  Config
	now     func() time.Time
	own     *candidate // self-signed
	base    *tls.Config
	seed    maphash.Seed
	current atomic.Pointer[state]

	mu      sync.Mutex // one writer; guards what follows
	tickets tickets
	origins map[string]*held
	hosts   map[string]*class // all; nil for those that do not ask for client certificates
	known   []*class
}

// held is what came from one object.
type held struct {
	from  *route.Certificate
	made  *candidate
	names []string
}

// state is what handshakes look at. It is not changed.
type state struct {
	names    names
	fallback *candidate
	classes  map[string]*class // by host name
}

// names are the certificates of each name, best first, in many small maps: one
// change copies one of them.
type names [128]map[string][]*candidate

func (n *names) get(seed maphash.Seed, name string) []*candidate {
	return n[shard(seed, name)][name]
}

func shard(seed maphash.Seed, name string) int {
	return int(maphash.String(seed, name) % uint64(len(names{})))
}

// candidate is a certificate with what the choice needs.
type candidate struct {
	origin    string
	chain     *tls.Certificate
	rsa       bool
	notBefore time.Time
	notAfter  time.Time
}

// class is all hosts with one rule for client certificates.
type class struct {
	rule   *route.ClientCert
	config *tls.Config
	salt   [32]byte
}

// New makes a store with nothing but a self-signed certificate.
func New(c Config) (*Store, error) {
	s := &Store{config: c, now: c.Now, origins: map[string]*held{}, hosts: map[string]*class{}, seed: maphash.MakeSeed()}
	if s.now == nil {
		s.now = time.Now
	}
	own, err := selfSigned(s.now())
	if err != nil {
		return nil, fmt.Errorf("cert: default certificate: %w", err)
	}
	if s.own, err = newCandidate(own); err != nil {
		return nil, fmt.Errorf("cert: default certificate: %w", err)
	}
	s.current.Store(&state{fallback: s.own})
	s.base = s.newConfig()
	s.base.GetConfigForClient = s.ConfigFor
	s.rotate()
	return s, nil
}

func (s *Store) newConfig() *tls.Config {
	c := &tls.Config{
		MinVersion: s.config.MinVersion, MaxVersion: s.config.MaxVersion, CipherSuites: s.config.CipherSuites,
		CurvePreferences: s.config.Curves, NextProtos: s.config.Protocols, SessionTicketsDisabled: s.config.NoTickets,
		GetCertificate: s.Certificate, Time: s.config.Now,
	}
	if c.MinVersion == 0 {
		c.MinVersion = tls.VersionTLS12
	}
	if c.NextProtos == nil {
		c.NextProtos = []string{"h2", "http/1.1", "http/1.0"}
	}
	return c
}

// Config is for [tls.Server]: the same for all connections, for ever.
func (s *Store) Config() *tls.Config { return s.base }

// ConfigFor gives the prepared configuration of a host that asks for client
// certificates; nil for others. It is the GetConfigForClient of Config.
func (s *Store) ConfigFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	st := s.current.Load()
	if len(st.classes) == 0 {
		return nil, nil
	}
	name := canonical(hello.ServerName)
	if c, ok := st.classes[name]; ok {
		return c.configOrNil(), nil
	}
	if c, ok := st.classes[wildcard(name)]; ok {
		return c.configOrNil(), nil
	}
	return st.classes[""].configOrNil(), nil
}

func (c *class) configOrNil() *tls.Config {
	if c == nil {
		return nil
	}
	return c.config
}

// Certificate chooses the certificate for a handshake.
func (s *Store) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	st := s.current.Load()
	name := canonical(hello.ServerName)
	list := st.names.get(s.seed, name)
	if len(list) == 0 {
		list = st.names.get(s.seed, wildcard(name))
	}
	switch len(list) {
	case 0:
		return st.fallback.chain, nil
	case 1:
		return list[0].chain, nil
	}
	return s.choose(hello, list), nil
}

// choose takes the first that is valid now and that the client can check; else
// the first that it can check, so that the client's error names the right problem.
func (s *Store) choose(hello *tls.ClientHelloInfo, list []*candidate) *tls.Certificate {
	now := s.now()
	h := *hello
	h.ServerName = "" // which name it is for is decided already
	second := list[0]
	found := false
	for _, c := range list {
		if h.SupportsCertificate(c.chain) != nil {
			continue
		}
		if !now.Before(c.notBefore) && !now.After(c.notAfter) {
			return c.chain
		}
		if !found {
			second, found = c, true
		}
	}
	return second.chain
}

// Update takes over certificates and the rules for client certificates.
// Certificates without a chain are passed over: the source has named them.
func (s *Store) Update(u *route.Update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.current.Load()
	if u.Replace || len(u.Certificates) > 0 {
		s.takeCertificates(u, &next.names)
	}
	if u.Replace || len(u.Hosts) > 0 {
		next.classes = s.takeHosts(u, next.classes)
	}
	if u.Global != nil || u.Replace {
		next.fallback = s.own
		if u.Global != nil && u.Global.Certificate != nil {
			if c, err := newCandidate(u.Global.Certificate); err == nil {
				next.fallback = c
			}
		}
	}
	s.current.Store(&next)
}

// takeCertificates brings names up to date; maps and lists that others look at
// are made anew where it touches them.
func (s *Store) takeCertificates(u *route.Update, all *names) {
	touched := map[string][]*candidate{} // what is added
	gone := map[*candidate]bool{}
	drop := func(key string) {
		if old := s.origins[key]; old != nil {
			for _, n := range old.names {
				if _, ok := touched[n]; !ok {
					touched[n] = nil
				}
			}
			gone[old.made] = true
			delete(s.origins, key)
		}
	}
	if u.Replace {
		for key := range s.origins {
			if _, ok := u.Certificates[key]; !ok {
				drop(key)
			}
		}
	}
	for key, c := range u.Certificates {
		if old := s.origins[key]; old != nil && old.from == c {
			continue
		}
		drop(key)
		if c == nil || c.Chain == nil {
			continue
		}
		made, err := newCandidate(c.Chain)
		if err != nil {
			continue
		}
		made.origin = key
		h := &held{from: c, made: made, names: namesOf(c, made)}
		s.origins[key] = h
		for _, n := range h.names {
			touched[n] = append(touched[n], made)
		}
	}
	var copied [len(names{})]bool
	for n, added := range touched {
		i := shard(s.seed, n)
		if !copied[i] {
			copied[i] = true
			all[i] = maps.Clone(all[i])
			if all[i] == nil {
				all[i] = map[string][]*candidate{}
			}
		}
		var list []*candidate
		for _, c := range all[i][n] {
			if !gone[c] {
				list = append(list, c)
			}
		}
		if list = append(list, added...); len(list) == 0 {
			delete(all[i], n)
			continue
		}
		slices.SortFunc(list, func(a, b *candidate) int {
			return cmp.Or(a.cost()-b.cost(), b.notAfter.Compare(a.notAfter), cmp.Compare(a.origin, b.origin))
		})
		all[i][n] = list
	}
}

// cost orders certificates by what it takes to show them.
func (c *candidate) cost() int {
	if c.rsa {
		return 1
	}
	return 0
}

// takeHosts gives the classes after an update. A rule that says the same as
// before keeps its class, and so its sessions.
func (s *Store) takeHosts(u *route.Update, published map[string]*class) map[string]*class {
	before := s.hosts
	changed := u.Replace
	if u.Replace {
		s.hosts = make(map[string]*class, len(u.Hosts))
	}
	for name, h := range u.Hosts {
		name = canonical(name)
		old, was := before[name]
		switch {
		case h == nil:
			delete(s.hosts, name)
			changed = changed || was
		case h.ClientCert == nil:
			s.hosts[name] = nil
			changed = changed || !was || old != nil
		default:
			s.hosts[name] = s.class(h.ClientCert, old)
			changed = changed || s.hosts[name] != old
		}
	}
	if !changed {
		return published
	}
	used := map[*class]bool{}
	for _, c := range s.hosts {
		if c != nil {
			used[c] = true
		}
	}
	s.known = slices.DeleteFunc(s.known, func(c *class) bool { return !used[c] })
	if len(used) == 0 {
		return nil // nobody asks: handshakes need not look
	}
	return maps.Clone(s.hosts)
}

// class finds or makes the class of a rule.
func (s *Store) class(r *route.ClientCert, old *class) *class {
	if old != nil && sameAuthorities(old.rule, r) {
		if !slices.Contains(s.known, old) {
			s.known = append(s.known, old)
		}
		return old
	}
	for _, c := range s.known {
		if sameAuthorities(c.rule, r) {
			return c
		}
	}
	c := &class{rule: r, config: s.newConfig()}
	c.config.ClientAuth = tls.RequestClientCert
	c.config.ClientCAs = r.Roots
	c.salt = random()
	s.tickets.apply(c.config, c.salt)
	s.known = append(s.known, c)
	return c
}

// sameAuthorities says that a session of one rule is as good under the other.
func sameAuthorities(a, b *route.ClientCert) bool {
	if a == b {
		return true
	}
	if a.Required != b.Required || a.Depth != b.Depth || (a.Roots == nil) != (b.Roots == nil) {
		return false
	}
	return a.Roots == nil || a.Roots.Equal(b.Roots)
}

// namesOf are the names that a certificate is shown for.
func namesOf(c *route.Certificate, made *candidate) []string {
	names := c.Hosts
	if len(names) == 0 {
		names = made.chain.Leaf.DNSNames
	}
	out := make([]string, 0, len(names))
	for _, n := range names {
		if n = canonical(n); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func newCandidate(c *tls.Certificate) (*candidate, error) {
	if len(c.Certificate) == 0 {
		return nil, fmt.Errorf("cert: no certificate in the chain")
	}
	leaf := c.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		with := *c
		with.Leaf = leaf // so that handshakes need not parse it
		c = &with
	}
	_, isRSA := leaf.PublicKey.(*rsa.PublicKey)
	if _, ok := c.PrivateKey.(crypto.Signer); !ok {
		return nil, fmt.Errorf("cert: no private key")
	}
	return &candidate{chain: c, rsa: isRSA, notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}, nil
}

// canonical is how names are kept: lower case, without the dot of the root.
func canonical(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ".")
}

// wildcard is the name that covers this one and its sisters.
func wildcard(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return "*" + name[i:]
	}
	return "*"
}
