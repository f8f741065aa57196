package v1alpha1

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestSlug(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want string }{
		{"web", "web"},
		{"my-app", "my-app"},
		{"a1", "a1"},
		{long, long},
		{"Web", "web-" + hash("Web")},
		{"com.acme.Greeter:1.0:blue", "com-acme-greeter-1-0-blue-" + hash("com.acme.Greeter:1.0:blue")},
		{"web-", "web-" + hash("web-")},
		{"1st", "s-1st-" + hash("1st")},
		{"", "s-" + hash("")},
		{"---", "s-" + hash("---")},
		{"größe", "gr--e-" + hash("größe")},
		{long + "a", long[:52] + "-" + hash(long+"a")},
		{strings.Repeat("a", 51) + ".bbbbbbbbbbbb", strings.Repeat("a", 51) + "-" + hash(strings.Repeat("a", 51)+".bbbbbbbbbbbb")},
	} {
		if got := Slug(c.in); got != c.want {
			t.Errorf("Slug(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestInstanceName(t *testing.T) {
	base := InstanceName("web", "10.0.0.1", 80)
	if !strings.HasPrefix(base, "web-") || len(base) != len("web-")+hashLen {
		t.Fatalf("unexpected form %q", base)
	}
	for _, same := range []string{"::ffff:10.0.0.1", "::ffff:a00:1"} {
		if got := InstanceName("web", same, 80); got != base {
			t.Errorf("%s: %s, want the name of 10.0.0.1, %s", same, got, base)
		}
	}
	if InstanceName("web", "2001:db8::1", 80) != InstanceName("web", "2001:0db8:0::0001", 80) {
		t.Error("two spellings of one IPv6 address have two names")
	}
	seen := map[string]bool{base: true}
	for _, n := range []string{
		InstanceName("web", "10.0.0.1", 81), InstanceName("web", "10.0.0.2", 80),
		InstanceName("wef", "10.0.0.1", 80), InstanceName("Web", "10.0.0.1", 80),
	} {
		if seen[n] {
			t.Errorf("%s names two endpoints", n)
		}
		seen[n] = true
	}
	// Doors, also those written in other languages, rely on the name: it must not change.
	if want := "web-ja4cv42rr9"; base != want {
		t.Errorf("InstanceName(web, 10.0.0.1, 80) = %s, was %s before", base, want)
	}
}

func FuzzNames(f *testing.F) {
	f.Add("web", "127.0.0.1", int32(80))
	f.Add("com.acme.Greeter:1.0:blue", "::1", int32(65535))
	f.Add("", "", int32(-1))
	f.Add("-9\xff\x00", "x", int32(0))
	f.Add(strings.Repeat("a", 51)+"-"+strings.Repeat("b", 40), "fe80::1%eth0", int32(1))
	f.Fuzz(func(t *testing.T, service, address string, port int32) {
		s := Slug(service)
		if e := validation.IsDNS1035Label(s); e != nil {
			t.Errorf("Slug(%q) = %q: %v", service, s, e)
		}
		if again := Slug(s); again != s {
			t.Errorf("Slug(%q) = %q, of that again %q", service, s, again)
		}
		n := InstanceName(service, address, port)
		if e := validation.IsDNS1123Label(n); e != nil {
			t.Errorf("InstanceName(%q, %q, %d) = %q: %v", service, address, port, n, e)
		}
	})
}

func BenchmarkInstanceName(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		InstanceName("my-app", "10.1.2.3", 8080)
	}
}
