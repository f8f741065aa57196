package route

import (
	"bytes"
	"strings"
)

// node is one of a radix tree over the paths of a host. Nodes of an edition
// that is finished are never changed: a later one copies those on its way.
type node struct {
	prefix  string
	labels  []byte // the first bytes of kids, in their order
	kids    []*node
	rules   []*compiled // whose path ends here, best first
	edition *edition
}

// edition is who may change a node in place. It is not empty, so that each has
// an address of its own.
type edition struct{ _ byte }

// own gives the node for changing.
func (n *node) own(e *edition) *node {
	if n.edition == e {
		return n
	}
	c := *n
	c.edition = e
	c.kids = append([]*node(nil), n.kids...)
	c.labels = append([]byte(nil), n.labels...)
	return &c
}

// set gives the tree in which these rules are at path; none takes it out.
func (n *node) set(e *edition, path string, rules []*compiled) *node {
	if n == nil {
		if len(rules) == 0 {
			return nil
		}
		return &node{prefix: path, rules: rules, edition: e}
	}
	same := common(n.prefix, path)
	if same < len(n.prefix) {
		if len(rules) == 0 {
			return n
		}
		below := n.own(e)
		top := &node{prefix: n.prefix[:same], labels: []byte{n.prefix[same]}, kids: []*node{below}, edition: e}
		below.prefix = n.prefix[same:]
		if same == len(path) {
			top.rules = rules
			return top
		}
		top.labels = append(top.labels, path[same])
		top.kids = append(top.kids, &node{prefix: path[same:], rules: rules, edition: e})
		return top
	}
	n = n.own(e)
	if same == len(path) {
		n.rules = rules
		return n.tidy(e)
	}
	rest := path[same:]
	i := bytes.IndexByte(n.labels, rest[0])
	if i < 0 {
		if len(rules) > 0 {
			n.labels = append(n.labels, rest[0])
			n.kids = append(n.kids, &node{prefix: rest, rules: rules, edition: e})
		}
		return n
	}
	if kid := n.kids[i].set(e, rest, rules); kid != nil {
		n.kids[i] = kid
	} else {
		n.labels = append(n.labels[:i], n.labels[i+1:]...)
		n.kids = append(n.kids[:i], n.kids[i+1:]...)
	}
	return n.tidy(e)
}

// tidy gives what remains of a node of this edition: nothing, or one joined
// with its only child.
func (n *node) tidy(e *edition) *node {
	switch {
	case len(n.rules) > 0 || len(n.kids) > 1:
		return n
	case len(n.kids) == 0:
		return nil
	}
	kid := n.kids[0].own(e)
	kid.prefix = n.prefix + kid.prefix
	return kid
}

// at gives the node at exactly this path.
func (n *node) at(path string) *node {
	for strings.HasPrefix(path, n.prefix) {
		path = path[len(n.prefix):]
		if path == "" {
			return n
		}
		i := bytes.IndexByte(n.labels, path[0])
		if i < 0 {
			return nil
		}
		n = n.kids[i]
	}
	return nil
}

// find gives the rule with the longest path that matches from at on; what says
// which kinds count.
func (n *node) find(q *Query, path string, at int, exact, prefixes bool) *compiled {
	rest := path[at:]
	if len(rest) < len(n.prefix) || rest[:len(n.prefix)] != n.prefix {
		return nil
	}
	at += len(n.prefix)
	if at < len(path) {
		if i := bytes.IndexByte(n.labels, path[at]); i >= 0 {
			if c := n.kids[i].find(q, path, at, exact, prefixes); c != nil {
				return c
			}
		}
	}
	for _, c := range n.rules {
		switch c.kind {
		case Exact:
			if !exact || at < len(path) {
				continue
			}
		case Prefix:
			if !prefixes || at < len(path) && path[at] != '/' {
				continue
			}
		default:
			if !prefixes {
				continue
			}
		}
		if c.conditions == nil {
			return c
		}
		if _, ok := c.conditions.hold(q); ok {
			return c
		}
	}
	return nil
}

func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
