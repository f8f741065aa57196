package gateway

import (
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Question is a request that somebody asks about.
type Question struct {
	Method  string // "": GET
	Host    string
	Path    string // with query; "": /
	Headers [][2]string
}

// Explanation says what would become of a request.
type Explanation struct {
	Ready    bool           `json:"ready"`
	Why      string         `json:"why,omitempty"` // not ready
	Steps    []route.Step   `json:"steps"`
	Rule     *route.Rule    `json:"-"`
	Origin   string         `json:"origin,omitempty"`
	Problem  string         `json:"problem,omitempty"`
	Policy   []string       `json:"policy,omitempty"` // what is not the default, in words
	Backends []BackendState `json:"backends,omitempty"`
}

// BackendState is a backend of a rule and its endpoints.
type BackendState struct {
	Backend   string          `json:"backend"`
	Canary    bool            `json:"canary,omitempty"`
	Weight    uint32          `json:"weight"`
	Problem   string          `json:"problem,omitempty"` // why it gets nothing
	Endpoints []EndpointState `json:"endpoints,omitempty"`
}

// EndpointState is an endpoint as the gateway sees it.
type EndpointState struct {
	Address     string        `json:"address"`
	Target      string        `json:"target,omitempty"` // the object behind it: "Pod web-1"
	Active      int           `json:"active"`           // requests
	Idle        int           `json:"idle"`             // connections
	Connections int           `json:"connections"`
	Requests    uint64        `json:"requests"`
	Failures    uint64        `json:"failures"`
	Ejected     time.Duration `json:"ejected,omitempty"` // gets nothing for so long
}

// Explain says where a request would go, and why.
func (e *Engine) Explain(q Question) Explanation {
	if q.Method == "" {
		q.Method = "GET"
	}
	if q.Path == "" {
		q.Path = "/"
	}
	rq := route.Query{Host: []byte(q.Host), Path: []byte(q.Path), Method: []byte(q.Method)}
	for _, h := range q.Headers {
		rq.Fields.AddNamed([]byte(h[0]), []byte(h[1]))
		if id := http.Identify([]byte(h[0])); id == http.Host {
			rq.Host = []byte(h[1])
		}
	}
	s := e.state.Load()
	out := Explanation{Steps: s.table.Explain(&rq)}
	out.Ready, out.Why = e.Ready()
	m := s.table.Match(&rq)
	l, _ := m.Data.(*lazy)
	if l == nil || m.Refused != "" {
		return out
	}
	t := l.of(s)
	r := t.rule
	out.Rule, out.Origin, out.Problem, out.Policy = r, r.Origin.String(), t.problem, described(r)
	out.Backends = append(out.Backends, t.primary.states(r.Backends, false)...)
	for i := range t.canaries {
		if i < len(r.Canaries) {
			out.Backends = append(out.Backends, t.canaries[i].states(r.Canaries[i].Backends, true)...)
		}
	}
	return out
}

func (p *place) states(backends []route.Backend, canary bool) []BackendState {
	var out []BackendState
	for i := range backends {
		b := &backends[i]
		s := BackendState{Backend: b.String(), Canary: canary, Weight: b.Weight}
		for _, c := range p.clusters {
			if k := c.cluster.Key(); k.Service == b.Service && k.Port == b.Port && k.External == b.External {
				s.Problem = string(c.cluster.Problem())
				s.Endpoints = endpoints(c.cluster)
				break
			}
		}
		out = append(out, s)
	}
	return out
}

func endpoints(c *cluster.Cluster) []EndpointState {
	var out []EndpointState
	for _, ep := range c.Endpoints() {
		st := ep.Stats()
		out = append(out, EndpointState{
			Address: ep.Addr().String(), Target: strings.TrimSpace(ep.Target().Kind + " " + ep.Target().Name),
			Active: st.Active, Idle: st.Idle, Connections: st.Open, Requests: st.Requests, Failures: st.Failures, Ejected: st.Ejected,
		})
	}
	return out
}

// described puts what a policy says in words.
func described(r *route.Rule) []string {
	var out []string
	say := func(yes bool, text string) {
		if yes {
			out = append(out, text)
		}
	}
	p := r.Policy
	say(r.Redirect != nil, "redirected")
	if r.Redirect != nil {
		out[len(out)-1] += " to " + r.Redirect.URL
	}
	say(p.ForceSSLRedirect, "http is redirected to https")
	say(p.SSLRedirect && !p.ForceSSLRedirect, "http is redirected to https if the host has a certificate")
	if p.Rewrite != nil {
		say(true, "the path is rewritten to "+*p.Rewrite)
	}
	say(p.AppRoot != "", "/ is redirected to "+p.AppRoot)
	say(p.UpstreamHost != "", "endpoints see the host "+p.UpstreamHost)
	say(p.Protocol != route.HTTP, "endpoints speak "+[]string{"http", "https", "h2c (grpc)", "h2 (grpcs)"}[p.Protocol&3])
	say(p.ConnectTimeout > 0, "time to connect: "+p.ConnectTimeout.String())
	say(p.ReadTimeout > 0, "time between reads: "+p.ReadTimeout.String())
	say(p.SendTimeout > 0, "time between writes: "+p.SendTimeout.String())
	say(p.BodyLimit < 0, "bodies of any size")
	say(p.BodyLimit > 0, "bodies are limited")
	say(p.BufferRequest, "request bodies are collected first")
	say(len(p.Allow) > 0 || len(p.Deny) > 0, "only some addresses may ask")
	say(p.Basic != nil, "a password is asked for")
	say(p.Auth != nil, "an authentication server is asked")
	say(p.CORS != nil, "CORS")
	say(p.Limit != nil, "clients are limited")
	say(p.Affinity != nil, "a cookie keeps clients at an endpoint")
	say(p.Balance.Algorithm != "", "balanced by "+p.Balance.Algorithm)
	say(p.Retry.Off, "not tried again after a failure")
	say(p.Errors != nil, "errors are answered by another backend")
	return out
}

// Routes lists the routing table.
func (e *Engine) Routes() []route.Description { return e.state.Load().table.Describe() }

// Stats is what the gateway does now.
type Stats struct {
	Ready       bool   `json:"ready"`
	Why         string `json:"why,omitempty"`
	Connections int    `json:"connections"`
	Idle        int    `json:"idle"`
	Tunnels     int    `json:"tunnels"`
	Accepted    uint64 `json:"accepted"`
	Refused     uint64 `json:"refused"` // over the limit of connections
	Hosts       int    `json:"hosts"`
	Clusters    int    `json:"clusters"`
}

// Stats gives it.
func (e *Engine) Stats() Stats {
	s := Stats{Tunnels: e.tunnels.len(), Accepted: e.conns.total.Load(), Refused: e.conns.refused.Load()}
	s.Ready, s.Why = e.Ready()
	for _, c := range e.conns.list() {
		s.Connections++
		if _, ok := c.idle(); ok {
			s.Idle++
		}
	}
	s.Hosts = e.state.Load().table.Len()
	s.Clusters = len(e.clusters.All())
	return s
}
