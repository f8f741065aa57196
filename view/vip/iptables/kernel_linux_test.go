package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/catalog/viewtest"
)

// alone puts the test into a network namespace of its own: its thread, which
// ends with it.
func alone(t testing.TB) {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// eachFlavour runs a test in a namespace for each flavour.
func eachFlavour(t *testing.T, f func(t *testing.T, flavour string)) {
	for _, flavour := range []string{Legacy, NFT} {
		t.Run(flavour, func(t *testing.T) {
			program(t, flavour, "")
			alone(t)
			f(t, flavour)
		})
	}
}

func run(t testing.TB, stdin string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// rig is a driver with a catalog.
type rig struct {
	t testing.TB
	d *Driver
	c *catalog.Catalog
	s *catalog.Subscription
}

func newRig(t testing.TB, flavour string) *rig {
	t.Helper()
	d, err := New(Config{Node: "a", Flavour: flavour, PodCIDRs: prefixes("10.244.0.0/16"), ServiceCIDRs: prefixes("10.96.0.0/12")})
	if err != nil {
		t.Fatal(err)
	}
	c := catalog.New(nil)
	return &rig{t, d, c, c.Subscribe()}
}

func (r *rig) do(f func(*catalog.Txn)) {
	r.t.Helper()
	r.c.Update(f)
	if err := r.d.Apply(context.Background(), r.s.TryNext()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) put(s *catalog.Service, eps ...string) {
	r.t.Helper()
	r.do(func(tx *catalog.Txn) { tx.PutService(s); tx.PutEndpoints(s.Key, endpoints(eps...)) })
}

// TestProbabilities: what a person sees who looks with iptables-save.
func TestProbabilities(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		r := newRig(t, flavour)
		r.put(service(nil), "10.244.0.1", "10.244.0.2", "10.244.0.3")
		out := run(t, "", program(t, flavour, "iptables-save")...)
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^-A KUBE-SVC-\S+ -m comment --comment "shop/web:http -> (\S+)"(?: -m statistic --mode random --probability (\S+))? -j KUBE-SEP-`).FindAllStringSubmatch(out, -1) {
			got = append(got, strings.TrimSpace(m[1]+" "+m[2]))
		}
		want := "10.244.0.1:8080 0.33333333349, 10.244.0.2:8080 0.50000000000, 10.244.0.3:8080"
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("iptables-save shows %q, want %q:\n%s", s, want, out)
		}
	})
}

const foreign = `*filter
:DOCKER-USER - [0:0]
:KUBELET-LIKE - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -m comment --comment "say -j KUBE-SERVICES here" -j ACCEPT
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -s 192.0.2.0/24 -j DROP
COMMIT
*nat
:CNI-HOSTPORT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT
-A CNI-HOSTPORT -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.244.0.9:80
COMMIT
`

// saveOf is what iptables-save says, without the time.
func saveOf(t testing.TB, flavour string) string {
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(run(t, "", program(t, flavour, "iptables-save")...), "")
}

func TestCleanup(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		restore := append(program(t, flavour, "iptables-restore"), "--noflush")
		run(t, foreign, restore...)
		before := saveOf(t, flavour)
		r := newRig(t, flavour)
		r.put(service(func(s *catalog.Service) {
			s.Affinity, s.Type, s.LoadBalancerIPs, s.Ports[0].NodePort = time.Hour, catalog.LoadBalancer, addrs("203.0.113.5"), 30080
			s.SourceRanges = prefixes("192.0.2.0/24")
		}), "10.244.0.1", "10.244.0.2")
		if during := saveOf(t, flavour); during == before {
			t.Fatal("nothing was written")
		}
		for range 2 { // the second time there is nothing to do
			if err := Cleanup(Config{Flavour: flavour}); err != nil {
				t.Fatal(err)
			}
			if after := saveOf(t, flavour); after != before {
				t.Errorf("after the clean-up:\n%s\nbefore everything:\n%s", after, before)
			}
		}
		// A chain that others use stays.
		r = newRig(t, flavour)
		r.put(service(nil), "10.244.0.1")
		run(t, "*nat\n-A CNI-HOSTPORT -s 10.244.0.0/16 -j KUBE-MARK-MASQ\nCOMMIT\n", restore...)
		if err := Cleanup(Config{Flavour: flavour}); err != nil {
			t.Fatal(err)
		}
		after := saveOf(t, flavour)
		if !strings.Contains(after, "-A CNI-HOSTPORT -s 10.244.0.0/16 -j KUBE-MARK-MASQ") || strings.Contains(after, "KUBE-SVC") {
			t.Errorf("after the clean-up with a user of KUBE-MARK-MASQ:\n%s", after)
		}
	})
}

// TestDrift: whatever others do to the rules, the next look puts them right.
func TestDrift(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		iptables := program(t, flavour, "iptables")
		r := newRig(t, flavour)
		r.put(service(func(s *catalog.Service) { s.Ports[0].NodePort = 30080 }), "10.244.0.1", "10.244.0.2")
		r.d.tick()
		want := saveOf(t, flavour)
		svc := prefixService + hash("shop/web:http", "tcp")
		for _, harm := range []string{
			"-t nat -F", "-t filter -F", "-t nat -F KUBE-SERVICES", "-t nat -F " + svc, "-t nat -D " + svc + " 2",
			"-t nat -D PREROUTING 1", "-t filter -D FORWARD 1", "-t nat -A " + svc + " -j RETURN", "-t nat -N KUBE-SVC-STRANGER",
		} {
			run(t, "", append(append(iptables[:2:2], "-w", "60"), strings.Fields(harm)...)...)
			if saveOf(t, flavour) == want {
				t.Fatalf("iptables %s did no harm", harm)
			}
			for _, f := range r.d.families {
				f.soonest = time.Time{}
			}
			r.d.tick()
			if got := saveOf(t, flavour); got != want {
				// A jump that was put back is the first again.
				if sorted(got) != sorted(want) {
					t.Errorf("after iptables %s and a look:\n%s\nwant:\n%s", harm, got, want)
				}
				want = got
			}
		}
		for _, f := range r.d.families {
			f.soonest = time.Time{}
		}
		r.d.tick() // learns what the chains look like
		// A rule replaced by another: the number stays, the comparison sees it.
		run(t, "", append(append(iptables[:2:2], "-w", "60"), strings.Fields("-t nat -R "+svc+" 2 -j RETURN")...)...)
		for _, f := range r.d.families {
			f.checkAt, f.soonest = time.Time{}, time.Time{}
		}
		r.d.tick()
		if got := saveOf(t, flavour); got != want {
			t.Errorf("a replaced rule stays:\n%s", got)
		}
		// A change when the rules are gone.
		run(t, "", append(append(iptables[:2:2], "-w", "60"), "-t", "nat", "-F")...)
		run(t, "", append(append(iptables[:2:2], "-w", "60"), "-t", "nat", "-X")...)
		r.put(service(nil), "10.244.0.1")
		if got := saveOf(t, flavour); !strings.Contains(got, "--dport 80 -j "+svc) || strings.Contains(got, "30080") {
			t.Errorf("after a change of what was gone:\n%s", got)
		}
	})
}

func sorted(s string) string {
	l := strings.Split(s, "\n")
	for i := range l {
		for j := i; j > 0 && l[j] < l[j-1]; j-- {
			l[j], l[j-1] = l[j-1], l[j]
		}
	}
	return strings.Join(l, "\n")
}

// TestChangesLikeFull: after a series of changes the kernel has the same as
// when everything is written at once, and a driver that takes over changes
// nothing but the order.
func TestChangesLikeFull(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		r := newRig(t, flavour)
		local := func(s *catalog.Service) {
			s.Type, s.ExternalLocal, s.HealthCheckNodePort = catalog.LoadBalancer, true, 0
			s.LoadBalancerIPs, s.Ports[0].NodePort = addrs("203.0.113.5"), 30080
		}
		other := service(func(s *catalog.Service) {
			s.Name, s.ClusterIPs = "api", addrs("10.96.0.8")
			s.Ports = append(s.Ports, catalog.Port{Name: "dns", Protocol: catalog.UDP, Port: 53})
		})
		r.put(service(nil), "10.244.0.1")
		r.put(other)
		r.put(service(local), "10.244.0.1", "10.244.0.12")
		r.put(other, "10.244.0.3", "10.244.0.4")
		r.put(service(local), "10.244.0.12")
		r.put(service(func(s *catalog.Service) { s.Affinity = time.Minute }), "10.244.0.12", "10.244.0.13")
		r.put(other)
		r.do(func(tx *catalog.Txn) { tx.DeleteService(key); tx.PutEndpoints(key, nil) })
		r.put(service(local), "10.244.0.1", "10.244.0.12")
		got := saveOf(t, flavour)
		again := newRig(t, flavour)
		again.do(func(tx *catalog.Txn) {
			for e := range r.c.Snapshot().All() {
				tx.PutService(e.Service)
				tx.PutEndpoints(e.Service.Key, e.Endpoints)
			}
		})
		if full := saveOf(t, flavour); sorted(got) != sorted(full) {
			t.Errorf("by changes:\n%s\nat once:\n%s", got, full)
		}
	})
}

func TestConformance(t *testing.T) {
	t.Parallel()
	program(t, Legacy, "")
	viewtest.Run(t, func(t *testing.T) viewtest.View {
		alone(t)
		d, err := New(Config{Node: viewtest.Node, Flavour: Legacy})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func bigService(i int) *catalog.Service {
	return &catalog.Service{
		Key: catalog.Key{Namespace: "default", Name: fmt.Sprintf("svc-%05d", i)}, Type: catalog.ClusterIP,
		ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})},
		Ports:      []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}},
	}
}

func bigEndpoints(i, turn int) (out []catalog.Endpoint) {
	for j := range 10 {
		a := netip.AddrFrom4([4]byte{10, 200 + byte(j), byte(i >> 8), byte(i)})
		if j == 0 && turn%2 == 1 {
			a = netip.AddrFrom4([4]byte{10, 199, byte(i >> 8), byte(i)})
		}
		out = append(out, catalog.Endpoint{Addr: a, Ready: true, Serving: true, Weight: 100, Ports: []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}})
	}
	return out
}

// cpu is what this process and the programs it ran have used.
func cpu(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

// BenchmarkKernel, among n services with 10 endpoints each: writes everything,
// replaces one endpoint, adds and removes a service, compares everything.
func BenchmarkKernel(b *testing.B) {
	type act func(r *rig, n, turn int) error
	acts := []struct {
		name string
		do   act
	}{
		{"full", func(r *rig, _, _ int) error { return r.d.families[0].everything(time.Now()) }},
		{"endpoint", func(r *rig, _, turn int) error {
			r.do(func(tx *catalog.Txn) { tx.PutEndpoints(bigService(7).Key, bigEndpoints(7, turn)) })
			return nil
		}},
		{"service", func(r *rig, n, _ int) error {
			s := bigService(n + 1)
			r.do(func(tx *catalog.Txn) { tx.PutService(s); tx.PutEndpoints(s.Key, bigEndpoints(n+1, 0)) })
			r.do(func(tx *catalog.Txn) { tx.DeleteService(s.Key); tx.PutEndpoints(s.Key, nil) })
			return nil
		}},
		{"check", func(r *rig, _, _ int) error {
			what, err := r.d.families[0].check(time.Now(), time.Now)
			if what != "" {
				err = errors.New(what)
			}
			return err
		}},
	}
	for _, flavour := range []string{Legacy, NFT} {
		for _, n := range []int{100, 1000, 10000} {
			if flavour == NFT && n > 1000 {
				continue // minutes
			}
			for _, a := range acts {
				// Each with a namespace of its own: b.Run has a goroutine, and so a
				// thread, of its own, which another one's namespace is not that of.
				b.Run(fmt.Sprintf("%s/%d/%s", flavour, n, a.name), func(b *testing.B) {
					program(b, flavour, "")
					alone(b)
					r := newRig(b, flavour)
					r.do(func(tx *catalog.Txn) {
						for i := range n {
							tx.PutService(bigService(i))
							tx.PutEndpoints(bigService(i).Key, bigEndpoints(i, 0))
						}
					})
					before, turn := cpu(b), 0
					for b.Loop() {
						turn++
						if err := a.do(r, n, turn); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
				})
			}
		}
	}
}

// FuzzSave: any text may come out of iptables-save, comments are anybody's.
func FuzzSave(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte("*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X\nCOMMIT\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parseSave(bytes.NewReader(in), maphash.MakeSeed())
		if err != nil {
			return
		}
		for name, table := range s.tables {
			var out bytes.Buffer
			if err := text(func(w *lines) { table.clear(name, w); s.stale(name, map[string]bool{}, w) }).to(&out); err != nil {
				t.Fatal(err)
			}
		}
	})
}
