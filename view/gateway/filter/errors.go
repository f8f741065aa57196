package filter

import (
	"slices"
	"strconv"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// errorFields tell the backend of error pages where the error comes from.
type errorFields struct {
	namespace, ingress, service, port []byte
}

func newErrorFields(r *route.Rule) errorFields {
	f := errorFields{namespace: []byte(r.Origin.Namespace), ingress: []byte(r.Origin.Name)}
	if len(r.Backends) > 0 {
		f.service, f.port = []byte(r.Backends[0].Service.Name), []byte(r.Backends[0].Port)
	}
	return f
}

// Intercepts says that the errors backend is to answer for a status.
func (c *Chain) Intercepts(status int) bool {
	if len(c.intercept) == 0 {
		return false
	}
	_, found := slices.BinarySearch(c.intercept, status)
	return found
}

// ErrorRequest makes the request to the errors backend: a GET of "/" with what
// it needs to know.
func (c *Chain) ErrorRequest(x *Exchange, status int, r *http.Request) {
	*r = http.Request{Version: http.HTTP11, Method: []byte("GET"), Authority: x.Authority, Path: []byte("/"), Fields: r.Fields[:0]}
	add := func(name string, value []byte) {
		if len(value) > 0 {
			r.Fields = append(r.Fields, http.Field{ID: http.Identify(bytesOf(name)), Name: bytesOf(name), Value: value})
		}
	}
	start := len(x.buf)
	x.buf = strconv.AppendInt(x.buf, int64(status), 10)
	add("X-Code", x.buf[start:len(x.buf):len(x.buf)])
	add("X-Format", x.Request.Fields.Get(http.Accept))
	start = len(x.buf)
	x.buf = appendURI(x.buf, x.Path)
	add("X-Original-URI", x.buf[start:len(x.buf):len(x.buf)])
	add("X-Namespace", c.about.namespace)
	add("X-Ingress-Name", c.about.ingress)
	add("X-Service-Name", c.about.service)
	add("X-Service-Port", c.about.port)
	if x.ID == nil {
		x.identify(x.Request.Fields.Get(http.XRequestID))
	}
	add("X-Request-ID", x.ID)
	add("X-Real-IP", x.client)
	add("X-Forwarded-For", x.client)
	add("Accept-Language", x.Request.Fields.Get(http.AcceptLanguage))
}
