package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// auth asks another server about each request, as nginx' auth_request does
// with the annotations of ingress-nginx: 2xx lets it pass, 401 and 403 refuse it,
// and whatever else, or no answer, is a 500.
type auth struct {
	tls      bool
	host     *template
	path     *template
	method   []byte
	backend  *route.Backend
	signIn   *template
	pass     []edit // fields of the answer that the endpoint gets
	redirect *template
	fields   []edit
	key      *template
	rule     uint64
	lasts    time.Duration
	always   bool
}

var (
	nameOriginalURL    = []byte("X-Original-URL")
	nameOriginalMethod = []byte("X-Original-Method")
	nameSentFrom       = []byte("X-Sent-From")
	nameAuthRedirect   = []byte("X-Auth-Request-Redirect")
	valueSentFrom      = []byte("nginx-ingress-controller") // what servers made for ingress-nginx look for
	textGET            = []byte("GET")
)

func newAuth(h *route.Host, r *route.Rule, p *route.ExternalAuth) (*auth, error) {
	a := &auth{method: textGET, backend: p.Backend, lasts: p.CacheDuration, always: p.AlwaysSetCookie,
		rule: fnv(r.Origin.Kind + "/" + r.Origin.Namespace + "/" + r.Origin.Name + " " + p.URL)}
	if p.Method != "" {
		if !all([]byte(p.Method), inToken) {
			return nil, fmt.Errorf("filter: %q is no method for auth-method: use GET or the like", p.Method)
		}
		a.method = []byte(p.Method)
	}
	way, rest, ok := strings.Cut(p.URL, "://")
	if !ok || way != "http" && way != "https" {
		return nil, fmt.Errorf("filter: auth-url %q: begin it with http:// or https://", p.URL)
	}
	a.tls = way == "https"
	name, path := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		name, path = rest[:i], rest[i:]
		if path[0] == '?' {
			path = "/" + path
		}
	}
	if i := strings.IndexByte(name, '@'); i >= 0 {
		return nil, fmt.Errorf("filter: auth-url %q holds a password: give it with auth-proxy-set-headers", p.URL)
	}
	if name == "" {
		return nil, fmt.Errorf("filter: auth-url %q names no host", p.URL)
	}
	var err error
	if a.host, err = parse(name, r); err != nil {
		return nil, err
	}
	for i := range a.host.parts {
		// Who chooses the server chooses its answer.
		switch k := a.host.parts[i].kind; {
		case k == literal:
		case (k == host || k == authority) && h != nil && h.Name != "":
		default:
			return nil, fmt.Errorf("filter: in auth-url %q the client decides which server is asked: name it, or give the rule a host", p.URL)
		}
	}
	if a.path, err = parse(path, r); err != nil {
		return nil, err
	}
	if p.SignIn != "" {
		to, param := p.SignIn, p.SignInParam
		if param == "" {
			param = "rd"
		}
		if !strings.Contains(to, "?"+param+"=") && !strings.Contains(to, "&"+param+"=") {
			mark := "?"
			if strings.Contains(to, "?") {
				mark = "&"
			}
			to += mark + param + "=$scheme://$best_http_host$escaped_request_uri"
		}
		if a.signIn, err = parse(to, r); err != nil {
			return nil, err
		}
	}
	for _, name := range p.ResponseFields {
		if !all([]byte(name), inToken) || name == "" {
			return nil, fmt.Errorf("filter: %q of auth-response-headers is no field name", name)
		}
		a.pass = append(a.pass, edit{id: http.Identify([]byte(name)), name: []byte(name)})
	}
	if p.RequestRedirect != "" {
		if a.redirect, err = parse(p.RequestRedirect, r); err != nil {
			return nil, err
		}
	}
	if p.CacheKey != "" {
		if a.key, err = parse(p.CacheKey, r); err != nil {
			return nil, err
		}
		if a.lasts <= 0 {
			a.lasts = 5 * time.Minute
		}
	}
	a.fields, err = edits(r, p.RequestFields)
	return a, err
}

func (a *auth) admit(c *Chain, x *Exchange) *Answer {
	var key [32]byte
	if a.key != nil {
		key = a.cacheKey(x)
		if v := x.set.auth.get(key, x.Now); v != nil {
			x.call.passed = append(x.call.passed[:0], v.passed...)
			return a.answer(x, v.status, v.challenge)
		}
	}
	if x.Fetch == nil || !a.ask(c, x) {
		return x.reply(500, "auth")
	}
	call := &x.call
	for i := range call.Fields {
		f := &call.Fields[i]
		if !clean(f.Value) {
			continue
		}
		if f.ID == http.SetCookie {
			call.cookies = append(call.cookies, *f)
		}
		for j := range a.pass {
			if e := &a.pass[j]; f.ID == e.id && (e.id != http.Other || http.EqualFold(f.Name, e.name)) {
				call.passed = append(call.passed, http.Field{ID: e.id, Name: e.name, Value: f.Value})
			}
		}
	}
	challenge := call.Fields.Get(http.WWWAuthenticate)
	// A cookie is for one client, so an answer with one is not for the next.
	if a.key != nil && len(call.cookies) == 0 && (call.Status == 200 || call.Status == 202 || call.Status == 401) {
		x.set.auth.put(key, &authAnswer{status: call.Status, until: x.Now.Add(a.lasts), challenge: clone(challenge),
			passed: cloneFields(call.passed)}, x.Now)
	}
	return a.answer(x, call.Status, challenge)
}

// ask makes the call.
func (a *auth) ask(c *Chain, x *Exchange) bool {
	call := &x.call
	call.TLS, call.Backend, call.Status, call.Fields = a.tls, a.backend, 0, call.Fields[:0]
	if call.Host = x.text(a.host); len(call.Host) == 0 || !all(call.Host, inHost) {
		return false
	}
	r := &call.Request
	*r = http.Request{Version: http.HTTP11, Method: a.method, Authority: call.Host, Path: x.place(a.path), Fields: append(r.Fields[:0], x.Request.Fields...)}
	if len(r.Path) == 0 || r.Path[0] != '/' {
		return false
	}
	c.forward(x, r)
	f := &r.Fields
	f.Del(http.XOriginalURL)
	f.Del(http.XOriginalMethod)
	// These are about what the endpoint has, not about who asks.
	f.Del(http.Range)
	f.Del(http.IfNoneMatch)
	f.Del(http.IfModifiedSince)
	start := len(x.buf)
	x.buf = append(append(append(x.buf, x.Scheme()...), "://"...), x.host...)
	x.buf = appendURI(x.buf, x.Path)
	f.AddNamed(nameOriginalURL, x.buf[start:len(x.buf):len(x.buf)])
	f.AddNamed(nameOriginalMethod, x.Method)
	setOther(f, nameSentFrom, valueSentFrom, true)
	var to []byte
	if a.redirect != nil {
		to = x.text(a.redirect)
	} else {
		start = len(x.buf)
		x.buf = appendURI(x.buf, x.Path)
		to = x.buf[start:len(x.buf):len(x.buf)]
	}
	setOther(f, nameAuthRedirect, to, len(to) > 0)
	if c.cert != nil {
		c.tellCertificate(x, r)
	}
	for i := range a.fields {
		a.fields[i].do(f, x.text(a.fields[i].value))
	}
	return x.Fetch(call) == nil
}

// answer says what a status means.
func (a *auth) answer(x *Exchange, status int, challenge []byte) *Answer {
	switch {
	case status >= 200 && status <= 299:
		return nil
	case status == 401 && a.signIn != nil:
		location := x.place(a.signIn)
		if location == nil {
			return x.reply(400, "auth")
		}
		return x.redirect(302, location, "auth")
	case status == 401:
		out := x.reply(401, "auth")
		if challenge != nil && clean(challenge) {
			out.Fields.Add(http.WWWAuthenticate, challenge)
		}
		return out
	case status == 403:
		return x.reply(403, "auth")
	}
	return x.reply(500, "auth")
}

// respond gives the client the cookies of the authentication server.
func (a *auth) respond(x *Exchange, r *http.Response) {
	if len(x.call.cookies) == 0 {
		return
	}
	switch r.Status { // those for which nginx' add_header works
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
	default:
		if !a.always && x.answer.By != "auth" {
			return
		}
	}
	r.Fields = append(r.Fields, x.call.cookies...)
}

// cacheKey is a digest, so that no token is kept in memory for long.
func (a *auth) cacheKey(x *Exchange) [32]byte {
	start := len(x.buf)
	x.buf = binary.BigEndian.AppendUint64(x.buf, a.rule)
	for i := range a.key.parts {
		v := x.value(&a.key.parts[i])
		// With lengths, so that "a"+"bc" is not "ab"+"c".
		x.buf = binary.BigEndian.AppendUint32(x.buf, uint32(len(v)))
		x.buf = append(x.buf, v...)
	}
	return sha256.Sum256(x.buf[start:])
}

// answers remembers what authentication servers said.
type answers struct {
	shards [shards]answerShard
	most   int
}

type answerShard struct {
	mu sync.Mutex
	m  map[[32]byte]*authAnswer
}

// authAnswer is immutable.
type authAnswer struct {
	status    int
	until     time.Time
	challenge []byte
	passed    http.Fields
}

func newAnswers(n int) *answers {
	a := &answers{most: max(n/shards, 1)}
	for i := range a.shards {
		a.shards[i].m = map[[32]byte]*authAnswer{}
	}
	return a
}

func (a *answers) get(key [32]byte, now time.Time) *authAnswer {
	s := &a.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.m[key]
	if v != nil && !now.Before(v.until) {
		delete(s.m, key)
		return nil
	}
	return v
}

func (a *answers) put(key [32]byte, v *authAnswer, now time.Time) {
	s := &a.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.m) >= a.most {
		looked := 0
		for k, old := range s.m { // expired ones go first, if some are near
			if looked++; now.After(old.until) || looked == min(8, a.most) {
				delete(s.m, k)
			}
			if looked == 8 {
				break
			}
		}
	}
	s.m[key] = v
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

func cloneFields(f http.Fields) http.Fields {
	out := make(http.Fields, 0, len(f))
	for _, x := range f {
		out = append(out, http.Field{ID: x.ID, Name: clone(x.Name), Value: clone(x.Value)})
	}
	return out
}
