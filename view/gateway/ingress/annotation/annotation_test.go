package annotation

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// FuzzAnnotation: whatever the value, nothing panics, nothing that breaks lines
// gets into a policy, and what keeps people out does not let everybody in.
func FuzzAnnotation(f *testing.F) {
	all := All()
	for i, v := range []string{"true", "10.0.0.0/8", "200 202 10m, 401 5m", "8m", "https://a.example.com/$request_uri", "error http_502", "/$1", "(?i)x", "a\r\nb", "", "-1", "99999999999999999999", "*", "2001:db8::/32"} {
		f.Add(uint8(i*7), v)
	}
	f.Fuzz(func(t *testing.T, n uint8, v string) {
		a := &all[int(n)%len(all)]
		if a.Apply == nil {
			return
		}
		r := New()
		err := a.Apply(r, v)
		switch a.Key {
		case "whitelist-source-range", "allowlist-source-range":
			if err == nil && len(r.Policy.Allow) == 0 {
				t.Errorf("%q allows everybody", v)
			}
		case "cors-allow-origin":
			if r.CORS.Origins == nil {
				t.Errorf("%q allows every origin", v)
			}
		}
		texts(reflect.ValueOf(r).Elem(), func(s string) {
			if Printable(s) != nil {
				t.Errorf("%s: %q has a control character", a.Key, s)
			}
		})
	})
}

// texts gives every text in a value, but for expressions.
func texts(v reflect.Value, f func(string)) {
	switch v.Kind() {
	case reflect.String:
		f(v.String())
	case reflect.Pointer:
		if !v.IsNil() && v.Type() != reflect.TypeFor[*regexp.Regexp]() {
			texts(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			texts(v.Index(i), f)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[netip.Prefix]() {
			return
		}
		for i := range v.NumField() {
			texts(v.Field(i), f)
		}
	}
}

// FuzzRule: what annotations make of a rule can be compiled or is refused, and then
// does with requests what it says: nobody is let in by a list that does not name it,
// or without the password, and no answer has a broken line.
func FuzzRule(f *testing.F) {
	all := All()
	number := func(key string) uint8 {
		i := slices.IndexFunc(all, func(a Annotation) bool { return a.Key == key })
		if i < 0 || i > 255 {
			f.Fatalf("%s is number %d", key, i)
		}
		return uint8(i)
	}
	for _, seed := range [][6]string{
		{"rewrite-target", "/$1", "proxy-redirect-from", "~^http://(.*)$", "proxy-redirect-to", "/$1"},
		{"whitelist-source-range", "10.0.0.0/8", "satisfy", "any", "permanent-redirect", "https://$host$request_uri"},
		{"auth-url", "http://auth/$request_uri", "auth-signin", "https://$host/", "proxy-cookie-path", "/ /x"},
		{"cors-allow-origin", "https://*.example.com", "enable-cors", "true", "upstream-hash-by", "$arg_x"},
		{"denylist-source-range", "192.0.2.1", "app-root", "/x", "limit-rps", "1"},
	} {
		f.Add(number(seed[0]), seed[1], number(seed[2]), seed[3], number(seed[4]), seed[5])
	}
	s, err := filter.New(filter.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, k1 uint8, v1 string, k2 uint8, v2 string, k3 uint8, v3 string) {
		r := New()
		for i, v := range []string{v1, v2, v3} {
			if a := &all[int([]uint8{k1, k2, k3}[i])%len(all)]; a.Apply != nil {
				_ = a.Apply(r, v)
			}
		}
		p := &r.Policy
		if r.Rewrite != "" {
			p.Rewrite = &r.Rewrite
		}
		if r.HashBy != "" {
			p.Balance = route.Balance{Algorithm: "ring_hash", HashBy: r.HashBy}
		}
		if r.CORSOn {
			p.CORS = &r.CORS
		}
		if r.Auth.URL != "" {
			p.Auth = &r.Auth
		}
		if from := r.RedirectFrom; from != "" && from != "off" && from != "default" && r.RedirectTo != "" {
			p.Location, _ = ParseReplacement(from, r.RedirectTo, false)
		}
		rule := &route.Rule{Path: route.Path{Value: "/"}, Policy: p, Origin: route.Origin{Kind: "Ingress", Namespace: "default", Name: "web"}}
		switch {
		case r.Temporal != "":
			rule.Redirect = &route.Redirect{Status: r.TemporalCode, URL: r.Temporal}
		case r.Permanent != "":
			rule.Redirect = &route.Redirect{Status: r.PermanentCode, URL: r.Permanent}
		}
		c, err := s.Compile(&route.Host{Name: "shop.example.com"}, rule)
		if err != nil {
			return // the rule is not served
		}
		client := netip.MustParseAddr("192.0.2.1")
		req := &http.Request{Version: http.HTTP11, Method: []byte("GET"), Authority: []byte("shop.example.com"), Path: []byte("/a?x=y")}
		x := filter.Exchange{Fetch: func(*filter.Call) error { return errors.New("away") }}
		s.Begin(&x, &stream.Peer{Remote: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client, 1))}, req, time.Unix(1700000000, 0))
		a := c.Request(&x)
		in := len(p.Allow) == 0
		for _, q := range p.Allow {
			in = in || q.Contains(client)
		}
		for _, q := range p.Deny {
			in = in && !q.Contains(client)
		}
		if a == nil && !in {
			t.Errorf("%v is let in by %v but for %v", client, p.Allow, p.Deny)
		}
		if a == nil && p.Auth != nil && (!p.SatisfyAny || len(p.Allow) == 0) {
			t.Error("let in though the authentication server is away")
		}
		resp := http.Response{Status: 302}
		if a != nil {
			resp.Status, resp.Fields = a.Status, append(resp.Fields, a.Fields...)
		} else {
			resp.Fields.Add(http.Location, []byte("http://in/x"))
			resp.Fields.Add(http.SetCookie, []byte("a=b; Path=/; Domain=in"))
		}
		c.Response(&x, &resp)
		for _, fields := range []http.Fields{req.Fields, resp.Fields} {
			for _, v := range fields {
				if Printable(string(v.Name)) != nil || Printable(string(v.Value)) != nil {
					t.Errorf("a field has a broken line: %q: %q", v.Name, v.Value)
				}
			}
		}
		if Printable(string(req.Path)) != nil || len(req.Path) == 0 || req.Path[0] != '/' {
			t.Errorf("the path is %q", req.Path)
		}
	})
}

func FuzzPasswords(f *testing.F) {
	f.Add("a:b\n#c:d\r\n:x\na:c\ne:f:g")
	f.Add("0::x")
	f.Fuzz(func(t *testing.T, file string) {
		for user, hash := range ParsePasswords(file) {
			if user == "" || hash == "" || strings.Contains(user, ":") || strings.Contains(hash, ":") || strings.ContainsAny(user+hash, "\n") {
				t.Errorf("%q has %q", user, hash)
			}
		}
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
		if _, _, _, err := ParseURL(in); (err == nil) != ok {
			t.Errorf("URL %q: %v", in, err)
		}
	}
}
