package dns

import (
	"errors"
	"fmt"
	"time"

	"github.com/fingerpost/fingerpost/view/dns/forward"
)

// Settings are the part of Config that can change while the server runs. See
// there for what they mean.
type Settings struct {
	TTL       time.Duration
	Upstreams []string
	Forward   []forward.Zone
	Records   []string
	Pods      PodMode
	Autopath  bool
	CacheSize int
	QueryLog  QueryLog
}

// Settings gives the changeable part of a configuration.
func (c *Config) Settings() Settings {
	return Settings{
		TTL: c.TTL, Upstreams: c.Upstreams, Forward: c.Forward, Records: c.Records, Pods: c.Pods, Autopath: c.Autopath,
		CacheSize: c.CacheSize, QueryLog: c.QueryLog,
	}
}

// With is the configuration with other settings.
func (c Config) With(set Settings) Config {
	c.TTL, c.Upstreams, c.Forward, c.Records, c.Pods, c.Autopath = set.TTL, set.Upstreams, set.Forward, set.Records, set.Pods, set.Autopath
	c.CacheSize, c.QueryLog = set.CacheSize, set.QueryLog
	return c
}

var errNoForwarder = errors.New("this server was started without upstreams: start it again to forward")

func (c *Config) checkTTL() error {
	if c.TTL == 0 {
		c.TTL = 5 * time.Second
	}
	if c.TTL < time.Second || c.TTL > 24*time.Hour {
		return fmt.Errorf("view/dns: TTL %v: it must be between 1s and 24h", c.TTL)
	}
	return nil
}

// Reload takes other settings, all at once or, if one of them makes no sense,
// none. Questions go on being answered meanwhile, by the old ones or the new.
func (s *Server) Reload(set Settings) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	cfg := s.cfg.With(set)
	if err := cfg.checkTTL(); err != nil {
		return err
	}
	ttl := uint32(cfg.TTL / time.Second)
	opts, err := newOptions(&cfg)
	if err != nil {
		return fmt.Errorf("view/dns: %w", err)
	}
	records, err := parseCustoms(cfg.Records, ttl)
	if err != nil {
		return fmt.Errorf("view/dns: %w", err)
	}
	// The forwarder is the last that can say no, and the first to change.
	switch {
	case s.forward != nil:
		if err := s.forward.Reload(s.forwardConfig(&cfg)); err != nil {
			return fmt.Errorf("view/dns: %w", err)
		}
	case len(cfg.Upstreams)+len(cfg.Forward) > 0:
		return fmt.Errorf("view/dns: %w", errNoForwarder)
	}
	s.stubs.Store(len(cfg.Forward) > 0)
	s.forwards()
	s.index.options.Store(opts)
	s.index.customs.Store(records)
	s.queries.mode.Store(cfg.QueryLog.mode)
	if s.index.ttl.Swap(ttl) != ttl {
		s.index.build.ttl = ttl
		if s.shown != nil { // every entry holds records that are ready to send
			for e := range s.shown.All() {
				s.index.service(e.Service.Key, e)
			}
		}
	}
	return nil
}
