package hostdns

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// resolving is a machine and a name server that answer from tables.
type resolving struct {
	machine map[string]string // name to address
	server  map[string]string // name and type to data
	missing time.Duration     // how long the machine looks for what is not there
	recover int               // look-ups until the machine answers
}

func (r *resolving) check() *Check {
	return &Check{
		Want: want("127.0.0.54:53"), Method: Plain, Outside: "example.com",
		Machine: &Machine{Root: "/nowhere", OS: "linux", Run: func(ctx context.Context, args ...string) (string, error) {
			if a := r.machine[args[2]]; a != "" {
				if r.recover--; r.recover < 0 {
					return a + "  STREAM " + args[2] + "\n" + a + "  DGRAM\n", nil
				}
				return "", errors.New("exit status 2")
			}
			select {
			case <-time.After(r.missing):
			case <-ctx.Done():
			}
			return "", errors.New("exit status 2")
		}},
		Ask: func(_ context.Context, _ netip.AddrPort, name, qtype string) (string, []string, error) {
			switch data := r.server[name+" "+qtype]; {
			case r.server == nil:
				return "", nil, errors.New("connection refused")
			case data == "":
				return "NXDOMAIN", nil, nil
			default:
				return "NOERROR", []string{data}, nil
			}
		},
	}
}

const inside = "kubernetes.default.svc.cluster.local"

func TestCheck(t *testing.T) {
	good := map[string]string{"dns-version.cluster.local TXT": `"1.1.0"`, inside + " A": "10.96.0.1", "example.com A": "192.0.2.80"}
	without := func(k string) map[string]string {
		m := map[string]string{}
		for name, v := range good {
			if name != k {
				m[name] = v
			}
		}
		return m
	}
	before := map[string]string{"example.com": "192.0.2.80"}
	after := map[string]string{"example.com": "192.0.2.80", inside: "10.96.0.1"}
	for name, c := range map[string]struct {
		before, after resolving
		want          string // what is said, empty: all is well
	}{
		"all is well":                 {resolving{machine: before, server: good}, resolving{machine: after, server: good}, ""},
		"slow to start":               {resolving{machine: before, server: good}, resolving{machine: after, server: good, recover: 3}, ""},
		"no network":                  {resolving{server: without("example.com A"), missing: time.Hour}, resolving{machine: map[string]string{inside: "10.96.0.1"}, server: good, missing: time.Hour}, ""},
		"no server":                   {resolving{machine: before}, resolving{}, "does not answer"},
		"another zone":                {resolving{machine: before, server: without("dns-version.cluster.local TXT")}, resolving{}, "does not serve the zone"},
		"it does not forward":         {resolving{machine: before, server: without("example.com A")}, resolving{}, "--dns-upstream"},
		"nothing to check with":       {resolving{machine: before, server: without(inside + " A")}, resolving{}, "knows neither"},
		"the zone does not resolve":   {resolving{machine: before, server: good}, resolving{machine: before, server: good}, "resolves " + inside + " to nothing"},
		"to something else":           {resolving{machine: before, server: good}, resolving{machine: map[string]string{inside: "10.0.0.1"}, server: good}, "to 10.0.0.1"},
		"the rest does not":           {resolving{machine: before, server: good}, resolving{machine: map[string]string{inside: "10.96.0.1"}, server: good}, "does not resolve example.com any more"},
		"questions go in a circle":    {resolving{machine: before, server: good}, resolving{machine: after, server: good, missing: time.Hour}, "round in a circle"},
		"it took long before as well": {resolving{machine: before, server: good, missing: 5 * time.Second}, resolving{machine: after, server: good, missing: 5 * time.Second}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check := c.before.check()
				err := check.Before(t.Context())
				if err == nil {
					later := c.after.check()
					check.Machine, check.Ask = later.Machine, later.Ask
					err = check.After(t.Context())
				}
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
			})
		})
	}
}
