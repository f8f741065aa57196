package join

import (
	"net/netip"
	"testing"
	"time"
)

// TestStartWithoutServer: a node that joined starts while its server is away,
// with the certificates it has.
func TestStartWithoutServer(t *testing.T) {
	w := serve(t)
	c := w.config(t, "n1", w.token(t, "abcdef", nil))
	first, err := Bootstrap(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	had, _ := first.GetCertificate(nil)
	c.Token, c.Server = "", "https://127.0.0.1:1"
	for name, tc := range map[string]struct {
		change  func(*Config)
		serving bool
	}{
		"soon":                 {func(*Config) {}, true},
		"when renewal is due":  {func(c *Config) { c.Now = func() time.Time { return renewalOf(had.Leaf).Add(time.Minute) } }, true},
		"with another address": {func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("127.0.0.9")) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := c
			tc.change(&c)
			id, err := Bootstrap(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := id.GetCertificate(nil)
			if err != nil || (got != nil) != tc.serving {
				t.Errorf("serves with %v, %v", got, err)
			}
			if id.Rest.Host != c.Server {
				t.Errorf("follows %s", id.Rest.Host)
			}
		})
	}
	c.Now = func() time.Time { return had.Leaf.NotAfter.Add(time.Hour) }
	if _, err := Bootstrap(t.Context(), c); err == nil {
		t.Error("it starts with a client certificate that ended")
	}
}
