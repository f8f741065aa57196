package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Chain is a rule's policy, compiled.
type Chain struct {
	set  *Set
	host *route.Host
	rule *route.Rule

	// What every request pays for.
	drop          mask
	guarded       names
	underscores   bool
	forwardPrefix []byte

	// special: the policy says something about requests; else only fields are
	// forwarded.
	special bool

	cert            *route.ClientCert
	ssl             bool
	sslStatus       int
	redirect        *template
	redirectStatus  int
	appRoot         []byte
	cors            *cors
	limit           *limit
	allow, deny     ranges
	listed          bool
	any             bool // one of addresses, password and authentication server is enough
	basic           *basic
	auth            *auth
	canaries        []canary
	affinity        *affinity
	hash            *template
	rewrite         *template
	rewriteAway     bool // to another host
	rewriteOwnQuery bool // it names the query itself
	upstreamHost    *template
	edits           []edit

	// What responses get.
	answered  bool // there is something to do for a response
	answers   []edit
	intercept []int
	about     errorFields

	location, cookieDomain, cookiePath *replacer
}

// edit is a compiled FieldEdit.
type edit struct {
	id    http.ID
	name  []byte
	value *template
	op    route.Op
}

func compile(s *Set, h *route.Host, r *route.Rule) (*Chain, error) {
	p := r.Policy
	if p == nil {
		p = &route.Policy{}
	}
	c := &Chain{set: s, host: h, rule: r, underscores: s.cfg.Underscores, sslStatus: 308}
	c.drop.add(http.XRealIP, http.XForwardedFor, http.XForwardedHost, http.XForwardedPort, http.XForwardedProto,
		http.XForwardedScheme, http.XScheme, http.XForwardedPrefix, http.Forwarded)
	if !s.cfg.NoRequestID {
		c.drop.add(http.XRequestID)
	}
	if s.cfg.Trace {
		c.drop.add(http.Traceparent)
	}
	c.guarded.add("X-Original-Forwarded-For")
	for _, name := range certNames {
		c.guarded.add(name)
	}
	for _, step := range []func(*route.Policy) error{
		c.compileRedirects, c.compileAccess, c.compileChoice, c.compileFields,
	} {
		if err := step(p); err != nil {
			return nil, fmt.Errorf("%w (%s %s/%s)", err, r.Origin.Kind, r.Origin.Namespace, r.Origin.Name)
		}
	}
	c.special = c.cert != nil || c.ssl || c.redirect != nil || c.appRoot != nil || c.cors != nil || c.limit != nil || c.listed ||
		c.basic != nil || c.auth != nil || len(c.canaries) > 0 || c.affinity != nil || c.hash != nil || c.rewrite != nil ||
		c.upstreamHost != nil || len(c.edits) > 0
	c.answered = c.cors != nil || c.affinity != nil || len(c.answers) > 0 || s.cfg.HSTS != "" || c.auth != nil ||
		c.location != nil || c.cookieDomain != nil || c.cookiePath != nil
	return c, nil
}

func (c *Chain) compileRedirects(p *route.Policy) (err error) {
	if c.host != nil {
		c.cert = c.host.ClientCert
		c.ssl = p.SSLRedirect && c.host.TLS
	}
	c.ssl = c.ssl || p.ForceSSLRedirect
	if p.RedirectStatus != 0 {
		c.sslStatus = p.RedirectStatus
	}
	if r := c.rule.Redirect; r != nil {
		if c.redirect, err = parse(r.URL, c.rule); err != nil {
			return err
		}
		if c.redirectStatus = r.Status; r.Status < 300 || r.Status > 399 {
			c.redirectStatus = 302
		}
	}
	if p.AppRoot != "" {
		if p.AppRoot[0] != '/' || !clean([]byte(p.AppRoot)) {
			return fmt.Errorf("filter: app-root %q is no path: begin it with /", p.AppRoot)
		}
		c.appRoot = appendURL(nil, []byte(p.AppRoot))
	}
	if p.Rewrite != nil {
		if c.rewrite, err = parse(*p.Rewrite, c.rule); err != nil {
			return err
		}
		away := *p.Rewrite
		c.rewriteAway = strings.HasPrefix(away, "http://") || strings.HasPrefix(away, "https://") || strings.HasPrefix(away, "$scheme")
		c.rewriteOwnQuery = slices.ContainsFunc(c.rewrite.parts, func(p part) bool { return p.kind == requestURI || p.kind == args })
	}
	if p.UpstreamHost != "" {
		if c.upstreamHost, err = parse(p.UpstreamHost, c.rule); err != nil {
			return err
		}
	}
	return nil
}

func (c *Chain) compileAccess(p *route.Policy) (err error) {
	c.allow, c.deny = newRanges(p.Allow), newRanges(p.Deny)
	c.listed, c.any = len(p.Allow) > 0 || len(p.Deny) > 0, p.SatisfyAny
	if len(p.Allow) > 0 && c.allow.empty() {
		return fmt.Errorf("filter: the list of allowed addresses holds no valid one: correct it")
	}
	if p.Limit != nil {
		c.limit = newLimit(c.rule, p.Limit)
	}
	if p.Basic != nil {
		c.basic = newBasic(p.Basic)
	}
	if p.Auth != nil {
		if c.auth, err = newAuth(c.host, c.rule, p.Auth); err != nil {
			return err
		}
		for _, name := range p.Auth.ResponseFields {
			c.guard(name)
		}
	}
	if p.CORS != nil {
		if c.cors, err = newCORS(p.CORS); err != nil {
			return err
		}
	}
	return nil
}

func (c *Chain) compileChoice(p *route.Policy) (err error) {
	for i := range c.rule.Canaries {
		c.canaries = append(c.canaries, newCanary(c.set, &c.rule.Canaries[i]))
	}
	if p.Affinity != nil {
		c.affinity = newAffinity(c.set, c.rule, p.Affinity)
	}
	if p.Balance.HashBy != "" {
		if c.hash, err = parse(p.Balance.HashBy, c.rule); err != nil {
			return err
		}
	}
	return nil
}

func (c *Chain) compileFields(p *route.Policy) (err error) {
	if p.ForwardPrefix != "" {
		if !clean([]byte(p.ForwardPrefix)) {
			return fmt.Errorf("filter: x-forwarded-prefix %q has control characters: remove them", p.ForwardPrefix)
		}
		c.forwardPrefix = []byte(p.ForwardPrefix)
	}
	if c.edits, err = edits(c.rule, p.RequestFields); err != nil {
		return err
	}
	if c.answers, err = edits(c.rule, p.ResponseFields); err != nil {
		return err
	}
	if c.location, err = newReplacer(c.rule, p.Location, false); err != nil {
		return err
	}
	if c.cookieDomain, err = newReplacer(c.rule, p.CookieDomain, true); err != nil {
		return err
	}
	if c.cookiePath, err = newReplacer(c.rule, p.CookiePath, false); err != nil {
		return err
	}
	c.intercept = slices.Clone(p.CustomErrors)
	slices.Sort(c.intercept)
	c.about = newErrorFields(c.rule)
	return nil
}

// guard removes a field that a client sends and that others shall have from us.
func (c *Chain) guard(name string) {
	if id := http.Identify([]byte(name)); id != http.Other {
		c.drop.add(id)
	} else {
		c.guarded.add(name)
	}
}

func edits(r *route.Rule, list []route.FieldEdit) ([]edit, error) {
	var out []edit
	for _, e := range list {
		if e.Name == "" || !all([]byte(e.Name), inToken) {
			return nil, fmt.Errorf("filter: %q is no field name: use letters, digits and -", e.Name)
		}
		switch id := http.Identify([]byte(e.Name)); id {
		case http.Connection, http.KeepAlive, http.ProxyConnection, http.TransferEncoding, http.ContentLength, http.Upgrade, http.TE, http.Trailer, http.HTTP2Settings, http.Expect:
			return nil, fmt.Errorf("filter: the field %s frames messages, which is the gateway's business: remove it", e.Name)
		}
		if !clean([]byte(e.Value)) {
			return nil, fmt.Errorf("filter: the value of the field %s has control characters: remove them", e.Name)
		}
		t, err := parse(e.Value, r)
		if err != nil { // a dollar sign may be just that
			t = &template{fixed: []byte(e.Value)}
		}
		out = append(out, edit{id: http.Identify([]byte(e.Name)), name: []byte(e.Name), value: t, op: e.Op})
	}
	return out, nil
}

// Request does what the policy says about a request; nil: it goes on to an
// endpoint. The engine sets x.Captures before.
func (c *Chain) Request(x *Exchange) *Answer {
	if !x.normal() {
		return x.reply(400, "host")
	}
	if c.special {
		if a := c.treat(x); a != nil {
			return a
		}
		c.apply(x)
		return nil
	}
	c.forward(x, x.Request)
	return nil
}

// treat is everything that can answer a request, and the choices.
func (c *Chain) treat(x *Exchange) *Answer {
	if c.cert != nil {
		if a := c.identified(x); a != nil {
			return a
		}
	}
	if c.ssl && !x.https {
		return c.toHTTPS(x, "ssl-redirect")
	}
	if c.redirect != nil {
		return c.toPlace(x)
	}
	if c.appRoot != nil && string(pathOf(x.Path)) == "/" {
		return c.toAppRoot(x)
	}
	if c.cors != nil {
		if a := c.cors.preflight(x); a != nil {
			return a
		}
	}
	if c.limit != nil {
		if a := c.limit.admit(x); a != nil {
			return a
		}
	}
	if a := c.access(x); a != nil {
		return a
	}
	c.choose(x)
	if c.hash != nil {
		x.Hash, x.Hashed = hashOf(x, c.hash), true
	}
	if c.rewrite != nil {
		return c.rewritten(x)
	}
	return nil
}

// apply edits the fields. Values are worked out first: they may refer to
// fields that forward removes.
func (c *Chain) apply(x *Exchange) {
	var room [8][]byte
	values := room[:0]
	for i := range c.edits {
		values = append(values, x.text(c.edits[i].value))
	}
	var vhost []byte
	if c.upstreamHost != nil {
		vhost = x.text(c.upstreamHost)
	}
	c.forward(x, x.Request)
	r := x.Request
	if c.cert != nil {
		c.tellCertificate(x, r)
	}
	if c.auth != nil {
		r.Fields = append(r.Fields, x.call.passed...)
	}
	for i := range c.edits {
		if e := &c.edits[i]; e.id == http.Host {
			if e.op != route.Remove && all(values[i], inHost) {
				r.Authority = values[i]
			}
		} else {
			e.do(&r.Fields, values[i])
		}
	}
	if len(vhost) > 0 && all(vhost, inHost) {
		r.Authority = vhost
	}
}

// do changes one field. A value that came to nothing sets nothing, as in nginx.
func (e *edit) do(fields *http.Fields, value []byte) {
	if e.op != route.Add {
		if e.id != http.Other {
			fields.Del(e.id)
		} else {
			fields.DelNamed(e.name)
		}
	}
	if e.op != route.Remove && len(value) > 0 {
		*fields = append(*fields, http.Field{ID: e.id, Name: e.name, Value: value})
	}
}

// Response does what the policy says about the final response, whoever made
// it: an endpoint, a filter or the gateway.
func (c *Chain) Response(x *Exchange, r *http.Response) {
	if !c.answered {
		return
	}
	if x.answer.By == "" { // an endpoint's, or a page that says nothing of places
		if c.location != nil {
			c.location.relocate(x, r.Fields)
		}
		if c.cookieDomain != nil || c.cookiePath != nil {
			c.recook(x, r.Fields)
		}
	}
	if c.cors != nil {
		c.cors.respond(x, r)
	}
	if c.affinity != nil && x.chosen != "" {
		c.affinity.respond(c, x, r)
	}
	if c.auth != nil {
		c.auth.respond(x, r)
	}
	if c.set.cfg.HSTS != "" && x.https {
		r.Fields.Set(http.StrictTransportSecurity, bytesOf(c.set.cfg.HSTS))
	}
	for i := range c.answers {
		c.answers[i].do(&r.Fields, x.text(c.answers[i].value))
	}
}
