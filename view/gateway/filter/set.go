package filter

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Config is what holds for all rules. The zero value works.
type Config struct {
	// Trusted are the addresses whose X-Forwarded-* fields are believed: load
	// balancers in front of the gateway.
	Trusted []netip.Prefix
	// HTTPPort and HTTPSPort are what clients connect to, if that is not where
	// the gateway listens; redirects to https go to HTTPSPort, 443 if it is 0.
	HTTPPort, HTTPSPort uint16
	// NoRequestID leaves X-Request-ID alone.
	NoRequestID bool
	// Trace adds a traceparent to requests that have none. A valid one passes as
	// it is: the gateway makes no spans, so it must not stand between two.
	Trace bool
	// Forwarded adds the field of RFC 7239.
	Forwarded bool
	// Underscores lets fields with "_" in their names pass. Applications that
	// turn "-" into "_" would take X_Real_IP for X-Real-IP, so nginx and this
	// drop them.
	Underscores bool
	// HSTS is the value of Strict-Transport-Security in answers over https, "":
	// none.
	HSTS string
	// Key hides endpoints in affinity cookies; at least 16 bytes. Gateways that
	// share clients need the same one. nil: random, so that clients change their endpoint
	// when the process starts anew.
	Key []byte
	// Slots bounds the clients that limits remember; 0: 65536 (32 bytes each).
	Slots int
	// Cached bounds the remembered passwords, and the remembered answers of
	// authentication servers; 0: 4096 each.
	Cached int
}

// Set is what the chains of one gateway share.
type Set struct {
	cfg     Config
	trusted ranges
	limits  *limits
	basic   *verdicts
	auth    *answers
	seal    cipher.Block // of affinity cookies
}

// New makes a set.
func New(cfg Config) (*Set, error) {
	if cfg.Key != nil && len(cfg.Key) < 16 {
		return nil, errors.New("filter: the key of affinity cookies is shorter than 16 bytes: give a longer one, or none")
	}
	if cfg.Slots <= 0 {
		cfg.Slots = 65536
	}
	if cfg.Cached <= 0 {
		cfg.Cached = 4096
	}
	s := &Set{cfg: cfg, trusted: newRanges(cfg.Trusted)}
	key := cfg.Key
	if key == nil {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails since Go 1.24
	}
	sum := sha256.Sum256(key)
	var err error
	if s.seal, err = aes.NewCipher(sum[:16]); err != nil {
		return nil, fmt.Errorf("filter: make the cipher of affinity cookies: %w", err)
	}
	s.limits = newLimits(cfg.Slots)
	s.basic = newVerdicts(cfg.Cached)
	s.auth = newAnswers(cfg.Cached)
	return s, nil
}

// Compile makes the chain of a rule. An error says what of the policy cannot
// be done, and that the rule must not be served without it.
func (s *Set) Compile(h *route.Host, r *route.Rule) (*Chain, error) { return compile(s, h, r) }

// Check is Compile for those who only want to know whether that works.
func (s *Set) Check(h *route.Host, r *route.Rule) error {
	p := r.Policy
	if r.Redirect == nil && (p == nil || p.AppRoot == "" && p.Rewrite == nil && p.UpstreamHost == "" && len(p.Allow) == 0 && p.Auth == nil && p.CORS == nil &&
		p.Balance.HashBy == "" && p.ForwardPrefix == "" && len(p.RequestFields) == 0 && len(p.ResponseFields) == 0) {
		return nil // nothing that could go wrong
	}
	_, err := compile(s, h, r)
	return err
}
