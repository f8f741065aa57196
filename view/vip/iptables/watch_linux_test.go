package iptables

import (
	"strings"
	"testing"
)

// TestWatch: what others do is seen without a program being run.
func TestWatch(t *testing.T) {
	eachFlavour(t, func(t *testing.T, flavour string) {
		for _, v6 := range []bool{false, true} {
			restore := append(program(t, flavour, command(v6)+"-restore"), "--noflush")
			run(t, "*nat\n:TEST - [0:0]\nCOMMIT\n*filter\nCOMMIT\n", restore...)
			w := watch{v6: v6, nft: flavour == NFT}
			w.mark()
			if w.known == [2]uint64{} || w.moved() {
				t.Fatalf("ipv6 %v: %v is known, moved is %v", v6, w.known, w.moved())
			}
			for _, rule := range []string{"-A TEST -j RETURN", "-D TEST -j RETURN"} {
				run(t, strings.Join([]string{"*nat", rule, "COMMIT", ""}, "\n"), restore...)
				if !w.moved() {
					t.Errorf("ipv6 %v: %s was not seen", v6, rule)
				}
				w.mark()
			}
		}
	})
}
