package hostdns

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

// The rest of daemon.json stays to the byte, and comes back to the byte.
func TestDocker(t *testing.T) {
	w := Want{Server: netip.MustParseAddrPort("172.17.0.1:53")}
	for in, want := range map[string]string{
		"":                               "{\n  \"dns\": [\"172.17.0.1\"]\n}\n",
		"{}":                             "{\n  \"dns\": [\"172.17.0.1\"]\n}",
		"{ }\n":                          "{\n  \"dns\": [\"172.17.0.1\"]\n}\n",
		`{"debug": true}`:                `{"dns": ["172.17.0.1"],"debug": true}`,
		"{\n\t\"a\": {\"dns\": 1}\n}\n":  "{\n\t\"dns\": [\"172.17.0.1\"],\n\t\"a\": {\"dns\": 1}\n}\n",
		`{"x": 1, "dns" : ["8.8.8.8"] }`: `{"x": 1, "dns" : ["172.17.0.1", "8.8.8.8"] }`,
		`{"dns": [], "x": "é\u00e9"}`:    `{"dns": ["172.17.0.1"], "x": "é\u00e9"}`,
	} {
		e, err := dockerEdit(&w, content{[]byte(in), in != ""})
		if err != nil || e.text != want {
			t.Errorf("%q: %q %v, want %q", in, e.text, err, want)
		}
	}
	for current, want := range map[string]string{
		"{\n  \"dns\": [\"172.17.0.1\"],\n  \"debug\": true\n}\n":   "{\n  \"debug\": true\n}\n",
		"{\"debug\": true, \"dns\": [\"172.17.0.1\"]}":              "{\"debug\": true}",
		"{\"dns\": [\"172.17.0.1\"]}":                               "{}",
		"{\"dns\": [\"172.17.0.1\", \"9.9.9.9\"], \"debug\": true}": "{\"dns\": [\"9.9.9.9\"], \"debug\": true}",
		"{\"debug\": false}":                                        "{\"debug\": false}",
	} {
		got, err := dockerRemove(current, "172.17.0.1", `{"debug": true}`)
		if err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", current, got, err, want)
		}
	}
}

func TestDockerInstalled(t *testing.T) {
	const daemon = "{\n    \"log-driver\": \"journald\"\n}\n"
	c := newComputer(t, "linux", map[string]string{"/etc/resolv.conf": "nameserver 192.0.2.1\n", dockerFile: daemon})
	w := want("172.17.0.1:53")
	w.Docker = true
	before := c.tree()
	c.install(w)
	if again := c.install(w); !again.Empty() {
		t.Errorf("a second run changes\n%s", again)
	}
	w.Docker = false
	c.install(w) // containers no more
	if got := c.text(dockerFile); got != daemon {
		t.Errorf("%q", got)
	}
	c.uninstall()
	if !equalTrees(before, c.tree()) {
		t.Error(c.tree())
	}
}

// FuzzDocker: what is JSON before is JSON afterwards, with the same values.
func FuzzDocker(f *testing.F) {
	for _, s := range []string{"", "{}", `{"dns":["a"]}`, `{"a":1,"dns":["b"],"c":[]}`, `{"dns":null}`, `{"dns":["a"],"dns":["b"]}`, "[]", `{"\u0064ns":[]}`} {
		f.Add(s)
	}
	w := Want{Server: netip.MustParseAddrPort("172.17.0.1:53")}
	f.Fuzz(func(t *testing.T, in string) {
		e, err := dockerEdit(&w, content{[]byte(in), true})
		if err != nil {
			return
		}
		var before, after map[string]json.RawMessage
		_ = json.Unmarshal([]byte(in), &before)
		if err := json.Unmarshal([]byte(e.text), &after); err != nil {
			t.Fatalf("%q became %q: %v", in, e.text, err)
		}
		var dns []string
		if err := json.Unmarshal(after["dns"], &dns); err != nil || !slices.Contains(dns, "172.17.0.1") {
			t.Fatalf("%q became %q", in, e.text)
		}
		delete(before, "dns")
		delete(after, "dns")
		if !maps.EqualFunc(before, after, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
			t.Fatalf("%q became %q", in, e.text)
		}
		back, err := dockerRemove(e.text, "172.17.0.1", in)
		if err != nil || !json.Valid([]byte(back)) {
			t.Fatalf("%q became %q became %q: %v", in, e.text, back, err)
		}
	})
}
