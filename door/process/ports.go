package process

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Port is one port of the process. Number 0: a free one is taken at each
// replica's start and told to it in $PORT and $PORT_NAME.
type Port struct {
	Name     string // may be empty if there is one port
	Number   int32
	Protocol corev1.Protocol // TCP if empty
}

// ParsePort reads "8080", "http=8080", "0", "http=0", each with "/udp",
// "/tcp" or "/sctp" behind it or not.
func ParsePort(s string) (Port, error) {
	p := Port{Protocol: corev1.ProtocolTCP}
	rest, proto, ok := strings.Cut(s, "/")
	if ok {
		switch p.Protocol = corev1.Protocol(strings.ToUpper(proto)); p.Protocol {
		case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			return Port{}, fmt.Errorf("port %q: the protocol must be tcp, udp or sctp", s)
		}
	}
	number := rest
	if name, after, ok := strings.Cut(rest, "="); ok {
		if e := validation.IsDNS1123Label(name); e != nil {
			return Port{}, fmt.Errorf("port %q: name: %s", s, strings.Join(e, ", "))
		}
		p.Name, number = name, after
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return Port{}, fmt.Errorf("port %q: must be a number from 0 to 65535, or name=number; 0 takes a free port", s)
	}
	p.Number = int32(n)
	return p, nil
}

func validatePorts(ports []Port, replicas int) error {
	if len(ports) == 0 {
		return errors.New("door/process: no port given; 0 takes a free one")
	}
	names, numbers := map[string]bool{}, map[Port]bool{}
	for _, p := range ports {
		if p.Name == "" && len(ports) > 1 {
			return errors.New("door/process: several ports need names: name=number")
		}
		if names[p.Name] {
			return fmt.Errorf("door/process: two ports are called %q", p.Name)
		}
		names[p.Name] = true
		if p.Number < 0 || p.Number > 65535 {
			return fmt.Errorf("door/process: port %d: must be 0 to 65535", p.Number)
		}
		if p.Number == 0 {
			continue
		}
		if replicas > 1 {
			return fmt.Errorf("door/process: %d replicas cannot all listen on port %d: give port 0 and let the program listen on $PORT", replicas, p.Number)
		}
		if k := (Port{Number: p.Number, Protocol: p.Protocol}); numbers[k] {
			return fmt.Errorf("door/process: port %d is given twice", p.Number)
		} else {
			numbers[k] = true
		}
	}
	return nil
}

// allocator hands out free ports of one address, none of them twice at a time.
type allocator struct {
	addr  netip.Addr
	taken map[int32]bool
}

// take fills in the numbers of ports that are 0, in place. It keeps every
// socket open until it has all, so that the kernel gives different ones.
func (a *allocator) take(ports []Port) error {
	var open []interface{ Close() error }
	defer func() {
		for _, s := range open {
			s.Close()
		}
	}()
	for i := range ports {
		for tries := 0; ports[i].Number == 0; tries++ {
			n, s, err := a.listen(ports[i].Protocol)
			if err != nil {
				return fmt.Errorf("door/process: find a free port on %s: %w", a.addr, err)
			}
			open = append(open, s)
			if !a.taken[n] {
				a.taken[n] = true
				ports[i].Number = n
			} else if tries > 1000 {
				return fmt.Errorf("door/process: find a free port on %s: none is left", a.addr)
			}
		}
	}
	return nil
}

func (a *allocator) listen(proto corev1.Protocol) (int32, interface{ Close() error }, error) {
	// An address that is not of this machine (a NAT's, say) cannot be listened
	// on; the process will listen on some local one, so any will do.
	for _, host := range []string{a.addr.String(), ""} {
		at := net.JoinHostPort(host, "0")
		if proto == corev1.ProtocolUDP {
			c, err := net.ListenPacket("udp", at)
			if err == nil {
				return int32(c.LocalAddr().(*net.UDPAddr).Port), c, nil
			}
			if host == "" || !errors.Is(err, syscall.EADDRNOTAVAIL) {
				return 0, nil, err
			}
			continue
		}
		l, err := net.Listen("tcp", at)
		if err == nil {
			return int32(l.Addr().(*net.TCPAddr).Port), l, nil
		}
		if host == "" || !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return 0, nil, err
		}
	}
	return 0, nil, syscall.EADDRNOTAVAIL
}

// busy gives the first TCP port on which something listens already: whatever
// it is, it would pass the checks in place of our process.
func busy(addr netip.Addr, ports []Port) (Port, bool) {
	for _, p := range ports {
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != "" {
			continue
		}
		l, err := net.Listen("tcp", netip.AddrPortFrom(addr, uint16(p.Number)).String())
		if err == nil {
			l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) {
			return p, true
		}
	}
	return Port{}, false
}

// portEnv gives PORT=… (the first) and PORT_NAME=… of each named port.
func portEnv(ports []Port) []string {
	env := []string{"PORT=" + strconv.Itoa(int(ports[0].Number))}
	for _, p := range ports {
		if p.Name != "" {
			env = append(env, "PORT_"+envName(p.Name)+"="+strconv.Itoa(int(p.Number)))
		}
	}
	return env
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

var portReference = regexp.MustCompile(`\$\{PORT(?:_([A-Z0-9_]+))?\}|\$PORT(?:_([A-Z0-9_]+))?\b|\{port(?:\.([a-z0-9-]+))?\}`)

// expand replaces references to ports in arguments. What it does not know it
// leaves alone.
func expand(args []string, ports []Port) []string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = portReference.ReplaceAllStringFunc(a, func(ref string) string {
			m := portReference.FindStringSubmatch(ref)
			name := envName(m[1] + m[2] + m[3])
			if name == "" {
				return strconv.Itoa(int(ports[0].Number))
			}
			for _, p := range ports {
				if envName(p.Name) == name {
					return strconv.Itoa(int(p.Number))
				}
			}
			return ref
		})
	}
	return out
}
