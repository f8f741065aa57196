package nftables

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	nft "github.com/google/nftables"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip/viptest"
)

// TestClockIsSet: refusals are tried again and drift is found in their time,
// neither at once for ever nor never, whatever happens to the wall clock.
func TestClockIsSet(t *testing.T) {
	for _, jump := range viptest.Jumps() {
		t.Run(jump.String(), func(t *testing.T) {
			clock := viptest.NewClock(t)
			r := newRig(t, func(c *Config) { c.Now = clock.Now })
			rnd := rand.New(rand.NewPCG(3, 4))
			put := func(n int) error {
				return r.apply(func(txn *catalog.Txn) {
					s := randomService(rnd, n)
					txn.PutService(s)
					txn.PutEndpoints(s.Key, randomEndpoints(rnd))
				})
			}
			if err := put(1); err != nil {
				t.Fatal(err)
			}
			tries := 0
			r.d.k.refuse = func() error { tries++; return syscall.ENOBUFS }
			if err := put(2); err == nil {
				t.Fatal("no error from a refusal")
			}
			clock.Set(jump)
			tries = 0
			for range 4 { // a second
				r.d.look()
				clock.Pass(lookEvery)
			}
			if tries > 1 {
				t.Errorf("%d tries in a second after the clock was set", tries)
			}
			r.d.k.refuse = nil
			clock.Pass(retryEvery)
			r.d.look()
			r.agrees()

			// An element that somebody removes is found by the comparison.
			f := r.d.families[0]
			var victim element
			for p, c := range r.d.desired() {
				if p.set == setSvc && !p.v6 {
					victim = element{p, c}
				}
			}
			other := &kernel{netns: r.d.k.netns}
			defer other.close()
			if err := other.commit(func(c *nft.Conn) error {
				return deleteElements(c, f.sets[setSvc], []nft.SetElement{{Key: []byte(victim.key), Val: []byte(victim.val)}})
			}); err != nil {
				t.Fatal(err)
			}
			clock.Set(-2 * jump)
			r.d.look()
			clock.Pass(r.d.cfg.Resync + 100*r.d.cost + time.Second)
			r.d.look()
			r.agrees()
		})
	}
}
