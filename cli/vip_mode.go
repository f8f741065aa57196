package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/fingerpost/fingerpost/server"
)

// addVIPFlags adds those that say how virtual IPs are served.
func addVIPFlags(fs *pflag.FlagSet, c *server.Config) {
	fs.StringVar(&c.ProxyMode, "proxy-mode", server.ProxyAuto, "how virtual IPs are served: "+strings.Join(server.ProxyModes(), ", "))
	fs.BoolVar(&c.ProxyCounters, "proxy-counters", false, "with nftables, count the connections of each endpoint for 'fingerpost vip show'; other modes do so anyway")
}

func checkVIP(c *server.Config) error {
	if m := c.ProxyMode; m != "" && !slices.Contains(server.ProxyModes(), m) {
		return fmt.Errorf("--proxy-mode %q: want one of %s", m, strings.Join(server.ProxyModes(), ", "))
	}
	return nil
}
