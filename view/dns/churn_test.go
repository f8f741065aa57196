package dns

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/catalog"
)

var churnFor = flag.Duration("churn", time.Second, "how long TestChurn changes endpoints")

const (
	churnServices = 50
	churnEps      = 10
	churnRate     = 1000 // changes a second
	churnWindow   = 32   // questions that a client has under way
)

// churn is a headless service whose endpoints are replaced one by one: in
// state v its addresses are 10.<service>.<v> to 10.<service>.<v+9>, so that an
// answer tells which state it is of.
type churn struct {
	begun, shown atomic.Uint32 // states
}

func churnAddr(service int, n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(service), byte(n >> 8), byte(n)})
}

func churnEndpoints(service int, v uint32) []catalog.Endpoint {
	ports := []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}}
	eps := make([]catalog.Endpoint, churnEps)
	for i := range eps {
		eps[i] = catalog.Endpoint{Addr: churnAddr(service, v+uint32(i)), Ports: ports, Ready: true, Serving: true, Weight: 100}
	}
	return eps
}

// TestChurn: while endpoints come and go and clients ask as fast as they can,
// every answer is a whole state of its service, none older than what was shown
// when the question was sent, and none that was not there yet.
func TestChurn(t *testing.T) {
	s, err := New(Config{Addrs: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	c := catalog.New(nil)
	var all [churnServices]churn
	key := func(i int) catalog.Key { return catalog.Key{Namespace: "a", Name: fmt.Sprintf("s%d", i)} }
	c.Update(func(tx *catalog.Txn) {
		tx.SetFreshness(catalog.Freshness{Synced: true})
		for i := range all {
			tx.PutService(&catalog.Service{Key: key(i), Type: catalog.ClusterIP, Headless: true, Ports: []catalog.Port{{Name: "http", Protocol: catalog.TCP, Port: 80}}})
			tx.PutEndpoints(key(i), churnEndpoints(i, 0))
		}
	})
	sub := c.Subscribe()
	defer sub.Close()
	show := func() {
		if err := s.Apply(context.Background(), sub.TryNext()); err != nil {
			t.Error(err)
		}
	}
	show()

	var answers atomic.Uint64
	var stop atomic.Bool
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() {
			if err := askChurn(s.Addrs()[0], &all, &answers, &stop); err != nil {
				t.Error(err)
			}
		})
	}
	during := func() uint64 { // a measure of the load, to compare
		before := answers.Load()
		<-time.After(*churnFor)
		return answers.Load() - before
	}
	calm := during()

	ended := make(chan struct{})
	var slowest time.Duration
	changes := 0
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second / churnRate)
		defer tick.Stop()
		begin := time.Now()
		for end := begin.Add(*churnFor); time.Now().Before(end); {
			<-tick.C
			for ; changes < int(time.Since(begin).Seconds()*churnRate); changes++ {
				i := changes % churnServices
				v := all[i].begun.Add(1)
				start := time.Now()
				c.Update(func(tx *catalog.Txn) { tx.PutEndpoints(key(i), churnEndpoints(i, v)) })
				show()
				all[i].shown.Store(v)
				slowest = max(slowest, time.Since(start))
			}
		}
	}()
	busy := during()
	<-ended
	stop.Store(true)
	clients.Wait()
	t.Logf("%d changes in %v, the slowest visible after %v; answers: %d before, %d during", changes, *churnFor, slowest, calm, busy)
}

// askChurn asks until it is told to stop and checks every answer.
func askChurn(at netip.AddrPort, all *[churnServices]churn, answers *atomic.Uint64, stop *atomic.Bool) error {
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	var questions [churnServices][]byte
	for i := range questions {
		questions[i] = question(fmt.Sprintf("s%d.a.svc.cluster.local.", i), miekg.TypeA)
	}
	buf := make([]byte, udpMax)
	var oldest [churnWindow]uint32 // state that was shown when the question was sent
	next := 0
	for !stop.Load() {
		first := next
		for k := range churnWindow {
			i := (first + k) % churnServices
			binary.BigEndian.PutUint16(questions[i], uint16(k))
			oldest[k] = all[i].shown.Load()
			if _, err := conn.Write(questions[i]); err != nil {
				return err
			}
		}
		next += churnWindow
		for range churnWindow {
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := conn.Read(buf)
			if err != nil {
				return fmt.Errorf("an answer is missing: %w", err)
			}
			k := int(binary.BigEndian.Uint16(buf))
			i := (first + k) % churnServices
			if err := checkChurn(buf[:n], len(questions[i]), i, oldest[k], all[i].begun.Load()); err != nil {
				return err
			}
		}
		answers.Add(churnWindow)
	}
	return nil
}

// checkChurn checks that an answer is one of the states [from, to].
func checkChurn(resp []byte, end, service int, from, to uint32) error {
	if resp[3]&0xF != rcodeOK || binary.BigEndian.Uint16(resp[6:]) != churnEps || len(resp) != end+churnEps*lenA {
		return fmt.Errorf("service %d: wrong answer %x", service, resp)
	}
	low, seen := ^uint32(0), map[uint32]bool{}
	for r := resp[end:]; len(r) > 0; r = r[lenA:] {
		a := r[headLen:lenA]
		if a[0] != 10 || int(a[1]) != service {
			return fmt.Errorf("service %d: address %v of another", service, a)
		}
		n := uint32(a[2])<<8 | uint32(a[3])
		low, seen[n] = min(low, n), true
	}
	for i := range uint32(churnEps) {
		if !seen[low+i] {
			return fmt.Errorf("service %d: half a change: %v", service, seen)
		}
	}
	if low < from || low > to {
		return fmt.Errorf("service %d: state %d, must be %d to %d", service, low, from, to)
	}
	return nil
}
