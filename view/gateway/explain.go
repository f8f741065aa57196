package gateway

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/cluster"
	"github.com/fingerpost/fingerpost/view/gateway/filter"
	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// Question is a request that somebody asks about.
type Question struct {
	Method  string // "": GET
	Scheme  string // https, or http
	Host    string
	Path    string // with query; "": /
	Headers [][2]string
	Client  netip.Addr // who asks; the zero one: somebody
}

// Explanation says what would become of a request.
type Explanation struct {
	Ready   bool          `json:"ready"`
	Why     string        `json:"why,omitempty"` // not ready
	Steps   []route.Step  `json:"steps"`         // to the rule
	Rule    *route.Rule   `json:"-"`
	Origin  string        `json:"origin,omitempty"`
	Problem string        `json:"problem,omitempty"`
	Does    []filter.Told `json:"does,omitempty"`   // what the rule does with the request, in order
	Policy  []string      `json:"policy,omitempty"` // how it is carried
	// Backends are those that may get it, if the gateway does not answer by itself.
	Backends []BackendState `json:"backends,omitempty"`
	// Status is that of an answer of the gateway's own, 0: an endpoint answers.
	Status int    `json:"status,omitempty"`
	Answer string `json:"answer"` // what the client gets, in a line
}

// BackendState is a backend of a rule and its endpoints.
type BackendState struct {
	Backend   string          `json:"backend"`
	Canary    bool            `json:"canary,omitempty"`
	Weight    uint32          `json:"weight"`
	Problem   string          `json:"problem,omitempty"` // why it gets nothing
	Endpoints []EndpointState `json:"endpoints,omitempty"`
	Left      []LeftState     `json:"left,omitempty"` // endpoints that get no requests
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

// LeftState is an endpoint of the service that is not asked.
type LeftState struct {
	Address string `json:"address"`
	Target  string `json:"target,omitempty"`
	Why     string `json:"why"`
}

// Explain says where a request would go, and why.
func (e *Engine) Explain(q Question) Explanation {
	if q.Method == "" {
		q.Method = "GET"
	}
	if q.Path == "" {
		q.Path = "/"
	}
	req := http.Request{Version: http.HTTP11, Method: []byte(q.Method), Authority: []byte(q.Host), Path: []byte(q.Path)}
	for _, h := range q.Headers {
		req.Fields.AddNamed([]byte(h[0]), []byte(h[1]))
		if id := http.Identify([]byte(h[0])); id == http.Host {
			req.Authority = []byte(h[1])
		}
	}
	rq := route.Query{Host: req.Authority, Path: req.Path, Method: req.Method, Fields: req.Fields}
	s := e.state.Load()
	out := Explanation{Steps: s.table.Explain(&rq)}
	out.Ready, out.Why = e.Ready()
	m := s.table.Match(&rq)
	l, _ := m.Data.(*lazy)
	switch {
	case m.Refused != "":
		out.ends(400, m.Refused)
	case l == nil && (q.Method == "GET" || q.Method == "HEAD") && q.Path == "/healthz":
		out.ends(200, "the gateway's own /healthz")
	case l == nil:
		out.ends(404, "no rule matches, and there is no default backend")
	default:
		e.follow(&out, &q, &req, &m, l.of(s))
	}
	if !s.ready {
		out.ends(503, "until the gateway is ready, "+out.Why)
	}
	return out
}

// ends says that the gateway answers by itself. What was said before stays.
func (x *Explanation) ends(status int, why string) {
	x.Status, x.Answer = status, strconv.Itoa(status)+": "+why
}

// follow says what a rule does with a request.
func (e *Engine) follow(out *Explanation, q *Question, req *http.Request, m *route.Match, t *target) {
	r := t.rule
	out.Rule, out.Origin, out.Problem = r, r.Origin.String(), t.problem
	at, canary := &t.primary, -1
	if t.chain == nil {
		out.ends(503, "the rule cannot be served as it is configured: "+t.problem)
		return
	}
	if m.Forward != nil {
		req.Path = append(append([]byte{}, m.Forward...), query(req.Path)...)
	}
	peer := stream.Peer{TLS: q.Scheme == "https", ServerName: q.Host}
	if host, _, err := net.SplitHostPort(q.Host); err == nil {
		peer.ServerName = host
	}
	if q.Client.IsValid() {
		peer.Remote = net.TCPAddrFromAddrPort(netip.AddrPortFrom(q.Client, 0))
	}
	var x filter.Exchange
	e.filters.Begin(&x, &peer, req, e.cfg.Now())
	if n := m.Captures(); n > 0 {
		for i := 0; i <= n; i++ {
			x.Captures = append(x.Captures, m.Capture(i))
		}
	}
	out.Does, canary = t.chain.Explain(&x)
	if canary >= 0 && canary < len(t.canaries) {
		at = &t.canaries[canary]
	}
	out.Policy = e.described(at)
	out.Backends = append(out.Backends, t.primary.states(r.Backends, false)...)
	for i := range t.canaries {
		if i < len(r.Canaries) {
			out.Backends = append(out.Backends, t.canaries[i].states(r.Canaries[i].Backends, true)...)
		}
	}
	if n := len(out.Does); n > 0 && out.Does[n-1].Answer != 0 {
		out.Status, out.Answer = out.Does[n-1].Answer, out.Does[n-1].Text
		return
	}
	length, _ := strconv.ParseInt(string(req.Fields.Get(http.ContentLength)), 10, 64)
	switch c := at.choose(); {
	case t.problem != "":
		out.ends(503, t.problem)
	case at.body >= 0 && length > at.body:
		out.ends(413, "the body is larger than "+size(at.body))
	case c == nil:
		out.ends(503, "the route has no backend")
	case c.Problem() != "":
		out.ends(503, string(c.Problem()))
	default:
		out.Answer = answered(c, len(at.clusters) > 1)
		return
	}
	if t.errors != nil && out.Status == 503 {
		k := t.errors.Key()
		out.Answer += "; the answer is that of " + k.Service.String()
		if p := t.errors.Problem(); p != "" {
			out.Answer += ", which has none: " + string(p)
		}
	}
}

func query(path []byte) []byte {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		return path[i:]
	}
	return nil
}

// answered says which endpoints may answer.
func answered(c *cluster.Cluster, several bool) string {
	all, out := c.Endpoints(), 0
	for _, ep := range all {
		if ep.Stats().Ejected > 0 {
			out++
		}
	}
	from := "one of " + strconv.Itoa(len(all)-out) + " endpoints"
	switch {
	case out == len(all):
		from = "an endpoint that was left out: all of them are, so they are asked all the same"
	case len(all)-out == 1:
		from = "one endpoint"
	}
	if several {
		from += " of the backend that the weights choose"
	}
	if out > 0 && out < len(all) {
		from += "; " + strconv.Itoa(out) + " left out after failures"
	}
	return "that of " + from
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
				for _, l := range c.cluster.Left() {
					s.Left = append(s.Left, LeftState{l.Addr.String(), named(l.Target), l.Why})
				}
				slices.SortFunc(s.Left, func(a, b LeftState) int { return strings.Compare(a.Address, b.Address) })
				break
			}
		}
		out = append(out, s)
	}
	return out
}

func named(r catalog.Ref) string { return strings.TrimSpace(r.Kind + " " + r.Name) }

func endpoints(c *cluster.Cluster) []EndpointState {
	var out []EndpointState
	for _, ep := range c.Endpoints() {
		st := ep.Stats()
		out = append(out, EndpointState{
			Address: ep.Addr().String(), Target: named(ep.Target()),
			Active: st.Active, Idle: st.Idle, Connections: st.Open, Requests: st.Requests, Failures: st.Failures, Ejected: st.Ejected,
		})
	}
	return out
}

// described puts in words how requests are carried.
func (e *Engine) described(at *place) []string {
	var out []string
	say := func(yes bool, text string) {
		if yes {
			out = append(out, text)
		}
	}
	p := at.policy
	say(p.Protocol != route.HTTP, "endpoints speak "+[]string{"http", "https", "h2c (grpc)", "h2 (grpcs)"}[p.Protocol&3])
	how := p.Balance.Algorithm
	if p.Balance.HashBy != "" {
		how += " of " + p.Balance.HashBy
	}
	if p.Balance.Subset > 1 {
		how += ", " + strconv.Itoa(p.Balance.Subset) + " endpoints for each value"
	}
	say(how != "", "the endpoint is chosen by "+how)
	say(p.BodyLimit < 0, "bodies of requests may have any size")
	say(p.BodyLimit > 0, "bodies of requests may have "+size(p.BodyLimit))
	say(p.BufferRequest, "bodies of requests are collected first")
	say(true, "time to connect "+at.connect.String()+", between two reads "+at.read.String()+", between two writes "+at.send.String())
	switch r := &p.Retry; {
	case r.Off:
		say(true, "a request that was sent is not tried again")
	default:
		on := ""
		if len(r.On) > 0 {
			on = ", and answers with " + strings.Trim(strings.ReplaceAll(fmt.Sprint(r.On), " ", ", "), "[]")
		}
		say(r.TimeOut, "time-outs are tried again"+on)
		say(!r.TimeOut && on != "", strings.TrimPrefix(on, ", and ")+" are tried again")
		say(r.NonIdempotent, "POST and PATCH are tried again as GET is")
		say(at.tries != 3, "a request is sent "+strconv.Itoa(at.tries)+" times at most")
	}
	return out
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		shift int
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift && n&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
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
