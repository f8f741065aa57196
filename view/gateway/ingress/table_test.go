package ingress

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	docFile   = "../../../doc/ingress-nginx.md"
	tableFrom = "<!-- annotations: written by go test ./view/gateway/ingress -run TestDocument -update -->\n"
	tableTo   = "<!-- end of annotations -->\n"
)

// TestDocument: doc/ingress-nginx.md lists what the table says.
func TestDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("| Annotation | Support | What it does here |\n|---|---|---|\n")
	for _, a := range Annotations() {
		note := a.Note
		if a.want != "" {
			note += " Values: " + a.want + "."
		}
		if a.closed && a.Support != Unsupported {
			note += " A value that is not understood closes the rules (503)."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", a.Key, a.Support, strings.ReplaceAll(note, "|", "\\|"))
	}
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableFrom)
	table, after, ok2 := strings.Cut(rest, tableTo)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", docFile)
	}
	if table == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s does not say what the table does; run the test with -update", docFile)
	}
	if err := os.WriteFile(docFile, []byte(before+tableFrom+b.String()+tableTo+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTable: keys are there once, say something, and are in a golden pair each.
func TestTable(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	seen := map[string]bool{}
	for _, a := range Annotations() {
		if seen[a.Key] {
			t.Errorf("%s is there twice", a.Key)
		}
		seen[a.Key] = true
		if a.Note == "" || a.Support == Honoured && a.apply == nil || a.Support == Unsupported && a.apply != nil {
			t.Errorf("%s says nothing, or is honoured and not read, or read and not honoured", a.Key)
		}
		if a.Support == Honoured && !strings.Contains(all.String(), Prefix+"/"+a.Key+":") {
			t.Errorf("%s is in no golden pair", a.Key)
		}
	}
}

// FuzzAnnotation: whatever the value, nothing panics, nothing that breaks lines
// gets into a policy, and what keeps people out does not let everybody in.
func FuzzAnnotation(f *testing.F) {
	all := Annotations()
	for i, v := range []string{"true", "10.0.0.0/8", "200 202 10m, 401 5m", "8m", "https://a.example.com/$request_uri", "error http_502", "/$1", "(?i)x", "a\r\nb", "", "-1", "99999999999999999999", "*", "2001:db8::/32"} {
		f.Add(uint8(i*7), v)
	}
	f.Fuzz(func(t *testing.T, n uint8, v string) {
		a := &all[int(n)%len(all)]
		if a.apply == nil {
			return
		}
		r := newReading()
		err := a.apply(r, v)
		switch a.Key {
		case "whitelist-source-range", "allowlist-source-range":
			if err == nil && len(r.policy.Allow) == 0 {
				t.Errorf("%q allows everybody", v)
			}
		case "cors-allow-origin":
			if r.cors.Origins == nil {
				t.Errorf("%q allows every origin", v)
			}
		}
		for _, s := range []string{r.permanent, r.temporal, r.rewrite, r.policy.AppRoot, r.policy.ForwardPrefix, r.policy.UpstreamHost, r.auth.URL, r.auth.SignIn, r.auth.Method, r.cors.Methods, r.affinity.Path, r.affinity.Domain, r.realm} {
			if printable(s) != nil {
				t.Errorf("%s: %q has a control character", a.Key, s)
			}
		}
	})
}

func FuzzLint(f *testing.F) {
	f.Add(lintIn)
	f.Add(oneIngress)
	f.Fuzz(func(t *testing.T, in string) {
		_, _ = Lint(strings.NewReader(in), &strings.Builder{}, LintOptions{})
	})
}

func TestValues(t *testing.T) {
	for in, want := range map[string]int64{"8m": 8 << 20, "1G": 1 << 30, "10": 10, "0": 0, "4K": 4096, "": -1, "m": -1, "-1": -1, "99999999999g": -1} {
		got, err := parseSize(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("size %q: %d, want %d", in, got, want)
		}
	}
	p, err := parseRanges("10.1.2.3/8, ::ffff:192.0.2.0/120 2001:db8::1")
	if err != nil || fmt.Sprint(p) != fmt.Sprint([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")}) {
		t.Errorf("%v, %v", p, err)
	}
	for in, ok := range map[string]bool{"http://a": true, "https://a:443/x?y": true, "http://$host/x": true, "http://a:0": false, "http://": false, "ftp://a": false, "http://u@a": false, "http://a b": false, "http://a;x": false} {
		if _, _, _, err := parseURL(in); (err == nil) != ok {
			t.Errorf("URL %q: %v", in, err)
		}
	}
}
