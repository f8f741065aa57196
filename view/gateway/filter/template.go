package filter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// variable is what a template refers to, named as nginx does.
type variable uint8

const (
	literal  variable = iota
	capture           // $1
	header            // $http_NAME
	cookieOf          // $cookie_NAME
	argument          // $arg_NAME
	scheme
	host        // that the route was found by, without port
	authority   // the same, with port
	bestHost    // what a trusted proxy says that the client asked for, with port
	requestURI  // path and query as they came
	escapedURI  // the same as the value of a query parameter
	uri         // the path
	args        // the query
	isArgs      // "?" if there is one
	remoteAddr  // the client
	remotePort  //
	remoteUser  //
	method      //
	serverPort  //
	protocol    //
	requestID   //
	certSubject // of the client certificate
	certIssuer
	certSerial
	certDigest
	certVerify
)

// variables is what nginx and ingress-nginx call them.
var variables = map[string]variable{
	"scheme": scheme, "pass_access_scheme": scheme,
	"host": host, "http_host": authority, "best_http_host": bestHost,
	"request_uri": requestURI, "escaped_request_uri": escapedURI,
	"uri": uri, "document_uri": uri, "args": args, "query_string": args, "is_args": isArgs,
	"remote_addr": remoteAddr, "the_real_ip": remoteAddr, "binary_remote_addr": remoteAddr, "realip_remote_addr": remoteAddr,
	"remote_port": remotePort, "remote_user": remoteUser, "request_method": method,
	"server_port": serverPort, "pass_server_port": serverPort, "pass_port": serverPort, "server_protocol": protocol,
	"request_id": requestID, "req_id": requestID,
	"ssl_client_s_dn": certSubject, "ssl_client_i_dn": certIssuer, "ssl_client_serial": certSerial,
	"ssl_client_fingerprint": certDigest, "ssl_client_verify": certVerify,
}

// part is one piece of a template.
type part struct {
	kind variable
	n    int    // of a capture
	text []byte // literal, or the name of a field, cookie or argument
}

// template is text with variables.
type template struct {
	parts []part
	// fixed is the whole, if it has no variables.
	fixed []byte
}

// parse reads a template. What is of the rule ($namespace, $service_name …)
// becomes text at once.
func parse(text string, r *route.Rule) (*template, error) {
	t := &template{}
	lit := []byte{}
	flush := func() {
		if len(lit) > 0 {
			t.parts = append(t.parts, part{kind: literal, text: slices.Clone(lit)})
			lit = lit[:0]
		}
	}
	for i := 0; i < len(text); {
		name, n := reference(text[i:])
		if n == 0 {
			if text[i] < 0x20 && text[i] != '\t' || text[i] == 0x7f {
				return nil, fmt.Errorf("filter: %q has a control character: remove it", text)
			}
			lit = append(lit, text[i])
			i++
			continue
		}
		i += n
		if v, ok := ofRule(name, r); ok {
			lit = append(lit, v...)
			continue
		}
		p := part{}
		switch {
		case len(name) == 1 && name[0] >= '0' && name[0] <= '9':
			p = part{kind: capture, n: int(name[0] - '0')}
		case variables[name] != literal:
			p = part{kind: variables[name]}
		case strings.HasPrefix(name, "http_"):
			p = part{kind: header, text: []byte(strings.ReplaceAll(name[5:], "_", "-"))}
		case strings.HasPrefix(name, "cookie_"):
			p = part{kind: cookieOf, text: []byte(name[7:])}
		case strings.HasPrefix(name, "arg_"):
			p = part{kind: argument, text: []byte(name[4:])}
		default:
			return nil, fmt.Errorf("filter: %q refers to $%s, which the gateway does not know: remove it", text, name)
		}
		flush()
		t.parts = append(t.parts, p)
	}
	flush()
	switch {
	case len(t.parts) == 0:
		t.fixed = []byte{}
	case len(t.parts) == 1 && t.parts[0].kind == literal:
		t.fixed = t.parts[0].text
	}
	return t, nil
}

// reference reads $name, ${name} or $1 at the begin of text; n is 0 if there
// is none.
func reference(text string) (name string, n int) {
	if len(text) < 2 || text[0] != '$' {
		return "", 0
	}
	if text[1] == '{' {
		if i := strings.IndexByte(text, '}'); i > 2 {
			return text[2:i], i + 1
		}
		return "", 0
	}
	if '0' <= text[1] && text[1] <= '9' {
		return text[1:2], 2
	}
	n = 1
	for n < len(text) && (text[n] == '_' || 'a' <= text[n]|0x20 && text[n]|0x20 <= 'z' || n > 1 && '0' <= text[n] && text[n] <= '9') {
		n++
	}
	if n == 1 {
		return "", 0
	}
	return text[1:n], n
}

// ofRule gives the variables that a rule decides.
func ofRule(name string, r *route.Rule) (string, bool) {
	switch name {
	case "namespace":
		return r.Origin.Namespace, true
	case "ingress_name":
		return r.Origin.Name, true
	case "service_name":
		if len(r.Backends) > 0 {
			return r.Backends[0].Service.Name, true
		}
		return "", true
	case "service_port":
		if len(r.Backends) > 0 {
			return r.Backends[0].Port, true
		}
		return "", true
	case "location_path":
		return r.Path.Value, true
	}
	return "", false
}

// value is what a part stands for now.
func (x *Exchange) value(p *part) []byte {
	switch p.kind {
	case literal:
		return p.text
	case capture:
		if p.n < len(x.Captures) {
			return x.Captures[p.n]
		}
	case header:
		if http.EqualFold(p.text, http.Host.Bytes()) {
			return x.Authority
		}
		return x.Request.Fields.Lookup(p.text)
	case cookieOf:
		return cookie(x.Request.Fields, p.text)
	case argument:
		return parameter(query(x.Path), p.text)
	case scheme:
		return bytesOf(x.Scheme())
	case host:
		return hostname(x.Authority)
	case authority:
		return x.Authority
	case bestHost:
		return x.host
	case requestURI, escapedURI:
		return x.Path
	case uri:
		return pathOf(x.Path)
	case args:
		return query(x.Path)
	case isArgs:
		if len(query(x.Path)) > 0 {
			return bytesOf("?")
		}
	case remoteAddr:
		return x.client
	case remotePort:
		start := len(x.buf)
		x.buf = fmt.Append(x.buf, x.remotePort)
		return x.buf[start:]
	case remoteUser:
		return x.User
	case method:
		return x.Method
	case serverPort:
		return x.portText
	case protocol:
		switch x.Request.Version {
		case http.HTTP10:
			return bytesOf("HTTP/1.0")
		case http.HTTP2:
			return bytesOf("HTTP/2.0")
		}
		return bytesOf("HTTP/1.1")
	case requestID:
		if x.ID == nil {
			x.identify(x.Request.Fields.Get(http.XRequestID))
		}
		return x.ID
	case certSubject, certIssuer, certSerial, certDigest, certVerify:
		return bytesOf(certificate(x.Peer, p.kind))
	}
	return nil
}

// text expands a template into a field value.
func (x *Exchange) text(t *template) []byte {
	if t.fixed != nil {
		return t.fixed
	}
	// A part may use the buffer itself, so the parts are looked up one by one
	// and what is built begins anew behind them.
	var room [256]byte
	out := room[:0]
	for i := range t.parts {
		out = appendValue(out, x.value(&t.parts[i]))
	}
	return x.keep(out)
}

// keep copies b into the buffer.
func (x *Exchange) keep(b []byte) []byte {
	start := len(x.buf)
	x.buf = append(x.buf, b...)
	return x.buf[start:len(x.buf):len(x.buf)]
}

func pathOf(p []byte) []byte {
	for i, c := range p {
		if c == '?' {
			return p[:i]
		}
	}
	return p
}

func query(p []byte) []byte {
	for i, c := range p {
		if c == '?' {
			return p[i+1:]
		}
	}
	return nil
}

// parameter finds the first value of a query parameter, as it stands there.
func parameter(q, name []byte) []byte {
	for len(q) > 0 {
		item := q
		for i, c := range q {
			if c == '&' {
				item = q[:i]
				break
			}
		}
		q = q[min(len(item)+1, len(q)):]
		if len(item) >= len(name) && http.EqualFold(item[:len(name)], name) {
			if len(item) == len(name) {
				return item[len(item):]
			}
			if item[len(name)] == '=' {
				return item[len(name)+1:]
			}
		}
	}
	return nil
}

// cookie finds the first cookie of this name.
func cookie(fields http.Fields, name []byte) []byte {
	for i := range fields {
		if fields[i].ID != http.Cookie {
			continue
		}
		rest := fields[i].Value
		for len(rest) > 0 {
			item := rest
			for j, c := range rest {
				if c == ';' {
					item = rest[:j]
					break
				}
			}
			rest = rest[min(len(item)+1, len(rest)):]
			item = trim(item)
			if len(item) > len(name) && item[len(name)] == '=' && string(item[:len(name)]) == string(name) {
				return item[len(name)+1:]
			}
		}
	}
	return nil
}
