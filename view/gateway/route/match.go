package route

import (
	"unsafe"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Query is what of a request decides where it goes. It holds the memory that
// matching needs: use one again and again.
type Query struct {
	Host   []byte // :authority or Host, with or without port
	Path   []byte // the request target: path and query
	Method []byte
	Fields http.Fields

	spans  spans
	arena  []byte
	second []byte
}

// Match is where a request goes.
type Match struct {
	// Host decides; nil: none does.
	Host *Host
	// Rule is nil if there is none: 404. It is that of [Global].Default if no other
	// matched.
	Rule *Rule
	Data any // what compile made of it
	// Path is what was matched, without query: with escapes only where they must
	// be. It is valid as long as the bytes of the query, and until the query is used again.
	Path []byte
	// Forward is what the endpoint must get instead of the path that came (the
	// query stays); nil: it may get what came. See the package about why.
	Forward []byte
	// Refused says why there is no answer but 400.
	Refused string

	query *Query
}

// Capture gives a part of Path that the expression of a Regex rule captured: 1
// is $1, and 0 is the path. It is valid as long as Path.
func (m *Match) Capture(n int) []byte {
	switch {
	case n == 0:
		return m.Path
	case m.query == nil || n < 0 || n > m.query.spans.n || m.query.spans.from[n-1] < 0:
		return nil
	}
	return m.Path[m.query.spans.from[n-1]:m.query.spans.to[n-1]]
}

// Captures is how many there are.
func (m *Match) Captures() int {
	if m.query == nil {
		return 0
	}
	return m.query.spans.n
}

// Match finds the rule for a request. The query must not be used by two at
// once.
func (t *Table) Match(q *Query) (m Match) {
	q.spans.n = 0
	e := t.find(q.Host)
	if e != nil {
		m.Host = e.host
	}
	n, ok := clean(q.Path)
	if !ok {
		t.odd(e, q, &m)
		return m
	}
	m.Path = q.Path[:n]
	m.take(t.rule(e, q, m.Path))
	if q.spans.n > 0 {
		m.query = q
	}
	return m
}

func (m *Match) take(c *compiled) {
	if c != nil {
		m.Rule, m.Data = c.rule, c.data
	}
}

// HostOf finds the host that decides for a server name, such as that of TLS; nil
// if none does.
func (t *Table) HostOf(serverName string) *Host {
	if e := t.find(unsafe.Slice(unsafe.StringData(serverName), len(serverName))); e != nil {
		return e.host
	}
	return nil
}

// rule finds the rule for a path, or the one that takes what is left.
func (t *Table) rule(e *entry, q *Query, path []byte) *compiled {
	if e != nil {
		if c := e.index(t.compile).find(q, path); c != nil {
			return c
		}
	}
	if t != nil && t.fallback != nil {
		return &t.fallback.index(t.compile).list[0]
	}
	return nil
}

// find looks for the best rule of the host.
func (e *index) find(q *Query, path []byte) *compiled {
	p := unsafe.String(unsafe.SliceData(path), len(path))
	if e.all == nil {
		for i := range e.list {
			c := &e.list[i]
			if c.kind == Regex {
				if c.pattern == nil || !c.pattern.match(path, &q.spans) {
					continue
				}
			} else if !c.matches(p) {
				continue
			}
			if c.fulfilled(q) {
				if c.kind != Regex {
					q.spans.n = 0
				}
				return c
			}
		}
		q.spans.n = 0
		return nil
	}
	if len(e.regexes) == 0 {
		if e.root == nil {
			return nil
		}
		return e.root.find(q, p, 0, true, true)
	}
	if e.root != nil {
		if c := e.root.find(q, p, 0, true, false); c != nil {
			return c
		}
	}
	for _, c := range e.regexes {
		if c.pattern != nil && c.pattern.match(path, &q.spans) && c.fulfilled(q) {
			return c
		}
	}
	q.spans.n = 0
	if e.root != nil {
		return e.root.find(q, p, 0, false, true)
	}
	return nil
}

func (c *compiled) fulfilled(q *Query) bool {
	if c.conditions == nil {
		return true
	}
	_, ok := c.conditions.hold(q)
	return ok
}

// odd matches a path that can be read in more than one way. Either all ways
// lead to the same rule, or what is sent on is what was matched, or it is refused.
func (t *Table) odd(e *entry, q *Query, m *Match) {
	if string(q.Path) == "*" || len(q.Path) == 0 {
		// OPTIONS * and CONNECT ask the host, not a path of it.
		m.Path = q.Path
		m.take(t.rule(e, q, []byte("/")))
		return
	}
	p, odd, refused := canonical(q.arena[:0], q.Path)
	q.arena = p
	if refused != "" {
		m.Refused = refused
		return
	}
	plain, masked := dots(p)
	switch {
	case masked, plain && odd&^parameters != 0:
		m.Refused = "dot elements in a path that can be read in more than one way"
		return
	case plain:
		var above bool
		if p, above = resolve(p); above {
			m.Refused = "a path that leaves the root"
			return
		}
		m.Forward = p
	}
	if len(p) > 1 && p[1] == '/' {
		// Some take "//a/b" for the path /b at the host a.
		for len(p) > 1 && p[1] == '/' {
			p = p[1:]
		}
		m.Forward = p
	}
	m.Path = p
	best := t.rule(e, q, p)
	for mask := 1; mask < 1<<kinds; mask++ {
		if mask&^odd != 0 {
			continue
		}
		keep := q.spans
		q.second = read(q.second[:0], p, mask)
		c := t.rule(e, q, q.second)
		if c == best {
			q.spans = keep
			continue
		}
		if odd != empties {
			m.Refused = "a path that leads to different rules, depending on who reads it"
			return
		}
		m.Path, m.Forward, best = q.second, q.second, c
	}
	m.take(best)
	if q.spans.n > 0 {
		m.query = q
	}
}
