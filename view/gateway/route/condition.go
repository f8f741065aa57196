package route

import (
	"regexp"

	"github.com/fingerpost/fingerpost/wire/http"
)

// conditions are what a rule asks besides host and path.
type conditions struct {
	count   int
	method  string
	headers []condition
	query   []condition
}

type condition struct {
	id    http.ID
	name  []byte
	value string
	regex *regexp.Regexp
	m     *ValueMatch
}

func compileConditions(r *Rule) *conditions {
	n := len(r.Headers) + len(r.Query)
	if r.Method != "" {
		n++
	}
	if n == 0 {
		return nil
	}
	c := &conditions{count: n, method: r.Method}
	prepare := func(in []ValueMatch, header bool) (out []condition) {
		for i := range in {
			m := &in[i]
			x := condition{name: []byte(m.Name), value: m.Value, m: m}
			if header {
				x.id = http.Identify(x.name)
			}
			if m.Regex != nil {
				x.regex = whole(m.Regex)
			}
			out = append(out, x)
		}
		return out
	}
	c.headers, c.query = prepare(r.Headers, true), prepare(r.Query, false)
	return c
}

// whole binds an expression to the whole value.
func whole(re *regexp.Regexp) *regexp.Regexp {
	if b, err := regexp.Compile("^(?:" + re.String() + ")$"); err == nil {
		return b
	}
	return re
}

// hold says whether all conditions are met; if not, which one is not.
func (c *conditions) hold(q *Query) (failed *ValueMatch, ok bool) {
	if c.method != "" && c.method != string(q.Method) {
		return nil, false
	}
	for i := range c.headers {
		if x := &c.headers[i]; x.header(q) == x.m.Not {
			return x.m, false
		}
	}
	for i := range c.query {
		if x := &c.query[i]; x.parameter(q) == x.m.Not {
			return x.m, false
		}
	}
	return nil, true
}

// header says that one of the fields of the name has the value.
func (x *condition) header(q *Query) bool {
	if x.id == http.Host {
		return x.accepts(q.Host)
	}
	for i := range q.Fields {
		f := &q.Fields[i]
		if f.ID == x.id && (x.id != http.Other || http.EqualFold(f.Name, x.name)) && x.accepts(f.Value) {
			return true
		}
	}
	return false
}

func (x *condition) accepts(v []byte) bool {
	switch {
	case x.regex != nil:
		return x.regex.Match(v)
	case x.m.Present:
		return true
	}
	return string(v) == x.value
}

// parameter says that the first parameter of the name has the value. Escapes
// count as what they stand for.
func (x *condition) parameter(q *Query) bool {
	rest := q.Path
	for i, c := range rest {
		if c == '?' {
			rest = rest[i+1:]
			for len(rest) > 0 {
				pair := rest
				rest = nil
				for j, c := range pair {
					if c == '&' {
						pair, rest = pair[:j], pair[j+1:]
						break
					}
				}
				name, value := pair, []byte(nil)
				for j, c := range pair {
					if c == '=' {
						name, value = pair[:j], pair[j+1:]
						break
					}
				}
				if !unescapedEqual(name, string(x.name)) {
					continue
				}
				switch {
				case x.regex != nil:
					return x.regex.Match(unescape(nil, value))
				case x.m.Present:
					return true
				}
				return unescapedEqual(value, x.value)
			}
			return false
		}
	}
	return false
}

// unescapedEqual compares a part of a query with a text.
func unescapedEqual(b []byte, s string) bool {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(b) && unhex(b[i+1]) < 16 && unhex(b[i+2]) < 16:
			c = unhex(b[i+1])<<4 | unhex(b[i+2])
			i += 2
		}
		if n == len(s) || s[n] != c {
			return false
		}
		n++
	}
	return n == len(s)
}

func unescape(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(b) && unhex(b[i+1]) < 16 && unhex(b[i+2]) < 16:
			c = unhex(b[i+1])<<4 | unhex(b[i+2])
			i += 2
		}
		dst = append(dst, c)
	}
	return dst
}
