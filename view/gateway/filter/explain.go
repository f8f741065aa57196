package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Told is one thing that a chain does with a request, for people.
type Told struct {
	Text string `json:"text"`
	// Answer is the status with which the request ends there; 0: it goes on.
	Answer int `json:"answer,omitempty"`
}

// explained collects what is told.
type explained struct {
	c    *Chain
	x    *Exchange
	told []Told
}

func (e *explained) say(format string, args ...any) {
	e.told = append(e.told, Told{Text: fmt.Sprintf(format, args...)})
}

// ends tells an answer.
func (e *explained) ends(a *Answer, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if l := a.Fields.Get(http.Location); l != nil {
		text += fmt.Sprintf(": %d to %s", a.Status, l)
	} else {
		text += fmt.Sprintf(": %d", a.Status)
	}
	e.told = append(e.told, Told{text, a.Status})
}

// Explain says in order what the chain does with a request that was begun, without
// doing it: nobody is asked and nothing is counted. What answers is the last.
// canary is the one that a header or cookie chooses, -1: none. The request is
// changed as it would be.
func (c *Chain) Explain(x *Exchange) (told []Told, canary int) {
	e := &explained{c: c, x: x}
	if !x.normal() {
		e.ends(x.reply(400, "host"), "%q is no host", x.Authority)
		return e.told, -1
	}
	for _, step := range []func() bool{e.certificate, e.redirects, e.cors, e.limits, e.access} {
		if step() {
			return e.told, -1
		}
	}
	canary = e.canary()
	x.Canary = canary
	if c.rewrite != nil {
		if a := c.rewritten(x); a != nil {
			e.ends(a, "rewrite-target %s", *c.rule.Policy.Rewrite)
			return e.told, canary
		}
		e.say("the path becomes %s", x.Request.Path)
	}
	e.fields()
	return e.told, canary
}

func (e *explained) certificate() bool {
	c, x := e.c, e.x
	if c.cert == nil || !c.cert.Required && c.cert.Match == nil {
		return false
	}
	if !x.https {
		e.ends(c.toHTTPS(x, "client-certificate"), "a client certificate is asked for, which only https can")
		return true
	}
	what := "the client must show a certificate of the host's authorities"
	if c.cert.Match != nil {
		what += fmt.Sprintf(", whose subject matches %s", c.cert.Match)
	}
	e.say("%s", what)
	return false
}

func (e *explained) redirects() bool {
	c, x := e.c, e.x
	switch {
	case c.ssl && !x.https:
		why := "the host has TLS (ssl-redirect)"
		if c.rule.Policy.ForceSSLRedirect {
			why = "force-ssl-redirect"
		}
		e.ends(c.toHTTPS(x, "ssl-redirect"), "http is redirected: %s", why)
	case c.redirect != nil:
		e.ends(c.toPlace(x), "redirected, as the rule says")
	case c.appRoot != nil && string(pathOf(x.Path)) == "/":
		e.ends(c.toAppRoot(x), "redirected to the app-root")
	default:
		return false
	}
	return true
}

func (e *explained) cors() bool {
	c, x := e.c, e.x
	if c.cors == nil {
		return false
	}
	origin := x.Request.Fields.Get(http.Origin)
	if a := c.cors.preflight(x); a != nil {
		e.ends(a, "CORS: the preflight of %s is answered", origin)
		return true
	}
	switch {
	case origin == nil:
	case x.origin == nil:
		e.say("CORS: the origin %s is not allowed: its browser will not show the answer", origin)
	default:
		e.say("CORS: the origin %s is allowed", origin)
	}
	return false
}

func (e *explained) limits() bool {
	l := e.c.rule.Policy.Limit
	if e.c.limit == nil || e.x.Client.IsValid() && e.c.limit.except.has(e.x.Client) {
		return false
	}
	var parts []string
	burst := l.Burst
	if burst <= 0 {
		burst = 5
	}
	if l.RPS > 0 {
		parts = append(parts, fmt.Sprintf("%d requests a second (%d at once)", l.RPS, l.RPS*burst))
	}
	if l.RPM > 0 {
		parts = append(parts, fmt.Sprintf("%d a minute (%d at once)", l.RPM, l.RPM*burst))
	}
	if l.Connections > 0 {
		parts = append(parts, fmt.Sprintf("%d at the same time", l.Connections))
	}
	e.say("limit of one address: %s; above it %d", strings.Join(parts, ", "), e.c.limit.status)
	return false
}

// access tells who must let the client in.
func (e *explained) access() bool {
	c, x := e.c, e.x
	p := c.rule.Policy
	open := false // somebody has let it in, and one is enough
	if c.listed {
		list := ranged("allowed", p.Allow) + ranged("denied", p.Deny)
		switch in := c.listedIn(x); {
		case !x.Client.IsValid():
			e.say("addresses of clients:%s", list)
		case !in && (!c.any || c.basic == nil && c.auth == nil):
			e.ends(x.reply(403, "address"), "the address %s is not let in (%s)", x.Client, strings.TrimSpace(list))
			return true
		case !in:
			e.say("the address %s alone is not let in (%s)", x.Client, strings.TrimSpace(list))
		case !c.allow.empty():
			e.say("the address %s is let in", x.Client)
			open = c.any
		}
	}
	if c.any && (c.basic != nil || c.auth != nil) {
		e.say("one of address, password and authentication server is enough (satisfy: any)")
	}
	if c.basic != nil {
		switch a := c.basic.admit(x); {
		case p.Basic.Problem != "":
			e.ends(a, "the passwords are not known: %s", p.Basic.Problem)
			return true
		case a == nil:
			e.say("the password of %s is right", x.User)
			open = open || c.any
		case open || c.any && c.auth != nil:
		case x.Request.Fields.Get(http.Authorization) == nil:
			e.ends(a, "a password is asked for, and there is none (--header 'Authorization: …' gives one)")
			return true
		default:
			e.ends(a, "the password is wrong")
			return true
		}
	}
	if c.auth != nil && !open {
		e.say("the authentication server %s is asked (%s): 2xx lets the request pass", p.Auth.URL, c.auth.method)
		if p.Auth.SignIn != "" {
			e.say("who is not known there (401) is redirected to %s", p.Auth.SignIn)
		}
	}
	return false
}

func ranged(what string, list []netip.Prefix) string {
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, " %s", what)
	for i, p := range list {
		if i == 5 && len(list) > 6 {
			fmt.Fprintf(&b, " and %d more", len(list)-i)
			break
		}
		fmt.Fprintf(&b, " %s", p)
	}
	return b.String()
}

// canary tells which version takes the request.
func (e *explained) canary() int {
	c, x := e.c, e.x
	if c.affinity != nil {
		c.affinity.read(c, x)
		if x.Sticky != "" {
			e.say("the cookie %s names the endpoint that the client had before", c.affinity.name)
		} else {
			e.say("the client gets the cookie %s, which keeps it at its endpoint", c.affinity.name)
		}
		if x.group != noGroup {
			return x.group
		}
	}
	for i := range c.canaries {
		k, name := &c.canaries[i], c.rule.Canaries[i].Origin
		switch yes, decided := k.decided(x); {
		case yes:
			e.say("%s/%s, the canary, takes it: its header or cookie says so", name.Namespace, name.Name)
			return i
		case decided:
			e.say("%s/%s, the canary, does not take it: its header or cookie says so", name.Namespace, name.Name)
		case k.weight > 0:
			e.say("%d of %d such requests go to the canary %s/%s", min(k.weight, k.total), k.total, name.Namespace, name.Name)
		}
	}
	return -1
}

// fields tells how the request is changed, and its response.
func (e *explained) fields() {
	c, x := e.c, e.x
	p := c.rule.Policy
	if c.upstreamHost != nil {
		e.say("the endpoint sees the host %s", x.text(c.upstreamHost))
	}
	if c.forwardPrefix != nil {
		e.say("the endpoint sees X-Forwarded-Prefix: %s", c.forwardPrefix)
	}
	for i := range c.edits {
		e.say("the endpoint sees%s", c.edits[i].told(x))
	}
	for i := range c.answers {
		e.say("the response has%s", c.answers[i].told(x))
	}
	for _, r := range []struct {
		what string
		by   *route.Replacement
	}{{"Location", p.Location}, {"Domain of cookies", p.CookieDomain}, {"Path of cookies", p.CookiePath}} {
		if r.by != nil {
			from := r.by.From
			if r.by.Regex != nil {
				from = "~" + r.by.Regex.String()
			}
			e.say("%s of the response: %s becomes %s", r.what, from, r.by.To)
		}
	}
	if len(p.CustomErrors) > 0 && p.Errors != nil {
		list := slices.Clone(p.CustomErrors)
		slices.Sort(list)
		e.say("responses with %s are replaced by those of %s", strings.Trim(fmt.Sprint(list), "[]"), p.Errors)
	}
}

func (e *edit) told(x *Exchange) string {
	if e.op == route.Remove {
		return fmt.Sprintf(" no %s", e.name)
	}
	return fmt.Sprintf(" %s: %s", e.name, x.text(e.value))
}
