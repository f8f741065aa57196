package filter

import (
	"bytes"
	"regexp"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// replacer changes what an endpoint says about places: nginx' proxy_redirect,
// proxy_cookie_domain and proxy_cookie_path.
type replacer struct {
	from   []byte
	regex  *regexp.Regexp // in the place of from; all of the value is replaced
	to     *template
	domain bool // equal, without regard to case and a dot in front; else a prefix
}

func newReplacer(r *route.Rule, p *route.Replacement, domain bool) (*replacer, error) {
	if p == nil {
		return nil, nil //nolint:nilnil // nothing to replace
	}
	from, to := p.From, p.To
	if domain {
		from, to = trimDot(from), trimDot(to)
	}
	t, err := parse(to, r)
	if err != nil {
		return nil, err
	}
	return &replacer{from: []byte(from), regex: p.Regex, to: t, domain: domain}, nil
}

func trimDot[T string | []byte](s T) T {
	if len(s) > 0 && s[0] == '.' {
		return s[1:]
	}
	return s
}

// match says what of v is kept behind the replacement, and the captures.
func (p *replacer) match(v []byte) (rest []byte, captures [][]byte, ok bool) {
	switch {
	case p.regex != nil:
		captures = p.regex.FindSubmatch(v)
		return nil, captures, captures != nil
	case p.domain:
		return nil, nil, http.EqualFold(trimDot(v), p.from)
	case bytes.HasPrefix(v, p.from):
		return v[len(p.from):], nil, true
	}
	return nil, nil, false
}

// with expands what the template means for these captures.
func (x *Exchange) with(captures [][]byte, expand func() []byte) []byte {
	old := x.Captures
	x.Captures = captures
	out := expand()
	x.Captures = old
	return out
}

// place changes a URL; nil: it stays.
func (p *replacer) place(x *Exchange, v []byte) []byte {
	rest, captures, ok := p.match(v)
	if !ok {
		return nil
	}
	to := x.with(captures, func() []byte { return x.place(p.to) })
	if to == nil {
		return nil
	}
	start := len(x.buf)
	x.buf = appendURL(append(x.buf, to...), rest)
	return x.buf[start:len(x.buf):len(x.buf)]
}

// relocate changes Location and Refresh.
func (p *replacer) relocate(x *Exchange, fields http.Fields) {
	for i := range fields {
		f := &fields[i]
		switch {
		case f.ID == http.Location:
			if v := p.place(x, f.Value); v != nil {
				f.Value = v
			}
		case f.ID == http.Other && http.EqualFold(f.Name, nameRefresh):
			at := bytes.Index(bytes.ToLower(f.Value), []byte("url="))
			if at < 0 {
				continue
			}
			if v := p.place(x, f.Value[at+4:]); v != nil {
				f.Value = append(append(make([]byte, 0, at+4+len(v)), f.Value[:at+4]...), v...)
			}
		}
	}
}

var nameRefresh = []byte("Refresh")

// recook changes the attributes of cookies that an endpoint sets.
func (c *Chain) recook(x *Exchange, fields http.Fields) {
	for i := range fields {
		if fields[i].ID == http.SetCookie {
			fields[i].Value = c.recooked(x, fields[i].Value)
		}
	}
}

func (c *Chain) recooked(x *Exchange, cookie []byte) []byte {
	whole, out, changed := cookie, make([]byte, 0, len(cookie)+64), false
	for n := 0; len(cookie) > 0; n++ {
		item, rest, more := bytes.Cut(cookie, semicolon)
		cookie = rest
		name, v, _ := bytes.Cut(item, equals)
		var p *replacer
		if n > 0 {
			switch name = trim(name); {
			case http.EqualFold(name, nameDomain):
				p = c.cookieDomain
			case http.EqualFold(name, namePath):
				p = c.cookiePath
			}
		}
		if p != nil {
			if kept, captures, ok := p.match(trim(v)); ok {
				to := x.with(captures, func() []byte { return x.text(p.to) })
				item = append(append(item[:len(item)-len(v):len(item)-len(v)], attribute(string(to))...), kept...)
				changed = true
			}
		}
		if out = append(out, item...); more {
			out = append(out, ';')
		}
	}
	if !changed {
		return whole
	}
	return x.keep(out)
}

var (
	semicolon  = []byte(";")
	equals     = []byte("=")
	nameDomain = []byte("domain")
	namePath   = []byte("path")
)
