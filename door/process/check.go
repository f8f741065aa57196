package process

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// Check says how the supervisor finds out whether a process is well. The zero
// value is no check.
type Check struct {
	Type    v1alpha1.CheckType // http, tcp, grpc or exec; empty: none
	Scheme  string             // http or https
	Port    string             // number or name; the process's first TCP port if empty
	Path    string             // http
	Service string             // grpc; empty: the whole server
	Command []string           // exec

	Interval time.Duration // 1s if 0
	Timeout  time.Duration // 1s if 0
	Rise     int           // 1 if 0
	Fall     int           // 2 if 0 (3 for a live check)
	// Grace is how long after the start failures of a live check do not count,
	// unless it, or the ready check, has passed before: 30s if 0. For a ready
	// check it has no end: until it passes the process is starting.
	Grace time.Duration
}

// ParseCheck reads the short form of a check:
//
//	http:/path  http:PORT/path  https:/path  https:PORT/path
//	tcp  tcp:PORT  grpc  grpc:SERVICE  exec:COMMAND LINE
//
// PORT is a number or a port's name; COMMAND LINE is for sh -c.
func ParseCheck(s string) (Check, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "":
		return Check{}, errors.New("check is empty: want http:/path, tcp, grpc or exec:command")
	case "none":
		return Check{}, nil
	case "http", "https":
		c := Check{Type: v1alpha1.CheckHTTP, Scheme: kind}
		port, path, slash := strings.Cut(rest, "/")
		c.Port, c.Path = port, "/"
		if slash {
			c.Path += path
		}
		if strings.HasPrefix(rest, "//") {
			return Check{}, fmt.Errorf("check %q: it is always the process itself that is asked: want %s:/path or %s:PORT/path", s, kind, kind)
		}
		return c, nil
	case "tcp":
		return Check{Type: v1alpha1.CheckTCP, Port: rest}, nil
	case "grpc":
		return Check{Type: v1alpha1.CheckGRPC, Service: rest}, nil
	case "exec":
		if strings.TrimSpace(rest) == "" {
			return Check{}, fmt.Errorf("check %q: no command", s)
		}
		return Check{Type: v1alpha1.CheckExec, Command: []string{"sh", "-c", rest}}, nil
	}
	return Check{}, fmt.Errorf("check %q: must begin with http:, https:, tcp, grpc or exec:", s)
}

func (c *Check) none() bool { return c.Type == "" }

// String is the short form, for reasons.
func (c *Check) String() string {
	switch c.Type {
	case v1alpha1.CheckHTTP:
		return c.Scheme + ":" + c.Port + c.Path
	case v1alpha1.CheckTCP:
		return strings.TrimSuffix("tcp:"+c.Port, ":")
	case v1alpha1.CheckGRPC:
		return strings.TrimSuffix("grpc:"+c.Service, ":")
	case v1alpha1.CheckExec:
		return "exec:" + c.Command[len(c.Command)-1]
	}
	return "none"
}

func (c *Check) complete(ports []Port, fall int, grace time.Duration) error {
	switch c.Type {
	case "":
		return nil
	case v1alpha1.CheckExec:
		if len(c.Command) == 0 {
			return errors.New("no command")
		}
	case v1alpha1.CheckHTTP, v1alpha1.CheckTCP, v1alpha1.CheckGRPC:
		if c.Scheme == "" {
			c.Scheme = "http"
		}
		if c.Type == v1alpha1.CheckHTTP && c.Path == "" {
			c.Path = "/"
		}
		if _, err := c.port(ports); err != nil {
			return err
		}
	default:
		return fmt.Errorf("type %q: must be http, tcp, grpc or exec", c.Type)
	}
	c.Interval, c.Timeout = orDefault(c.Interval, time.Second), orDefault(c.Timeout, time.Second)
	if c.Interval < 10*time.Millisecond || c.Timeout < time.Millisecond {
		return fmt.Errorf("interval %s, timeout %s: too short", c.Interval, c.Timeout)
	}
	if c.Rise < 0 || c.Fall < 0 {
		return errors.New("rise and fall must be positive")
	}
	c.Grace = orDefault(c.Grace, grace)
	if c.Rise == 0 {
		c.Rise = 1
	}
	if c.Fall == 0 {
		c.Fall = fall
	}
	return nil
}

// port is the number to check, 0 if it will be allocated.
func (c *Check) port(ports []Port) (int32, error) {
	if c.Port == "" {
		for _, p := range ports {
			if p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP {
				return p.Number, nil
			}
		}
		return 0, errors.New("the process has no TCP port to check")
	}
	for _, p := range ports {
		if p.Name == c.Port {
			return p.Number, nil
		}
	}
	// A number need not be one of the registered ports: health is often
	// answered on a port of its own.
	n, err := strconv.ParseUint(c.Port, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q: no port has that name, and it is not a number from 1 to 65535", c.Port)
	}
	return int32(n), nil
}

// record is the check as the Instance carries it. Only exec checks are
// recorded, for people to see: the server would run the others too, from
// another machine perhaps, against an address that only this one has.
func (c *Check) record() *v1alpha1.Check {
	if c.Type != v1alpha1.CheckExec {
		return nil
	}
	return &v1alpha1.Check{
		Type: c.Type, Command: c.Command,
		Interval: &metav1.Duration{Duration: c.Interval}, Timeout: &metav1.Duration{Duration: min(c.Timeout, c.Interval)},
		Rise: int32(c.Rise), Fall: int32(c.Fall),
	}
}
