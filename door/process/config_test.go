package process

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/fingerpost/fingerpost/door/process/claim/claimtest"
)

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for want, spoil := range map[string]func(*Config){
		"would do":             func(c *Config) { c.Service = "web-1X" },
		"no command":           func(c *Config) { c.Command = nil },
		"executable file not":  func(c *Config) { c.Command = []string{"no-such-program-here"} },
		"replicas":             func(c *Config) { c.Replicas = -1 },
		"no port given":        func(c *Config) { c.Ports = nil },
		"need names":           func(c *Config) { c.Ports = []Port{{}, {}} },
		"two ports are called": func(c *Config) { c.Ports = []Port{{Name: "a"}, {Name: "a"}} },
		"is given twice":       func(c *Config) { c.Ports = []Port{{Name: "a", Number: 1}, {Name: "b", Number: 1}} },
		"listen on $PORT":      func(c *Config) { c.Replicas, c.Ports = 2, []Port{{Number: 80}} },
		"that clients can":     func(c *Config) { c.Address = netip.IPv4Unspecified() },
		"weight":               func(c *Config) { w := int32(-1); c.Weight = &w },
		"service port":         func(c *Config) { c.ServicePort = 70000 },
		"put {n} where":        func(c *Config) { c.Replicas, c.Hostname = 2, "w" },
		"host name":            func(c *Config) { c.Hostname = "w_{n}" },
		"no port has that name": func(c *Config) {
			c.Ready = Check{Type: "tcp", Port: "x"}
		},
		"no TCP port to check": func(c *Config) { c.Ports, c.Ready = []Port{{Protocol: "UDP"}}, Check{Type: "tcp"} },
		"live check: type":     func(c *Config) { c.Live = Check{Type: "ttl"} },
		"restart policy":       func(c *Config) { c.Restart = "maybe" },
		"ttl":                  func(c *Config) { c.TTL = 1 },
		"no client":            func(c *Config) { c.Client = nil },
	} {
		c := Config{Service: "web", Command: []string{"sh"}, Ports: []Port{{}}, Address: loopback, Client: &claimtest.API{}}
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]Port{
		"8080":       {Number: 8080, Protocol: "TCP"},
		"http=8080":  {Name: "http", Number: 8080, Protocol: "TCP"},
		"0":          {Protocol: "TCP"},
		"dns=53/UDP": {Name: "dns", Number: 53, Protocol: "UDP"},
		"1/sctp":     {Number: 1, Protocol: "SCTP"},
		"":           {}, "x": {}, "-1": {}, "65536": {}, "=1": {}, "A=1": {}, "a=": {}, "1/": {}, "1/icmp": {}, "a=1=2": {},
	} {
		got, err := ParsePort(in)
		if bad := want == (Port{}); got != want || (err != nil) != bad {
			t.Errorf("ParsePort(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseCheck(t *testing.T) {
	for in, want := range map[string]string{
		"http:/healthz":      "http:/healthz",
		"http:8081/x?a=b":    "http:8081/x?a=b",
		"http:":              "http:/",
		"http":               "http:/",
		"https:admin/":       "https:admin/",
		"tcp":                "tcp",
		"tcp:admin":          "tcp:admin",
		"grpc":               "grpc",
		"grpc:acme.v1.Shop":  "grpc:acme.v1.Shop",
		"exec:test -f ready": "exec:test -f ready",
		"none":               "none",
		"":                   "!", "ftp:/": "!", "exec:": "!", "exec: ": "!", "http://localhost:80/": "!",
	} {
		c, err := ParseCheck(in)
		if got := c.String(); (err != nil) != (want == "!") || err == nil && got != want {
			t.Errorf("ParseCheck(%q) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"http=8080/udp", "http:8081/x", "exec:a b", "grpc:", "https:x", "\xff=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePort(s); err == nil {
			if err := validatePorts([]Port{p}, 1); err != nil {
				t.Errorf("ParsePort(%q) lets through what is not valid: %v", s, err)
			}
		}
		c, err := ParseCheck(s)
		if err != nil {
			return
		}
		again, err := ParseCheck(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("ParseCheck(%q) gives %q, and that gives %q, %v", s, c.String(), again.String(), err)
		}
		_ = c.complete([]Port{{Name: "a", Number: 1}}, 2, 0)
		expand([]string{s}, []Port{{Name: "a", Number: 1}})
	})
}

func TestLocalAddress(t *testing.T) {
	for in, want := range map[string]string{
		"https://127.0.0.1:6443": "127.0.0.1",
		"https://[::1]:6443":     "127.0.0.1",
		"http://127.8.9.10":      "127.0.0.1",
		"127.0.0.1:8001":         "127.0.0.1",
		"https://localhost:6443": "127.0.0.1",
	} {
		got, err := LocalAddress(t.Context(), in)
		if err != nil && strings.Contains(in, "[::1]") {
			continue // a machine without IPv6
		}
		if err != nil || got.String() != want {
			t.Errorf("LocalAddress(%s) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "https://", "::::"} {
		if got, err := LocalAddress(context.Background(), in); err == nil || !strings.Contains(err.Error(), "--address") {
			t.Errorf("LocalAddress(%q) = %v, %v", in, got, err)
		}
	}
}

func TestAllocatorNeverRepeats(t *testing.T) {
	a := allocator{addr: loopback, taken: map[int32]bool{}}
	seen := map[int32]bool{}
	for range 100 {
		ports := []Port{{}, {Number: 7}, {Protocol: "UDP"}}
		if err := a.take(ports); err != nil {
			t.Fatal(err)
		}
		if ports[1].Number != 7 {
			t.Fatal("a fixed port was changed")
		}
		for _, p := range []Port{ports[0], ports[2]} {
			if seen[p.Number] {
				t.Fatalf("%d is given twice", p.Number)
			}
			seen[p.Number] = true
		}
	}
	far := allocator{addr: netip.MustParseAddr("192.0.2.1"), taken: map[int32]bool{}}
	ports := []Port{{}}
	if err := far.take(ports); err != nil || ports[0].Number == 0 {
		t.Errorf("behind a NAT: %v, %v", ports, err)
	}
}

func TestPrefixWriterKeepsLinesWhole(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	a, b := &prefixWriter{mu: &mu, to: &out, prefix: "a | "}, &prefixWriter{mu: &mu, to: &out, prefix: "b | "}
	for _, w := range []struct {
		to   *prefixWriter
		text string
	}{{a, "one "}, {b, "1\n2"}, {a, "line\n\ntwo\n"}, {b, "\n"}, {a, "rest"}} {
		if n, err := w.to.Write([]byte(w.text)); n != len(w.text) || err != nil {
			t.Fatal(n, err)
		}
	}
	a.Flush()
	b.Flush()
	if got, want := out.String(), "b | 1\na | one line\na | \na | two\nb | 2\na | rest\n"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	out.Reset()
	_, _ = a.Write(bytes.Repeat([]byte("x"), lineMax))
	if out.Len() == 0 {
		t.Error("a line without end is held back for ever")
	}
}
