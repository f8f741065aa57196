package probe

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The sorts of probes, as in the API.
const (
	TypeHTTP = "http"
	TypeTCP  = "tcp"
	TypeGRPC = "grpc"
	TypeExec = "exec"
)

const userAgent = "fingerpost-probe"

// Target is what to ask. Each prober reads the fields that concern it.
type Target struct {
	Addr string // IP address or host name (http, tcp, grpc)
	Port uint16 // http, tcp, grpc

	TLS     bool   // http: https; grpc: over TLS
	Path    string // http: with a query if needed; empty is "/"
	Host    string // http: Host header; grpc: authority; empty: the address
	Service string // grpc: the service to ask for; empty is the whole server

	Command []string // exec
	Dir     string   // exec: working directory; empty: ours
	Env     []string // exec: the whole environment; nil: ours
}

// Equal says whether two targets are the same.
func (t Target) Equal(o Target) bool {
	return t.Addr == o.Addr && t.Port == o.Port && t.TLS == o.TLS && t.Path == o.Path && t.Host == o.Host &&
		t.Service == o.Service && slices.Equal(t.Command, o.Command) && t.Dir == o.Dir &&
		slices.Equal(t.Env, o.Env) && (t.Env == nil) == (o.Env == nil)
}

func (t Target) hostPort() string { return net.JoinHostPort(t.Addr, strconv.Itoa(int(t.Port))) }

// Result is what came of one probe.
type Result struct {
	OK     bool
	Output string // one line for a person
}

// Prober asks a target once.
type Prober func(ctx context.Context, t Target) Result

// All gives the probers of this package by type.
func All() map[string]Prober {
	return map[string]Prober{TypeHTTP: HTTP, TypeTCP: TCP, TypeGRPC: GRPC, TypeExec: Exec}
}

func passed(output string) Result { return Result{OK: true, Output: clip(output)} }
func failed(output string) Result { return Result{Output: clip(output)} }

// patienceKey has what Within was told.
type patienceKey struct{}

// Within is context.WithTimeout for a prober: where it says how long it waited,
// that is d, however late it came to begin.
func Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithValue(ctx, patienceKey{}, d), d)
}

// patience is how long a prober has, in round numbers for messages.
func patience(ctx context.Context) time.Duration {
	if d, ok := ctx.Value(patienceKey{}).(time.Duration); ok {
		return d
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return time.Until(deadline).Round(10 * time.Millisecond)
}

// gaveUp turns an error into a result; one that is due to the context's end
// says so in words that stay the same from probe to probe.
func gaveUp(ctx context.Context, patience time.Duration, err error) Result {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(ctx.Err(), context.Canceled):
		return failed("cancelled")
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failed("no answer within " + patience.String())
	}
	return failed(err.Error())
}

const maxOutput = 200

// clip makes one line of at most 200 characters: the first that is not blank.
func clip(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	s, _, _ = strings.Cut(s, "\n")
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
	if utf8.RuneCountInString(s) > maxOutput {
		s = string([]rune(s)[:maxOutput-3]) + "..."
	}
	return s
}
