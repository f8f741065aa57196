package dns

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fingerpost/fingerpost/view/dns/forward"
)

const example = `
dns:
  ttl: 30s
  upstreams: [192.0.2.1, "tls://192.0.2.2#dns.example"]
  stubDomains:
    corp.example: 10.0.0.53
    lab.example: [10.0.0.54, "10.0.0.55:5353"]
  records:
    - 192.0.2.7 printer.example
  pods: verified
  autopath: true
  cacheSize: 8MiB
  queryLog: 1/100
`

func TestParseSettings(t *testing.T) {
	base := Settings{TTL: 5 * time.Second, Records: []string{"192.0.2.1 base.example"}, Forward: []forward.Zone{{Name: "corp.example", Upstreams: []string{"192.0.2.9"}}}}
	got, err := ParseSettings([]byte(example), base)
	if err != nil {
		t.Fatal(err)
	}
	if got.TTL != 30*time.Second || len(got.Upstreams) != 2 || len(got.Records) != 2 || got.Pods != PodsVerified || !got.Autopath || got.CacheSize != 8<<20 || got.QueryLog.String() != "1/100" {
		t.Errorf("%+v", got)
	}
	if len(got.Forward) != 2 || got.Forward[0].Name != "corp.example." || got.Forward[0].Upstreams[0] != "10.0.0.53" || len(got.Forward[1].Upstreams) != 2 {
		t.Errorf("%+v", got.Forward)
	}
	if len(base.Records) != 1 || base.Forward[0].Upstreams[0] != "192.0.2.9" {
		t.Error("the base was changed")
	}
	for text, want := range map[string]string{
		"":                           "",
		"# nothing\n":                "",
		"dns:\n":                     "",
		"dns: {cacheSize: 0}":        "",
		"other: 1":                   "line 1: other: unknown field; there is dns",
		"dns:\n  ttl: 5s\n  tll: 6s": "line 3: dns.tll: unknown field; there is autopath, ",
		"dns:\n  ttl: 5s\n  ttl: 6s": "line 3: dns.ttl: it is there twice",
		"dns:\n  ttl: 5":             `line 2: dns.ttl: "5": want whole seconds`,
		"dns:\n  ttl: [5s]":          "line 2: dns.ttl: want a single value",
		"dns: 7":                     "line 1: dns: want fields",
		"- 1":                        "line 1: the file: want fields",
		"dns:\n  upstreams:\n  - 1.2.3.4\n  - example.com": `line 4: dns.upstreams[1]: "example.com": want an address`,
		"dns:\n  stubDomains: {corp.example: []}":          "line 2: dns.stubDomains.corp.example: want at least one server",
		"dns:\n  stubDomains: {a..b: 1.2.3.4}":             "line 2: dns.stubDomains.a..b: ",
		"dns:\n  records: [nonsense]":                      "line 2: dns.records[0]: ",
		"dns:\n  pods: some":                               `line 2: dns.pods: "some": want disabled, insecure or verified`,
		"dns:\n  autopath: perhaps":                        `line 2: dns.autopath: "perhaps": want true or false`,
		"dns:\n  cacheSize: much":                          `line 2: dns.cacheSize: "much": want a size`,
		"dns:\n  queryLog: 1/x":                            `line 2: dns.queryLog: query log "1/x"`,
		"dns:\n\tttl: 5s":                                  "line 2: found character that cannot start any token",
	} {
		_, err := ParseSettings([]byte(text), base)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestReload: everything changes at once, under questions, and none is lost.
func TestReload(t *testing.T) {
	other := upstream(t, good)
	w := newWorld(t, Config{Addrs: []string{"127.0.0.1:0"}, Upstreams: []string{silent(t)}})
	w.must(t, "service a/web clusterip=10.96.0.1 ports=http:80", "namespace a")
	run(t, w.server)
	addr := w.server.Addrs()[0].String()
	ask := func(name string, typ uint16) *miekg.Msg {
		t.Helper()
		r, _, err := asker("udp").Exchange(new(miekg.Msg).SetQuestion(name, typ), addr)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return r
	}
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, _, err := asker("udp").Exchange(new(miekg.Msg).SetQuestion("web.a.svc.cluster.local.", miekg.TypeA), addr)
			if err != nil || len(r.Answer) != 1 || r.Answer[0].Header().Ttl != 5 && r.Answer[0].Header().Ttl != 60 {
				t.Errorf("%v %v", r, err)
				return
			}
		}
	})
	before := Settings{TTL: 5 * time.Second}
	after := Settings{
		TTL: time.Minute, Upstreams: []string{other}, Forward: []forward.Zone{{Name: "corp.example.", Upstreams: []string{other}}},
		Records: []string{"192.0.2.7 printer.example"}, Pods: PodsDisabled, QueryLog: QueryLog{logErrors},
	}
	for range 20 {
		for _, set := range []Settings{before, after} {
			set.Upstreams = []string{other}
			if err := w.server.Reload(set); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	asking.Wait()
	if r := ask("web.a.svc.cluster.local.", miekg.TypeA); r.Answer[0].Header().Ttl != 60 {
		t.Error(r)
	}
	if r := ask("printer.example.", miekg.TypeA); len(r.Answer) != 1 {
		t.Error(r)
	}
	if r := ask("www.corp.example.", miekg.TypeA); len(r.Answer) != 1 {
		t.Error(r)
	}
	if r := ask("1-2-3-4.a.pod.cluster.local.", miekg.TypeA); r.Rcode != miekg.RcodeNameError {
		t.Error(r)
	}
	for name, bad := range map[string]Settings{
		"TTL":      {TTL: time.Millisecond},
		"pods":     {Pods: "some"},
		"record":   {Records: []string{"nonsense"}},
		"upstream": {Upstreams: []string{"nobody"}},
		"zone":     {Forward: []forward.Zone{{Name: "corp.example."}}},
	} {
		if err := w.server.Reload(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if r := ask("printer.example.", miekg.TypeA); len(r.Answer) != 1 || r.Answer[0].Header().Ttl != 60 {
		t.Errorf("after settings that make no sense: %v", r)
	}
	if got, want := w.server.index.dump(), func() []string {
		fresh := newWorld(t, Config{TTL: time.Minute})
		fresh.must(t, "service a/web clusterip=10.96.0.1 ports=http:80", "namespace a")
		return fresh.server.index.dump()
	}(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\n-- not as if made so\n%q", got, want)
	}
}

func TestFollowFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var log logBuffer
		w := newWorld(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
		reg := prometheus.NewRegistry()
		again := make(chan os.Signal, 1)
		f, err := NewFile(FileConfig{Path: path, Again: again, Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(); err == nil {
			t.Error("a file that is not there was read")
		}
		write("dns: {queryLog: all}")
		set, err := f.Read()
		if err != nil || set.QueryLog.mode != logAll {
			t.Fatal(set, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Follow(ctx, w.server) }()
		wait := func() {
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		expect := func(mode int64, failed float64, words string) {
			t.Helper()
			if got := w.server.queries.mode.Load(); got != mode {
				t.Errorf("mode %d, want %d", got, mode)
			}
			if got := testutil.ToFloat64(f.failed); got != failed {
				t.Errorf("%v failures, want %v", got, failed)
			}
			if got := log.take(); !strings.Contains(got, words) || words == "" && got != "" {
				t.Errorf("log %q, want %q", got, words)
			}
		}
		wait()
		expect(logOff, 0, "") // nothing changed
		write("dns:\n  queryLog: errors")
		wait()
		expect(logErrors, 0, "was taken")
		write("dns:\n  queryLog: nonsense")
		wait()
		expect(logErrors, 1, "line 2: dns.queryLog")
		wait()
		expect(logErrors, 1, "") // once is enough
		again <- os.Interrupt
		synctest.Wait()
		expect(logErrors, 2, "line 2: dns.queryLog")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wait()
		wait()
		expect(logErrors, 3, "no such file")
		write("dns:\n  queryLog: 1/5")
		wait()
		expect(5, 3, "was taken")
		if n, err := testutil.GatherAndCount(reg, "coredns_reload_version_info", "coredns_reload_failed_total"); n != 2 || err != nil {
			t.Error(n, err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("dns: {records: [a b c], stubDomains: {x: y}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Count(b, []byte("&")) > 0 { // anchors are the library's own business
			return
		}
		_, _ = ParseSettings(b, Settings{})
	})
}
