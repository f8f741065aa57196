package gateway

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/wire/http"
	"github.com/fingerpost/fingerpost/wire/http/h1"
)

// clock gives the time, and the value of Date without formatting it for each
// answer.
type clock struct {
	text atomic.Pointer[stamp]
	base atomic.Pointer[time.Time]
}

// now is time.Now that looks at both clocks of the system once a second only, and
// else at the one that tells how much passed since.
func (c *clock) now() time.Time {
	if b := c.base.Load(); b != nil {
		if d := time.Since(*b); d < time.Second {
			return b.Add(d)
		}
	}
	t := time.Now()
	c.base.Store(&t)
	return t
}

type stamp struct {
	second int64
	text   [29]byte
}

func (c *clock) date(now time.Time) []byte {
	s := now.Unix()
	if t := c.text.Load(); t != nil && t.second == s {
		return t.text[:]
	}
	t := &stamp{second: s}
	now.UTC().AppendFormat(t.text[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
	c.text.Store(t)
	return t.text[:]
}

// page is the body of an answer that the gateway gives by itself.
func page(status int, reason string) []byte {
	title := strconv.Itoa(status) + " " + h1.Reason(status)
	b := make([]byte, 0, 256)
	b = append(b, "<!DOCTYPE html>\n<html><head><title>"...)
	b = append(b, title...)
	b = append(b, "</title></head>\n<body><h1>"...)
	b = append(b, title...)
	b = append(b, "</h1>"...)
	if reason != "" {
		b = append(b, "<p>"...)
		b = appendHTML(b, reason)
		b = append(b, "</p>"...)
	}
	return append(b, "</body></html>\n"...)
}

func appendHTML(b []byte, s string) []byte {
	for i := range len(s) {
		switch s[i] {
		case '<':
			b = append(b, "&lt;"...)
		case '>':
			b = append(b, "&gt;"...)
		case '&':
			b = append(b, "&amp;"...)
		case '"':
			b = append(b, "&quot;"...)
		default:
			b = append(b, s[i])
		}
	}
	return b
}

// own adds what says who answers.
func (e *Engine) own(r *http.Response, now time.Time) {
	if r.Fields.Get(http.Server) == nil {
		r.Fields.Add(http.Server, e.server)
	}
	if r.Fields.Get(http.Date) == nil {
		r.Fields.Add(http.Date, e.clock.date(now))
	}
}

// refuse fills in the answer to a head that cannot be understood.
func (e *Engine) refuse(status int, reason string, r *http.Response) []byte {
	e.metrics.Malformed.Add(1)
	e.own(r, e.cfg.Now())
	r.Fields.Add(http.ContentType, []byte("text/html"))
	return page(status, reason)
}

// answer gives a response of the gateway's own to the client. body nil: the
// page for the status. It is false: nothing is pending then.
func (x *exchange) answer(status int, fields http.Fields, body []byte, reason string) (pending bool) {
	r := &x.resp
	r.Reset()
	r.Status, r.Version = status, http.HTTP11
	r.Fields = append(r.Fields, fields...)
	bare := status < 200 || status == 204 || status == 304
	switch {
	case bare:
		body = nil
	case body == nil:
		body = page(status, reason)
		r.Fields.Set(http.ContentType, htmlType)
	}
	if status == 503 && r.Fields.Get(http.RetryAfter) == nil {
		r.Fields.Add(http.RetryAfter, x.e.retryAfter)
	}
	if status == 413 || status == 408 {
		r.Close = true
	}
	x.e.own(r, x.now)
	r.Length, r.Declared = int64(len(body)), !bare
	if x.to != nil && x.to.chain != nil {
		x.to.chain.Response(&x.f, r)
	}
	x.status = status
	x.d.SetWriteDeadline(time.Now().Add(x.e.cfg.Timeouts.Write))
	err := x.d.Respond(r, len(body) == 0)
	if err == nil && len(body) > 0 {
		err = x.d.Write(body, true)
		x.sent += int64(len(body))
	}
	if err == nil {
		err = x.d.Flush()
	}
	if err != nil {
		x.gone = true
		x.d.Abort(err)
	}
	return false
}

var htmlType = []byte("text/html")
