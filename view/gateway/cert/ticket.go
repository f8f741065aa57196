package cert

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"time"
)

// accepted is how many keys open tickets; the first makes them.
const accepted = 4

// tickets are the secrets from which the keys of all classes are derived,
// newest first. They never leave the process.
type tickets struct{ secrets [][32]byte }

func random() (k [32]byte) {
	_, _ = rand.Read(k[:]) // never fails: crypto/rand ends the process instead
	return k
}

// apply gives a configuration its keys. Another salt makes keys that do not
// open these tickets.
func (t *tickets) apply(c *tls.Config, salt [32]byte) {
	if c.SessionTicketsDisabled || len(t.secrets) == 0 {
		return
	}
	keys := make([][32]byte, len(t.secrets))
	for i, s := range t.secrets {
		m := hmac.New(sha256.New, s[:])
		m.Write(salt[:])
		m.Sum(keys[i][:0])
	}
	c.SetSessionTicketKeys(keys)
}

// rotate makes a new secret and forgets the oldest.
func (s *Store) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets.secrets = append([][32]byte{random()}, s.tickets.secrets...)
	if len(s.tickets.secrets) > accepted {
		s.tickets.secrets = s.tickets.secrets[:accepted]
	}
	s.tickets.apply(s.base, [32]byte{})
	for _, c := range s.known {
		s.tickets.apply(c.config, c.salt)
	}
}

// Run rotates the keys of tickets until the context ends.
func (s *Store) Run(ctx context.Context) error {
	period := s.config.TicketPeriod
	if period <= 0 {
		period = 6 * time.Hour
	}
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.rotate()
		}
	}
}
