package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
	"github.com/fingerpost/fingerpost/bench/rig"
)

// between is the pause between two looks at what a view says: short against
// what is measured, and long enough to leave the server its CPU.
const between = 200 * time.Microsecond

// lookUntil looks again and again, until f says yes.
func lookUntil(ctx context.Context, f func() (bool, error)) (time.Time, error) {
	end := time.Now().Add(patience)
	for {
		ok, err := f()
		now := time.Now()
		if err != nil || ok {
			return now, err
		}
		if now.After(end) {
			return now, fmt.Errorf("not seen after %s", patience)
		}
		if err := rig.Sleep(ctx, between); err != nil {
			return now, err
		}
	}
}

// latencyDNS: the first of ten endpoints of a headless service gets another
// address; DNS answers with it.
func (b *bench) latencyDNS(ctx context.Context, who side, s *rig.Server) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	i := b.services + b.creates // a name that is free
	headless, eps := service(i), slice(i)
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	if err := send(ctx, c, http.MethodPost, s.Rest.Host+servicesPath, asProtobuf, nil, encoded(headless)); err != nil {
		return err
	}
	if err := send(ctx, c, http.MethodPost, s.Rest.Host+slicesPath, asProtobuf, nil, encoded(eps)); err != nil {
		return err
	}
	conn, err := net.Dial("udp", s.DNS)
	if err != nil {
		return err
	}
	defer conn.Close()
	ask := func(addr string) func() (bool, error) {
		return func() (bool, error) { return answers(conn, headless.Name+"."+namespace+".svc.cluster.local.", addr) }
	}
	if _, err := lookUntil(ctx, ask(address(i, 0))); err != nil {
		return fmt.Errorf("the first answer: %w", err)
	}
	var w way
	for k := range b.changes {
		if err := rig.Sleep(ctx, breath); err != nil {
			return err
		}
		addr := fmt.Sprintf("10.9.%d.%d", k>>8, k&255)
		eps.Endpoints[0].Addresses = []string{addr}
		body := encoded(eps)
		acked := make(chan time.Time, 1)
		failed := make(chan error, 1)
		began := time.Now()
		go func() {
			err := send(ctx, c, http.MethodPut, s.Rest.Host+slicesPath+"/"+eps.Name, asProtobuf, nil, body)
			acked <- time.Now()
			failed <- err
		}()
		at, err := lookUntil(ctx, ask(addr))
		if err := errors.Join(err, <-failed); err != nil {
			return err
		}
		w.add(began, <-acked, at)
	}
	b.tell(who, "EndpointSlice write → DNS", &w, target(50))
	return nil
}

// answers asks once, and says whether the answer has the address.
func answers(conn net.Conn, name, addr string) (bool, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	out, err := q.Pack()
	if err != nil {
		return false, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false, err
	}
	if _, err := conn.Write(out); err != nil {
		return false, err
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		return false, err
	}
	var m dns.Msg
	if err := m.Unpack(buf[:n]); err != nil {
		return false, err
	}
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.String() == addr {
			return true, nil
		}
	}
	return false, nil
}

// latencyVIP: the only endpoint of a service is taken out, and put back. It is
// an Instance, because a slice made by hand may not hold a loopback address; so
// the way in is the long one: Instance, controller, slice, catalog, virtual IP.
func (b *bench) latencyVIP(ctx context.Context, who side, s *rig.Server) error {
	backend, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer backend.Close()
	go greet(backend)
	quick := rest.CopyConfig(s.Rest)
	quick.QPS = -1 // the client's own limit is 5/s
	kc, err := kubernetes.NewForConfig(quick)
	if err != nil {
		return err
	}
	ic, err := client.New(quick)
	if err != nil {
		return err
	}
	svc := service(b.services + b.creates + 1)
	made, err := kc.CoreV1().Services(namespace).Create(ctx, svc, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	vip := net.JoinHostPort(made.Spec.ClusterIP, fmt.Sprint(port))
	in := newInstance(0)
	in.Name, in.Spec.Service, in.Spec.NodeName = "vip", svc.Name, s.Node
	ap := netip.MustParseAddrPort(backend.Addr().String())
	in.Spec.Address, in.Spec.Ports[0].Port = ap.Addr().String(), int32(ap.Port())
	in.Spec.Claims[0].TTL = nil
	if _, err := ic.Instances(namespace).Create(ctx, in, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := lookUntil(ctx, func() (bool, error) { return greeted(vip), nil }); err != nil {
		return fmt.Errorf("the first connection: %w", err)
	}
	var up, out way
	for k := range 2 * b.changes {
		if err := rig.Sleep(ctx, breath); err != nil {
			return err
		}
		state, to, want := v1alpha1.ClaimOutOfService, &out, false
		if k%2 == 1 {
			state, to, want = v1alpha1.ClaimUp, &up, true
		}
		patch := fmt.Sprintf(`{"spec":{"claims":[{"door":"http","id":"1","origin":"bench","state":%q}]}}`, state)
		acked := make(chan time.Time, 1)
		failed := make(chan error, 1)
		began := time.Now()
		go func() {
			_, err := ic.Instances(namespace).Patch(ctx, in.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			acked <- time.Now()
			failed <- err
		}()
		at, err := lookUntil(ctx, func() (bool, error) { return greeted(vip) == want, nil })
		if err := errors.Join(err, <-failed); err != nil {
			return err
		}
		to.add(began, <-acked, at)
	}
	b.tell(who, "Instance out → the virtual IP closes", &out, target(50))
	b.tell(who, "Instance up → slice → the virtual IP answers", &up, target(50))
	return nil
}

// greet answers each connection with one byte.
func greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte{'!'})
		_ = c.Close()
	}
}

// greeted says whether somebody answers at an address.
func greeted(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	var b [1]byte
	n, _ := c.Read(b[:])
	return n == 1
}
