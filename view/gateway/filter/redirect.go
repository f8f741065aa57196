package filter

import (
	"bytes"
	"strconv"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// toHTTPS answers with the same place on https.
func (c *Chain) toHTTPS(x *Exchange, by string) *Answer {
	if len(hostname(x.host)) == 0 {
		return x.reply(400, by)
	}
	start := len(x.buf)
	x.buf = append(x.buf, "https://"...)
	x.buf = append(x.buf, hostname(x.host)...)
	if port := c.set.cfg.HTTPSPort; port != 0 && port != 443 {
		x.buf = strconv.AppendUint(append(x.buf, ':'), uint64(port), 10)
	}
	x.buf = appendURI(x.buf, x.Path)
	return x.redirect(c.sslStatus, x.buf[start:len(x.buf):len(x.buf)], by)
}

// appendURI appends path and query; what is no path ("*") becomes "/".
func appendURI(dst, path []byte) []byte {
	if len(path) == 0 || path[0] != '/' {
		return append(dst, '/')
	}
	return appendURL(dst, path)
}

// toAppRoot answers a request of "/" with where the application begins.
func (c *Chain) toAppRoot(x *Exchange) *Answer {
	if len(hostname(x.host)) == 0 {
		return x.reply(400, "app-root")
	}
	start := len(x.buf)
	x.buf = append(append(x.buf, x.Scheme()...), "://"...)
	x.buf = append(x.buf, x.host...)
	x.buf = append(x.buf, c.appRoot...)
	return x.redirect(302, x.buf[start:len(x.buf):len(x.buf)], "app-root")
}

// place expands a template into a Location. nil: what the client sent cannot
// be part of one.
//
// Captures, arguments and the like may be anything, so they get no say in
// where the redirect goes: behind a host they begin a path, and inside a host
// they are labels of it. A place that begins with them is on this host.
func (x *Exchange) place(t *template) []byte {
	if t.fixed != nil {
		return t.fixed
	}
	var room [512]byte
	out := room[:0]
	inside := -1 // where the authority begins, while we are in it
	for i := range t.parts {
		p := &t.parts[i]
		v := x.value(p)
		switch p.kind {
		case literal:
			if inside >= 0 && bytes.ContainsAny(v, "/?#") {
				inside = -1
			}
			out = append(out, v...)
			if at := bytes.Index(out, []byte("://")); at >= 0 && !bytes.ContainsAny(out[at+3:], "/?#") && !bytes.ContainsAny(out[:at], "/?#") {
				inside = at + 3
			}
		case host, authority, bestHost:
			if len(hostname(v)) == 0 {
				return nil // HTTP/1.0 without Host: there is no place to name
			}
			out = append(out, v...)
		case scheme, serverPort, remoteAddr, remotePort:
			out = append(out, v...)
		case escapedURI:
			out = appendQuery(out, v)
		default:
			if inside < 0 {
				if len(out) == 0 && len(v) > 0 && v[0] != '/' {
					out = append(out, '/')
				}
				out = appendURL(out, v)
				break
			}
			if len(v) == 0 {
				break
			}
			if len(out) == inside || continues(t.parts[i+1:]) {
				if !all(v, inLabel) {
					return nil
				}
				out = append(out, v...)
				break
			}
			if v[0] != '/' && v[0] != '?' && v[0] != '#' {
				out = append(out, '/')
			}
			inside = -1
			out = appendURL(out, v)
		}
	}
	// "//host" and "/\host" are other hosts to a browser.
	for len(out) > 1 && out[0] == '/' && (out[1] == '/' || out[1] == '\\') {
		out = out[1:]
	}
	return x.keep(out)
}

// continues says that a host goes on behind a variable.
func continues(rest []part) bool {
	return len(rest) > 0 && rest[0].kind == literal && classes[rest[0].text[0]]&inLabel != 0
}

// toPlace answers with a redirect of the rule's own.
func (c *Chain) toPlace(x *Exchange) *Answer {
	location := x.place(c.redirect)
	if location == nil {
		return x.reply(400, "redirect")
	}
	return x.redirect(c.redirectStatus, location, "redirect")
}

// rewritten gives the request its new path: the template with captures, and
// the query that came unless the template ends with "?".
func (c *Chain) rewritten(x *Exchange) *Answer {
	t := c.rewrite
	if c.rewriteAway {
		location := x.place(t)
		if location == nil {
			return x.reply(400, "rewrite")
		}
		return x.redirect(302, location, "rewrite")
	}
	var room [512]byte
	out := room[:0]
	asked := false
	for i := range t.parts {
		p := &t.parts[i]
		v := x.value(p)
		switch p.kind {
		case literal:
			asked = asked || bytes.IndexByte(v, '?') >= 0
			out = append(out, v...)
		case requestURI, args, isArgs:
			asked = asked || p.kind != args
			out = appendURL(out, v)
		default:
			if asked {
				out = appendURL(out, v)
			} else {
				out = appendPath(out, v)
			}
		}
	}
	if len(out) == 0 || out[0] != '/' {
		out = append(out, 0)
		copy(out[1:], out)
		out[0] = '/'
	}
	if q := query(x.Path); t.parts != nil && out[len(out)-1] == '?' {
		out = out[:len(out)-1]
	} else if len(q) > 0 && !c.rewriteOwnQuery {
		if asked {
			out = append(out, '&')
		} else {
			out = append(out, '?')
		}
		out = appendURL(out, q)
	}
	if route.Unsafe(pathOf(out)) {
		return x.reply(400, "rewrite")
	}
	x.Request.Path = x.keep(out)
	return nil
}

// appendPath appends what came from a client to a path.
func appendPath(dst, b []byte) []byte {
	for _, c := range b {
		if classes[c]&inURL != 0 && c != '?' && c != '#' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// normal says that the request can be answered with a redirect at all, and be
// told to an endpoint: its host is one.
func (x *Exchange) normal() bool {
	// The name of a trusted proxy was looked at in believe.
	return all(x.Authority, inHost) && (len(x.Authority) == 0 || x.Authority[0] != ':')
}
