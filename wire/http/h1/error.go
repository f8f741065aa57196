package h1

import "strconv"

// Limits bound what a head may cost. Zero members and a nil pointer mean the
// defaults.
type Limits struct {
	Head   int // bytes of a head, default 32 KiB
	Fields int // lines of a head, default 100
	Line   int // bytes of a request target, default 16 KiB
}

// The defaults of Limits.
const (
	DefaultHead   = 32 << 10
	DefaultFields = 100
	DefaultLine   = 16 << 10
)

func (l *Limits) resolve() (head, fields, line int) {
	head, fields, line = DefaultHead, DefaultFields, DefaultLine
	if l == nil {
		return
	}
	if l.Head > 0 {
		head = l.Head
	}
	if l.Fields > 0 {
		fields = l.Fields
	}
	if l.Line > 0 {
		line = l.Line
	}
	return
}

// Error says why a message is refused, and with which status: 400, 414, 431,
// 501 or 505 for a request, 502 for a response.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string {
	return "h1: parse message: " + e.Reason + " (" + strconv.Itoa(e.Status) + ")"
}

func malformed(reason string) error { return &Error{400, reason} }

// blame makes an error that the field parser gave the endpoint's.
func blame(err error) error {
	if e, ok := err.(*Error); ok {
		return &Error{502, e.Reason}
	}
	return err
}
