package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/view/dns"
)

func traceOf(t *testing.T, args ...string) (*traceOptions, *trace, error) {
	t.Helper()
	o := &traceOptions{now: time.Unix(1e9, 0)}
	o.name, o.namespace, o.zone, o.node, o.noServer = args[0], "default", "cluster.local", "laptop", true
	if err := o.pickTypes(args[1:]); err != nil {
		t.Fatal(err)
	}
	if err := o.prepare(world()); err != nil {
		t.Fatal(err)
	}
	tr, err := o.trace(t.Context())
	return o, tr, err
}

func TestTrace(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string
		exit string
	}{
		"a service":      {[]string{"web"}, []string{"1. web.default.svc.cluster.local. A: NOERROR", "rule      service default/web", "from      Service default/web, ClusterIP"}, ""},
		"another space":  {[]string{"cart.shop"}, []string{"1. cart.shop.default.svc.cluster.local. A: NXDOMAIN", "2. cart.shop.svc.cluster.local. A: NOERROR"}, ""},
		"headless":       {[]string{"queue"}, []string{"rule      headless service default/queue"}, ""},
		"an alias":       {[]string{"outside"}, []string{"stands for"}, ""},
		"none ready":     {[]string{"db"}, []string{"out: it is not ready"}, "[exit 5]"},
		"nobody":         {[]string{"nothing.default.svc.cluster.local."}, []string{"rule      there is no such service"}, "[exit 3]"},
		"a slip":         {[]string{"wbe"}, []string{"Did you mean web?"}, "[exit 4]"}, // the last candidate is the outer world's
		"not ours":       {[]string{"example.com."}, []string{"not for the catalog to say"}, "[exit 4]"},
		"a reverse name": {[]string{"10.96.0.10"}, []string{"rule      the cluster IP of service default/web"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o, tr, err := traceOf(t, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			tr.print(&out, o)
			got := withExit(&out, nil, tr.verdict(o))
			for _, want := range append(c.want, c.exit) {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if c.exit == "" && strings.Contains(got, "[exit") {
				t.Error(got)
			}
			if strings.Contains(got, "no upstream is configured") {
				t.Errorf("it speaks of upstreams that the server may have:\n%s", got)
			}
		})
	}
}

// The catalog's word and the server's are compared without order, TTL and what
// an upstream adds to an alias.
func TestTraceCompares(t *testing.T) {
	e := dns.Explanation{Rcode: "NOERROR", Answer: []string{"w. 5 IN A 10.0.0.1", "w. 5 IN A 10.0.0.2"}}
	alias := dns.Explanation{Rcode: "NOERROR", Answer: []string{"w. 5 IN CNAME x.example."}}
	a, b, c := record{"W.", 3, "A", "10.0.0.2"}, record{"w.", 3, "A", "10.0.0.1"}, record{"w.", 3, "A", "10.0.0.3"}
	cname, further := record{"w.", 3, "CNAME", "x.example."}, record{"x.example.", 60, "A", "192.0.2.1"}
	for name, x := range map[string]struct {
		e       dns.Explanation
		rcode   string
		answers []record
		same    bool
	}{
		"the same":              {e, "NOERROR", []record{a, b}, true},
		"one less":              {e, "NOERROR", []record{a}, false},
		"one more":              {e, "NOERROR", []record{a, b, c}, false},
		"another":               {e, "NOERROR", []record{a, c}, false},
		"gone":                  {e, "NXDOMAIN", nil, false},
		"an alias, followed":    {alias, "NOERROR", []record{cname, further}, true},
		"an alias to nowhere":   {alias, "NXDOMAIN", []record{cname}, true},
		"no alias any more":     {alias, "NOERROR", []record{further}, false},
		"not there, both say":   {dns.Explanation{Rcode: "NXDOMAIN"}, "NXDOMAIN", nil, true},
		"empty here, not there": {dns.Explanation{Rcode: "NOERROR"}, "NXDOMAIN", nil, false},
	} {
		if got := sameWord(&x.e, &wireWord{Rcode: x.rcode, Answers: x.answers}); got != x.same {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A server that differs is an error of its own; one that is silent is asked
// once, and decides nothing.
func TestTraceWire(t *testing.T) {
	o, _, err := traceOf(t, "web")
	if err != nil {
		t.Fatal(err)
	}
	o.server = "192.0.2.53:53"
	o.claims = func(context.Context, string) []v1alpha1.Instance { return nil }
	o.wire = func(context.Context, string, string) (resolution, error) { return resolution{Rcode: "NXDOMAIN"}, nil }
	tr, err := o.trace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var coded *exitError
	if err := tr.verdict(o); !errors.As(err, &coded) || coded.code != ExitError || tr.Steps[0].Wire.Verdict != wireDiffers {
		t.Errorf("%v %+v", err, tr.Steps[0].Wire)
	}
	asked := 0
	o.name = "cart.shop"
	o.wire = func(context.Context, string, string) (resolution, error) {
		asked++
		return resolution{}, errors.New("it does not answer")
	}
	if tr, err = o.trace(t.Context()); err != nil || asked != 1 || tr.verdict(o) != nil {
		t.Errorf("%v, asked %d times, %v", err, asked, tr.verdict(o))
	}
}

func TestHostOptions(t *testing.T) {
	for in, want := range map[string]string{"": "127.0.0.1:8053", "10.0.0.1": "10.0.0.1:53", "[::1]:53": "[::1]:53", "nowhere": "", "0.0.0.0:53": "", "127.0.0.1:0": ""} {
		o := hostOptions{address: in}
		got, err := o.server("systemd-resolved")
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %s %v", in, got, err)
		}
	}
	for zone, ok := range map[string]bool{"cluster.local": true, "a_b-c.d": true, "": false, "a..b": false, "x\ny": false, "a b": false, "k8s.Example": false} {
		if validZone(zone) != ok {
			t.Errorf("%q: %v", zone, !ok)
		}
	}
}
