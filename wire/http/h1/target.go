package h1

import (
	"bytes"

	"github.com/fingerpost/fingerpost/wire/http"
)

// splitTarget takes path and authority from the four forms of a request target (RFC
// 9112, 3.2).
func splitTarget(r *http.Request, t []byte) error {
	switch {
	case isConnect(r.Method):
		colon := bytes.LastIndexByte(t, ':')
		if !http.ValidAuthority(t) || colon < 0 || colon == len(t)-1 || t[len(t)-1] == ']' {
			return malformed("invalid target of CONNECT")
		}
		r.Authority = t
		return nil
	case t[0] == '/':
		r.Path = t
	case len(t) == 1 && t[0] == '*' && string(r.Method) == "OPTIONS":
		r.Path = t
		return nil
	default:
		if err := absolute(r, t); err != nil {
			return err
		}
	}
	if !http.ValidEscapes(r.Path) {
		return malformed("invalid escape in the path")
	}
	return nil
}

func absolute(r *http.Request, t []byte) error {
	switch {
	case len(t) > 7 && fold(t[:7], "http://"):
		t = t[7:]
	case len(t) > 8 && fold(t[:8], "https://"):
		t = t[8:]
	default:
		return malformed("invalid request target")
	}
	end := bytes.IndexAny(t, "/?")
	if end < 0 {
		end = len(t)
	}
	if !http.ValidAuthority(t[:end]) {
		return malformed("invalid authority in the request target")
	}
	r.Authority = t[:end:end]
	switch t = t[end:]; {
	case len(t) == 0 && string(r.Method) == "OPTIONS":
		r.Path = []byte("*")
	case len(t) == 0:
		r.Path = []byte("/")
	case t[0] == '?':
		r.Path = append([]byte("/"), t...)
	default:
		r.Path = t
	}
	return nil
}

// sameAuthority compares hosts in any case; one of them may have a default port
// that the other leaves out.
func sameAuthority(a, b []byte) bool {
	return http.EqualFold(a, b) || http.EqualFold(plain(a), b) || http.EqualFold(a, plain(b))
}

func plain(a []byte) []byte {
	for _, port := range [...]string{":80", ":443", ":"} {
		if n := len(a) - len(port); n > 0 && string(a[n:]) == port {
			return a[:n]
		}
	}
	return a
}
