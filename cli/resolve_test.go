package cli

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func TestResolve(t *testing.T) {
	c := world()
	for name, args := range map[string][]string{
		"resolve-web":          {"web"},
		"resolve-web-full":     {"web.default.svc.cluster.local"},
		"resolve-web-dot":      {"web.default.svc.cluster.local."},
		"resolve-other-space":  {"cart.shop"},
		"resolve-srv":          {"_http._tcp.web"},
		"resolve-headless":     {"queue"},
		"resolve-external":     {"outside"},
		"resolve-nobody":       {"nobody"},
		"resolve-none-ready":   {"db"},
		"resolve-no-such-type": {"web", "AAAA"},
		"resolve-ptr":          {"10.96.0.10"},
		"resolve-unknown":      {"nothing"},
		"resolve-not-ours":     {"example.com."},
	} {
		for _, f := range []format{formatTable, formatJSON} {
			if f == formatJSON {
				if name != "resolve-headless" {
					continue
				}
				name += "-json"
			}
			t.Run(name, func(t *testing.T) {
				o := resolveOptions{name: args[0], namespace: "default", zone: "cluster.local", node: "laptop", format: f}
				if err := o.pickTypes(args[1:]); err != nil {
					t.Fatal(err)
				}
				ask, err := o.fromCatalog(c)
				if err != nil {
					t.Fatal(err)
				}
				found, err := o.resolve(t.Context(), ask)
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				err = renderResolve(&out, found, &o)
				golden(t, name, withExit(&out, nil, err))
			})
		}
	}
}

func TestResolveOverTheWire(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &miekg.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: miekg.HandlerFunc(func(w miekg.ResponseWriter, q *miekg.Msg) {
		m := new(miekg.Msg).SetReply(q)
		switch name := q.Question[0].Name; {
		case name != "web.shop.svc.cluster.local.":
			m.Rcode = miekg.RcodeNameError
		case q.Question[0].Qtype == miekg.TypeA:
			rr, _ := miekg.NewRR(name + " 5 IN A 10.96.0.10")
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan error)
	go func() { done <- server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	for name, want := range map[string]string{
		"web":  "10.96.0.10\n",
		"none": "[exit 3] none does not exist (tried none.shop.svc.cluster.local., none.svc.cluster.local., none.cluster.local., none.)\n",
	} {
		o := resolveOptions{name: name, types: []string{"A", "AAAA"}, namespace: "shop", zone: "cluster.local", server: pc.LocalAddr().String(), timeout: 10 * time.Second, format: formatName}
		found, err := o.resolve(t.Context(), o.overWire)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = renderResolve(&out, found, &o)
		if got := withExit(&out, nil, err); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	o := resolveOptions{name: "a.b.c.d.e.f", namespace: "shop", zone: "cluster.local."}
	if got := strings.Join(o.candidates(), " "); !strings.HasPrefix(got, "a.b.c.d.e.f. a.b.c.d.e.f.shop.svc.cluster.local. ") {
		t.Error(got)
	}
}
