package forward

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// TestLoop has an upstream that asks the forwarder's own server, which is what
// a resolver of this machine does that was told to use this server.
func TestLoop(t *testing.T) {
	var f atomic.Pointer[Forwarder]
	var looping atomic.Bool
	looping.Store(true)
	var refused atomic.Int64
	own := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		// A server as view/dns is one.
		q, _ := r.Pack()
		var qu question
		end, _ := wiredns.SkipName(q, headerLen)
		if fw := f.Load(); fw != nil && qu.parse(q, end+4) {
			if fw.Loop(qu.name()) {
				refused.Add(1)
			} else if b, err := fw.Exchange(context.Background(), q, end+4, tcpMax); err == nil {
				_, _ = w.Write(b)
				return
			}
		}
		_ = w.WriteMsg(new(miekg.Msg).SetRcode(r, miekg.RcodeRefused))
	})
	stub := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		if !looping.Load() {
			_ = w.WriteMsg(answerOf(r))
			return
		}
		if m, err := miekg.Exchange(r, own.addr); err == nil {
			_ = w.WriteMsg(m)
		}
	})
	good := upstreamAt(t, nil, zoneOf("www.example. 60 IN A 192.0.2.1"))
	cfg := Config{Zones: []Zone{{".", []string{stub.addr, good.addr}}, {"corp.example.", []string{stub.addr}}}}
	cfg.Hedge = 50 * time.Millisecond
	fw := forwarder(t, cfg)
	f.Store(fw)
	find := func() UpstreamStatus {
		for _, u := range fw.Upstreams() {
			if u.Address == stub.addr {
				return u
			}
		}
		return UpstreamStatus{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fw.Run(ctx) }()
	defer func() { cancel(); <-done }()

	eventually(t, "the loop is found", func() bool { return find().Loop })
	eventually(t, "the probe is over", func() bool { return fw.probes.n.Load() == 0 })
	if refused.Load() == 0 || !strings.Contains(find().Error, "back") {
		t.Errorf("refused %d, status %+v", refused.Load(), find())
	}
	before := stub.asked.Load()
	for _, name := range []string{"www.example.", "a.example.", "b.example."} {
		resolve(t, fw, name, miekg.TypeA)
	}
	if stub.count("www.example. A")+stub.count("a.example. A")+stub.count("b.example. A") > 0 {
		t.Errorf("%d questions to an upstream that loops", stub.asked.Load()-before)
	}
	if fw.Serves([]byte("\x04corp\x07example\x00")) {
		t.Error("a zone whose only upstream loops has nobody to ask")
	}
	if fw.Loop([]byte("\x20" + strings.Repeat("a", 32) + "\x00")) {
		t.Error("a foreign name was taken for a probe")
	}
	looping.Store(false)
	eventually(t, "the loop is seen to be gone", func() bool {
		if err := fw.Reload(patient(cfg)); err != nil {
			t.Fatal(err)
		}
		return !find().Loop
	})
}

func TestOwn(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf())
	cfg := root(up.addr)
	var own atomic.Bool
	cfg.Own = func(a netip.AddrPort) bool { return own.Load() && a.String() == up.addr }
	f := running(t, cfg)
	if m, _ := resolve(t, f, "a.example.", miekg.TypeA); m.Rcode != miekg.RcodeNameError {
		t.Fatalf("answer %v", m)
	}
	own.Store(true)
	resolve(t, f, "b.example.", miekg.TypeA)
	if up.count("b.example. A") != 0 || f.Serves([]byte{0}) {
		t.Error("this server asked itself")
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Zones: []Zone{{"", []string{"192.0.2.1"}}}}, "no domain name"},
		{Config{Zones: []Zone{{"a..b", []string{"192.0.2.1"}}}}, "no domain name"},
		{Config{Zones: []Zone{{".", nil}}}, "no upstream"},
		{Config{Zones: []Zone{{".", []string{"dns.example"}}}}, "must be an address"},
		{Config{Zones: []Zone{{"a.", []string{"192.0.2.1"}}, {"A", []string{"192.0.2.2"}}}}, "twice"},
		{Config{Timeout: time.Hour}, "Timeout"},
		{Config{MinTTL: 2 * time.Hour}, "MinTTL"},
		{Config{Policy: "best"}, "policy"},
		{Config{MaxInFlight: -1}, "MaxInFlight"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.cfg.Zones, err, c.want)
		}
	}
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]": "[2001:db8::1]:53",
		"::ffff:192.0.2.1": "192.0.2.1:53", "tls://192.0.2.1": "tls://192.0.2.1:853", "tls://192.0.2.1:8853#dns.example": "tls://192.0.2.1:8853#dns.example",
		"dns://192.0.2.1": "192.0.2.1:53", "fe80::1%eth0": "[fe80::1%eth0]:53",
	} {
		if got, err := parseTarget(in); err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v, want %s", in, got, err, want)
		}
	}
}
