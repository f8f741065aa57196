package filter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// cors answers browsers that ask whether a page of one origin may use another
// (Fetch standard, 3.2).
type cors struct {
	any         bool
	exact       [][]byte // lower case
	wild        []wildOrigin
	methods     []byte
	headers     []byte
	expose      []byte
	maxAge      []byte
	credentials bool
}

// wildOrigin is https://*.example.com: text before and behind one or more
// labels.
type wildOrigin struct{ before, behind []byte }

var (
	corsMethods     = []byte("Access-Control-Allow-Methods")
	corsHeaders     = []byte("Access-Control-Allow-Headers")
	corsExpose      = []byte("Access-Control-Expose-Headers")
	corsMaxAge      = []byte("Access-Control-Max-Age")
	corsCredentials = []byte("Access-Control-Allow-Credentials")
	anyOrigin       = []byte("*")
	textTrue        = []byte("true")
	textOrigin      = []byte("Origin")
)

func newCORS(p *route.CORS) (*cors, error) {
	c := &cors{methods: []byte(p.Methods), headers: []byte(p.Headers), expose: []byte(p.Expose), credentials: p.Credentials}
	for _, v := range []string{p.Methods, p.Headers, p.Expose} {
		if !clean([]byte(v)) {
			return nil, fmt.Errorf("filter: %q of CORS has control characters: remove them", v)
		}
	}
	if p.MaxAge > 0 {
		c.maxAge = strconv.AppendInt(nil, int64(p.MaxAge), 10)
	}
	for _, o := range p.Origins {
		o = strings.ToLower(strings.TrimSpace(o))
		before, behind, wild := strings.Cut(o, "*")
		switch {
		case o == "":
		case o == "*":
			c.any = true
		case !wild:
			c.exact = append(c.exact, []byte(o))
		case !strings.HasSuffix(before, "://") || len(behind) < 2 || behind[0] != '.' || strings.Contains(behind, "*"):
			return nil, fmt.Errorf("filter: the CORS origin %q: * may only stand for the first labels, as in https://*.example.com", o)
		default:
			c.wild = append(c.wild, wildOrigin{[]byte(before), []byte(behind)})
		}
	}
	if len(p.Origins) == 0 {
		c.any = true
	}
	return c, nil
}

// allows gives what to say to an origin; nil: nothing.
func (c *cors) allows(origin []byte) []byte {
	if len(origin) == 0 || !clean(origin) {
		return nil
	}
	if c.any {
		return anyOrigin
	}
	for _, o := range c.exact {
		if http.EqualFold(o, origin) {
			return origin
		}
	}
	for i := range c.wild {
		w := &c.wild[i]
		n := len(origin) - len(w.behind)
		if n > len(w.before) && http.EqualFold(origin[:len(w.before)], w.before) && http.EqualFold(origin[n:], w.behind) &&
			all(origin[len(w.before):n], inLabel) {
			return origin
		}
	}
	return nil
}

// preflight answers the question before a request. The fields follow in
// respond.
func (c *cors) preflight(x *Exchange) *Answer {
	f := x.Request.Fields
	x.origin = c.allows(f.Get(http.Origin)) // now: the policy may take the field away from the endpoint
	if x.origin == nil || string(x.Method) != "OPTIONS" || f.Get(http.AccessControlRequestMethod) == nil {
		return nil
	}
	return x.reply(204, "cors")
}

func (c *cors) respond(x *Exchange, r *http.Response) {
	if !c.any {
		c.vary(r)
	}
	if x.origin == nil {
		return
	}
	r.Fields.Set(http.AccessControlAllowOrigin, x.origin)
	// "*" and credentials exclude each other for browsers, and answering any
	// origin by its name would open the application to all of them.
	setOther(&r.Fields, corsCredentials, textTrue, c.credentials && !c.any)
	setOther(&r.Fields, corsMethods, c.methods, len(c.methods) > 0)
	setOther(&r.Fields, corsHeaders, c.headers, len(c.headers) > 0)
	setOther(&r.Fields, corsExpose, c.expose, len(c.expose) > 0)
	if x.answer.By == "cors" {
		setOther(&r.Fields, corsMaxAge, c.maxAge, len(c.maxAge) > 0)
	}
}

// vary tells caches that answers differ between origins.
func (c *cors) vary(r *http.Response) {
	for i := range r.Fields {
		if r.Fields[i].ID == http.Vary && containsFold(r.Fields[i].Value, textOrigin) {
			return
		}
	}
	r.Fields.Add(http.Vary, textOrigin)
}

// containsFold finds an element in a list with commas.
func containsFold(list, item []byte) bool {
	for len(list) > 0 {
		e := list
		for i, b := range list {
			if b == ',' {
				e = list[:i]
				break
			}
		}
		list = list[min(len(e)+1, len(list)):]
		if http.EqualFold(trim(e), item) {
			return true
		}
	}
	return false
}

// setOther replaces a field that is not well-known by one, or by none.
func setOther(f *http.Fields, name, value []byte, there bool) {
	f.DelNamed(name)
	if there {
		*f = append(*f, http.Field{Name: name, Value: value})
	}
}
