package http

import "testing"

func TestValidAuthority(t *testing.T) {
	for _, s := range []string{"a", "a.b", "A-b_c.~d.", "a:80", "a:", "1.2.3.4:65535", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]"} {
		if !ValidAuthority([]byte(s)) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", ":80", "a b", "a:b", "a:80:80", "a:123456", "a@b", "a/b", "a?b", "a#b", "a\\b", "a,b", "a;b", "a%41",
		"[", "[]", "[:]", "[::1", "[::1]a", "[::g]", "[fe80::1%25eth0]", "::1", "\xc3\xa4", "a\x00", "a\t", "(a)", "a'", "a*"} {
		if ValidAuthority([]byte(s)) {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestValidPath(t *testing.T) {
	for _, s := range []string{"/", "//", "/a%20b", "/%fF?%zz", "/a?b=/?%00", "/{}|\\^`<>\"[]", "/a;b,c=d:e@f!$&'()*+"} {
		if !ValidPath([]byte(s)) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{"", "a", "*", "?", "/a b", "/#", "/?#", "/\x00", "/\x7f", "/\xc3\xa4", "/%", "/%2", "/%2?a", "/%2g", "/%00", "/a%00/b"} {
		if ValidPath([]byte(s)) {
			t.Errorf("%q is taken", s)
		}
	}
}
