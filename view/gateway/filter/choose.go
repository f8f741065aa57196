package filter

import (
	"encoding/hex"
	"math/rand/v2"
	"regexp"
	"strconv"
	"time"
	"unsafe"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// canary decides whether the second version takes a request, in the order of
// ingress-nginx: where the client was before, header, cookie, weight.
type canary struct {
	header, value []byte
	pattern       *regexp.Regexp
	cookie        []byte
	weight, total uint32
	tag           [tagBytes]byte
}

func newCanary(s *Set, c *route.Canary) canary {
	out := canary{header: []byte(c.Header), value: []byte(c.HeaderValue), pattern: c.HeaderPattern,
		cookie: []byte(c.Cookie), weight: c.Weight, total: c.Total, tag: tagOf(c.Origin)}
	if out.total == 0 {
		out.total = 100
	}
	return out
}

// takes decides by header, cookie and weight.
func (c *canary) takes(x *Exchange) bool {
	if yes, ok := c.decided(x); ok {
		return yes
	}
	return c.weight > 0 && rand.Uint32N(c.total) < c.weight
}

// decided says what header and cookie say; ok: they say something.
func (c *canary) decided(x *Exchange) (yes, ok bool) {
	if len(c.header) > 0 {
		if v := x.Request.Fields.Lookup(c.header); v != nil {
			switch {
			case len(c.value) > 0:
				if string(v) == string(c.value) {
					return true, true
				}
			case c.pattern != nil:
				if c.pattern.Match(v) {
					return true, true
				}
			case string(v) == "always":
				return true, true
			case string(v) == "never":
				return false, true
			}
		}
	}
	if len(c.cookie) > 0 {
		switch string(cookie(x.Request.Fields, c.cookie)) {
		case "always":
			return true, true
		case "never":
			return false, true
		}
	}
	return false, false
}

// choose finds the endpoint of the affinity cookie and the canary.
func (c *Chain) choose(x *Exchange) {
	if c.affinity != nil {
		c.affinity.read(c, x)
	}
	if x.group != noGroup {
		x.Canary = x.group
		return
	}
	for i := range c.canaries {
		if c.canaries[i].takes(x) {
			x.Canary = i
			return
		}
	}
}

// hashOf is what hash balancers go by: the same on all gateways, for all time.
func hashOf(x *Exchange, t *template) uint64 {
	h := uint64(14695981039346656037)
	for i := range t.parts {
		for _, b := range x.value(&t.parts[i]) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// affinity keeps a client at an endpoint. The cookie is one block: the id of
// the endpoint and which backends it belongs to, sealed, so that it tells nothing
// and nobody makes one.
type affinity struct {
	name       []byte
	attributes []byte // behind the value
	expires    int64  // s
	secure     *bool
	onFailure  bool
	legacy     bool // a canary is chosen anew for each request
	tag        [tagBytes]byte
}

const (
	tagBytes = 3
	idBytes  = 16 - tagBytes
	noGroup  = -2
)

func tagOf(o route.Origin) (tag [tagBytes]byte) {
	h := fnv(o.Kind + "/" + o.Namespace + "/" + o.Name)
	h ^= h >> 32
	return [tagBytes]byte{byte(h), byte(h >> 8), byte(h >> 16)}
}

func newAffinity(s *Set, r *route.Rule, p *route.Affinity) *affinity {
	a := &affinity{name: []byte(p.Cookie), secure: p.Secure, onFailure: p.OnFailure, expires: int64(p.Expires.Seconds()),
		legacy: p.Canary == "legacy", tag: tagOf(r.Origin)}
	if len(a.name) == 0 || !all(a.name, inToken) {
		a.name = []byte("INGRESSCOOKIE")
	}
	path := p.Path
	if path == "" && r.Path.Kind != route.Regex {
		path = r.Path.Value
	}
	if path == "" || path[0] != '/' {
		path = "/"
	}
	out := append([]byte("; Path="), attribute(path)...)
	if p.Domain != "" {
		out = append(append(out, "; Domain="...), attribute(p.Domain)...)
	}
	if p.MaxAge > 0 {
		out = strconv.AppendInt(append(out, "; Max-Age="...), int64(p.MaxAge.Seconds()), 10)
	}
	out = append(out, "; HttpOnly"...)
	if p.SameSite != "" {
		out = append(append(out, "; SameSite="...), attribute(p.SameSite)...)
	}
	if p.Partitioned {
		out = append(out, "; Partitioned"...)
	}
	a.attributes = out
	return a
}

// attribute takes out what would begin another attribute.
func attribute(s string) []byte {
	var out []byte
	for i := range len(s) {
		if classes[s[i]]&inCookie != 0 {
			out = append(out, s[i])
		}
	}
	return out
}

// read takes the endpoint out of the cookie.
func (a *affinity) read(c *Chain, x *Exchange) {
	v := cookie(x.Request.Fields, a.name)
	if len(v) != 32 {
		return
	}
	start := len(x.buf)
	x.buf = append(x.buf, v[:16]...) // room for the block
	block := x.buf[start:len(x.buf):len(x.buf)]
	if _, err := hex.Decode(block, v); err != nil {
		return
	}
	c.set.seal.Decrypt(block, block)
	n := 0
	for n < idBytes && block[n] != 0 {
		n++
	}
	if n == 0 || !all(block[:n], inCookie) {
		return
	}
	group := noGroup
	if string(block[idBytes:]) == string(a.tag[:]) {
		group = -1
	}
	for i := range c.canaries {
		if string(block[idBytes:]) == string(c.canaries[i].tag[:]) {
			group = i
		}
	}
	if group == noGroup { // of another rule, or from before a key was changed
		return
	}
	x.Sticky = unsafe.String(unsafe.SliceData(block), n)
	if !a.legacy {
		x.group = group
	}
}

// respond tells the client its endpoint, if it is not the one it named.
func (a *affinity) respond(c *Chain, x *Exchange, r *http.Response) {
	if x.chosen == x.Sticky || len(x.chosen) > idBytes {
		return
	}
	if x.Sticky != "" && x.failed && !a.onFailure {
		return // it comes back, and so will the client
	}
	tag := a.tag
	if x.Canary >= 0 && x.Canary < len(c.canaries) {
		tag = c.canaries[x.Canary].tag
	}
	start := len(x.buf)
	x.buf = append(x.buf, "0123456789abcdef"...) // room for the block
	block := x.buf[start:len(x.buf):len(x.buf)]
	clear(block)
	copy(block, x.chosen)
	copy(block[idBytes:], tag[:])
	c.set.seal.Encrypt(block, block)
	start = len(x.buf)
	x.buf = append(append(x.buf, a.name...), '=')
	x.buf = hex.AppendEncode(x.buf, block)
	if a.expires != 0 {
		x.buf = append(x.buf, "; Expires="...)
		x.buf = x.Now.UTC().Add(time.Duration(a.expires)*time.Second).AppendFormat(x.buf, "Mon, 02 Jan 2006 15:04:05 GMT")
	}
	x.buf = append(x.buf, a.attributes...)
	if a.secure != nil && *a.secure || a.secure == nil && x.https {
		x.buf = append(x.buf, "; Secure"...)
	}
	r.Fields = append(r.Fields, http.Field{ID: http.SetCookie, Name: http.SetCookie.Bytes(), Value: x.buf[start:len(x.buf):len(x.buf)]})
}
