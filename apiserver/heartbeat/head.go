package heartbeat

import (
	"bytes"
	"strconv"
	"strings"
)

// MaxBody is the longest body of a heartbeat.
const MaxBody = 4 << 10

const prefix = "/apis/fingerpost.dev/v1alpha1/namespaces/"

// Target takes {namespace} and {name} out of a path.
func Target(path string) (ns, name string, ok bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", "", false
	}
	rest, ok = strings.CutSuffix(rest, "/renew")
	if !ok {
		return "", "", false
	}
	ns, name, ok = strings.Cut(rest, "/instances/")
	return ns, name, ok && ns != "" && name != "" && !strings.Contains(ns, "/") && !strings.Contains(name, "/")
}

// Head reads the heads of heartbeats off an HTTP/1.1 connection. It knows
// the plain form only: everything that it is not sure about is "other", and
// net/http's to read. It remembers the header lines of the last one, because a
// client sends the same ones each time.
type Head struct {
	// of the request read last
	Namespace, Name string
	Query           string
	Size            int // of the head
	Body            int // length of the body

	// of the header lines read last
	Credential string // Authorization
	lines      []byte // up to and with the empty line
	length     int    // Content-Length
}

// Verdict says what the bytes at hand are.
type Verdict int

const (
	More  Verdict = iota // the head is not complete
	Beat                 // a heartbeat
	Other                // anything else
)

// Read looks at what the connection sent.
func (h *Head) Read(b []byte) Verdict {
	line := bytes.IndexByte(b, '\n')
	if line < 0 {
		return More
	}
	if !h.target(b[:line]) {
		return Other
	}
	rest := b[line+1:]
	if len(h.lines) == 0 || !bytes.HasPrefix(rest, h.lines) {
		end := bytes.Index(rest, []byte("\r\n\r\n"))
		if end < 0 {
			return More
		}
		if !h.header(rest[:end+2]) {
			h.lines = h.lines[:0]
			return Other
		}
		h.lines = append(h.lines[:0], rest[:end+4]...)
	}
	h.Size, h.Body = line+1+len(h.lines), h.length
	return Beat
}

// target reads the request line, without its line feed.
func (h *Head) target(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("PUT "))
	if !ok {
		if rest, ok = bytes.CutPrefix(line, []byte("POST ")); !ok {
			return false
		}
	}
	if rest, ok = bytes.CutSuffix(rest, []byte(" HTTP/1.1\r")); !ok {
		return false
	}
	for _, c := range rest {
		// Nothing that is written in more than one way: no escapes in the path.
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || strings.IndexByte("/-._?=&", c) >= 0) {
			return false
		}
	}
	path, query, _ := strings.Cut(string(rest), "?")
	h.Namespace, h.Name, ok = Target(path)
	h.Query = query
	return ok
}

// header reads header lines, each with its end, and refuses those that ask for
// anything: framing, upgrades, another identity.
func (h *Head) header(lines []byte) bool {
	h.length, h.Credential = 0, ""
	var host, length bool
	for len(lines) > 0 {
		end := bytes.Index(lines, []byte("\r\n"))
		line := lines[:end]
		lines = lines[end+2:]
		for _, c := range line {
			if c < ' ' || c > '~' {
				return false
			}
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return false
		}
		value = bytes.Trim(value, " ")
		switch string(bytes.ToLower(name)) {
		case "host":
			if host || len(value) == 0 || bytes.ContainsAny(value, " /@\\?#\"<>") {
				return false
			}
			host = true
		case "authorization":
			if h.Credential != "" || len(value) == 0 {
				return false
			}
			h.Credential = string(value)
		case "content-length":
			n, err := strconv.ParseUint(string(value), 10, 31)
			if length || err != nil || n > MaxBody || value[0] == '+' {
				return false
			}
			length, h.length = true, int(n)
		case "accept", "accept-encoding", "accept-language", "content-type", "user-agent", "traceparent", "tracestate", "x-request-id", "kubectl-command", "kubectl-session":
		case "connection":
			if !bytes.EqualFold(value, []byte("keep-alive")) {
				return false
			}
		default:
			return false
		}
	}
	return host
}
