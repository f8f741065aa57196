package process

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process/claim"
)

// Restart says what to do when a process ends by itself.
type Restart string

// The restart policies.
const (
	RestartAlways    Restart = "always"
	RestartOnFailure Restart = "on-failure" // unless it exits with 0
	RestartNever     Restart = "never"
)

// Config says what to run and how to register it. Service, Command, Ports,
// Address and Client are required.
type Config struct {
	Service   string
	Namespace string // "default" if empty

	Command []string // program and arguments; $PORT, $PORT_NAME, {port} and {port.NAME} are replaced
	Dir     string   // working directory; that of the supervisor if empty
	Env     []string // KEY=value; the supervisor's own if nil
	// ServiceEnv gives the variables of the services known at each start
	// (WEB_SERVICE_HOST …). Env wins over them. May be nil.
	ServiceEnv func() []string

	Replicas    int    // 1 if 0
	Ports       []Port // the first one names the Instance and is checked by default
	ServicePort int32  // port of the Service created for it; 0: the process's own if fixed, else 8080

	Address  netip.Addr // where clients reach the process
	NodeName string     // this machine; its host name in lower case if empty
	Zone     string
	Weight   *int32
	Metadata map[string]string
	Hostname string // DNS host name of a replica, {n} is its number; none if empty

	Ready Check // zero: Up as soon as it runs
	Live  Check // zero: only the end of the process counts

	Restart     Restart       // RestartAlways if empty
	StopTimeout time.Duration // between SIGTERM and SIGKILL; 10s if 0
	DrainDelay  time.Duration // between Terminating and SIGTERM; 700ms if 0, none if negative
	TTL         time.Duration // of the claim; 15s if 0

	Client claim.Client
	Stdout io.Writer // of the processes; os.Stdout if nil
	Stderr io.Writer // os.Stderr if nil
	Log    *slog.Logger
}

func (c *Config) complete() error {
	if c.Namespace == "" {
		c.Namespace = "default"
	}
	if e := validation.IsDNS1035Label(c.Service); e != nil {
		return fmt.Errorf("door/process: service name %q: %s; %q would do", c.Service, strings.Join(e, ", "), v1alpha1.Slug(c.Service))
	}
	if len(c.Command) == 0 || c.Command[0] == "" {
		return errors.New("door/process: no command to run: put it after --")
	}
	if err := lookCommand(c.Command[0], c.Dir); err != nil {
		return fmt.Errorf("door/process: %w", err)
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Replicas < 0 || c.Replicas > 1000 {
		return fmt.Errorf("door/process: %d replicas: must be 1 to 1000", c.Replicas)
	}
	if err := validatePorts(c.Ports, c.Replicas); err != nil {
		return err
	}
	if c.ServicePort < 0 || c.ServicePort > 65535 {
		return fmt.Errorf("door/process: service port %d: must be 1 to 65535", c.ServicePort)
	}
	if !c.Address.IsValid() || c.Address.IsUnspecified() || c.Address.IsMulticast() {
		return fmt.Errorf("door/process: address %q: must be an IP address that clients can reach", c.Address)
	}
	if c.Weight != nil && (*c.Weight < 0 || *c.Weight > 65535) {
		return fmt.Errorf("door/process: weight %d: must be 0 to 65535, 100 is the norm", *c.Weight)
	}
	if c.NodeName == "" {
		c.NodeName = NodeName()
	}
	if c.Hostname != "" {
		if c.Replicas > 1 && !strings.Contains(c.Hostname, "{n}") {
			return fmt.Errorf("door/process: host name %q for %d replicas: put {n} where the replica's number goes", c.Hostname, c.Replicas)
		}
		if e := validation.IsDNS1123Label(strings.ReplaceAll(c.Hostname, "{n}", "0")); e != nil {
			return fmt.Errorf("door/process: host name %q: %s", c.Hostname, strings.Join(e, ", "))
		}
	}
	for _, k := range []struct {
		name  string
		check *Check
		fall  int
		grace time.Duration
	}{{"ready", &c.Ready, 2, -1}, {"live", &c.Live, 3, 30 * time.Second}} {
		if err := k.check.complete(c.Ports, k.fall, k.grace); err != nil {
			return fmt.Errorf("door/process: %s check: %w", k.name, err)
		}
	}
	switch c.Restart {
	case "":
		c.Restart = RestartAlways
	case RestartAlways, RestartOnFailure, RestartNever:
	default:
		return fmt.Errorf("door/process: restart policy %q: must be always, on-failure or never", c.Restart)
	}
	c.StopTimeout = orDefault(c.StopTimeout, 10*time.Second)
	c.DrainDelay = max(0, orDefault(c.DrainDelay, 700*time.Millisecond))
	c.TTL = orDefault(c.TTL, 15*time.Second)
	if c.TTL < time.Second {
		return fmt.Errorf("door/process: ttl %s: must be at least 1s", c.TTL)
	}
	if c.Client == nil {
		return errors.New("door/process: no client given")
	}
	if c.Stdout == nil {
		c.Stdout = os.Stdout
	}
	if c.Stderr == nil {
		c.Stderr = os.Stderr
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// lookCommand finds out early that there is no such program, so that a typing
// error is told at once instead of being retried for ever.
func lookCommand(name, dir string) error {
	if dir != "" && strings.ContainsRune(name, filepath.Separator) && !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	if _, err := exec.LookPath(name); err != nil && !errors.Is(err, exec.ErrDot) {
		return fmt.Errorf("cannot run %q: %w", name, errors.Unwrap(err))
	}
	return nil
}

// NodeName is the name of this machine as a node: its host name in lower case.
func NodeName() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return strings.ToLower(h)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
