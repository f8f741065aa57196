package process

import (
	"context"
	"errors"
	"net/netip"

	"github.com/fingerpost/fingerpost/health/probe"
)

// probe makes the function that asks once whether the process is well.
func (c *Check) probe(addr netip.Addr, ports []Port, dir string, env []string) func(context.Context) error {
	t := probe.Target{
		Addr: addr.String(), TLS: c.Scheme == "https", Path: c.Path, Service: c.Service,
		Command: c.Command, Dir: dir, Env: env,
	}
	number, err := c.port(ports)
	ask := probe.All()[string(c.Type)]
	if len(c.Command) > 0 {
		err = nil // an exec check needs no port
	}
	t.Port = uint16(number)
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		if r := ask(ctx, t); !r.OK {
			return errors.New(r.Output)
		}
		return nil
	}
}
