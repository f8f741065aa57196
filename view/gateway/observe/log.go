package observe

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fingerpost/fingerpost/wire/http"
)

// Format is how a line looks.
type Format uint8

// The formats of the access log.
const (
	// Combined is that of nginx and Apache, with what ingress-nginx adds to it:
	// request length and time, upstream name, address, length, time and status,
	// request id.
	Combined Format = iota
	// Plain is Combined without the additions.
	Plain
	// JSON is one object a line.
	JSON
)

// LogConfig is what a Log needs.
type LogConfig struct {
	Writer io.Writer
	Format Format
	// Sample logs one of so many successful exchanges; 0 and 1: all. Those with a
	// status of 400 and more are always logged.
	Sample uint64
	// Buffer bounds the bytes that wait for the writer; 0: 1 MiB.
	Buffer int
	// Interval is how long a line waits at most; 0: 1 s.
	Interval time.Duration
}

// Log is an access log.
type Log struct {
	cfg     LogConfig
	mu      sync.Mutex
	waiting []byte
	spare   []byte
	wake    chan struct{}
	count   atomic.Uint64
	dropped atomic.Uint64
	failed  atomic.Uint64
	stamp   atomic.Pointer[stamp]
	scratch sync.Pool
}

// stamp is the text of a second.
type stamp struct {
	second int64
	text   []byte // as Apache has it
	iso    []byte // RFC 3339 in UTC, without fraction and zone
}

// NewLog makes a log; Run writes it.
func NewLog(cfg LogConfig) (*Log, error) {
	if cfg.Writer == nil {
		return nil, errors.New("gateway/observe: the access log has no writer: give one, or no log")
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = 1 << 20
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	l := &Log{cfg: cfg, wake: make(chan struct{}, 1)}
	l.scratch.New = func() any { return new([1024]byte) }
	return l, nil
}

// Dropped counts lines that were lost: the writer was too slow.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Failed counts writes that failed.
func (l *Log) Failed() uint64 { return l.failed.Load() }

// Run writes until the context ends, and then what is left.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(l.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return nil
		case <-l.wake:
		case <-tick.C:
		}
		l.flush()
	}
}

func (l *Log) flush() {
	l.mu.Lock()
	out := l.waiting
	l.waiting, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	if len(out) > 0 {
		if _, err := l.cfg.Writer.Write(out); err != nil {
			l.failed.Add(1)
		}
	}
	l.mu.Lock()
	l.spare = out[:0]
	l.mu.Unlock()
}

// Write logs an exchange.
func (l *Log) Write(r *Record) {
	if l.cfg.Sample > 1 && r.status() < 400 && l.count.Add(1)%l.cfg.Sample != 0 {
		return
	}
	room := l.scratch.Get().(*[1024]byte)
	line := room[:0]
	switch l.cfg.Format {
	case JSON:
		line = l.appendJSON(line, r)
	default:
		line = l.appendCombined(line, r)
	}
	l.mu.Lock()
	if len(l.waiting)+len(line) > l.cfg.Buffer {
		l.mu.Unlock()
		l.dropped.Add(1)
		l.scratch.Put(room)
		return
	}
	before := len(l.waiting)
	l.waiting = append(l.waiting, line...)
	full := before < l.cfg.Buffer/4 && len(l.waiting) >= l.cfg.Buffer/4
	l.mu.Unlock()
	l.scratch.Put(room)
	if full {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// longest is how much of a client's text is logged of one field.
const longest = 2048

func (l *Log) appendCombined(b []byte, r *Record) []byte {
	b = orDash(b, r.Remote)
	b = append(b, " - "...)
	b = orDash(b, r.User)
	b = append(b, " ["...)
	b = append(b, l.time(r.Begin.Add(r.Took)).text...)
	b = append(b, `] "`...)
	b = appendEscaped(b, r.Method)
	b = append(b, ' ')
	b = appendEscaped(b, r.Path)
	b = append(b, ' ')
	b = append(b, version(r.Version)...)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(r.status()), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.Sent, 10)
	b = append(b, ` "`...)
	b = orDash(b, r.Referer)
	b = append(b, `" "`...)
	b = orDash(b, r.Agent)
	b = append(b, '"')
	if l.cfg.Format == Plain {
		return append(b, '\n')
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.Received, 10)
	b = append(b, ' ')
	b = appendSeconds(b, r.Took)
	b = append(b, " ["...)
	if r.Route != nil {
		b = append(b, r.Route.upstream...)
	}
	b = append(b, "] ["...)
	if r.Canary != nil {
		b = append(b, r.Canary.upstream...)
	}
	b = append(b, "] "...)
	if r.Attempts == 0 || !r.Upstream.IsValid() {
		b = append(b, "- - - - "...)
	} else {
		b = r.Upstream.AppendTo(b)
		b = append(b, ' ')
		b = strconv.AppendInt(b, r.UpstreamSent, 10)
		b = append(b, ' ')
		b = appendSeconds(b, r.UpstreamTook)
		b = append(b, ' ')
		if r.UpstreamStatus == 0 {
			b = append(b, "- "...)
		} else {
			b = append(strconv.AppendInt(b, int64(r.UpstreamStatus), 10), ' ')
		}
	}
	b = orDash(b, r.ID)
	return append(b, '\n')
}

func (l *Log) appendJSON(b []byte, r *Record) []byte {
	b = append(b, `{"time":"`...)
	end := r.Begin.Add(r.Took)
	b = append(append(b, l.time(end).iso...), '.')
	b = append(appendMillis(b, int64(end.Nanosecond())/1e6), `Z"`...)
	text := func(name string, v []byte) {
		if len(v) > 0 {
			b = append(append(append(b, `,"`...), name...), `":"`...)
			b = append(appendJSONText(b, v), '"')
		}
	}
	number := func(name string, v int64) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = strconv.AppendInt(b, v, 10)
	}
	seconds := func(name string, d time.Duration) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = appendSeconds(b, d)
	}
	plain := func(name, v string) {
		if v != "" {
			b = append(append(append(append(append(b, `,"`...), name...), `":"`...), v...), '"')
		}
	}
	text("remote_addr", r.Remote)
	text("remote_user", r.User)
	text("request_id", r.ID)
	text("host", r.Host)
	text("method", r.Method)
	text("path", r.Path)
	plain("protocol", version(r.Version))
	if r.TLS {
		plain("scheme", "https")
	} else {
		plain("scheme", "http")
	}
	number("status", int64(r.status()))
	number("bytes_sent", r.Sent)
	number("bytes_received", r.Received)
	seconds("duration", r.Took)
	text("referer", r.Referer)
	text("user_agent", r.Agent)
	plain("answered_by", r.By)
	if r.Route != nil {
		plain("namespace", r.Route.labels.Namespace)
		plain("ingress", r.Route.labels.Ingress)
		plain("service", r.Route.labels.Service)
		plain("upstream_name", r.Route.upstream)
	}
	if r.Canary != nil {
		plain("canary_name", r.Canary.upstream)
	}
	if r.Attempts > 0 && r.Upstream.IsValid() {
		b = append(b, `,"upstream_addr":"`...)
		b = append(r.Upstream.AppendTo(b), '"')
		number("upstream_status", int64(r.UpstreamStatus))
		number("upstream_bytes", r.UpstreamSent)
		seconds("upstream_duration", r.UpstreamTook)
		number("attempts", int64(r.Attempts))
	}
	return append(b, "}\n"...)
}

// time gives the text of a moment, made once a second.
func (l *Log) time(t time.Time) *stamp {
	second := t.Unix()
	s := l.stamp.Load()
	if s == nil || s.second != second {
		s = &stamp{second, t.AppendFormat(nil, "02/Jan/2006:15:04:05 -0700"), t.UTC().AppendFormat(nil, "2006-01-02T15:04:05")}
		l.stamp.Store(s)
	}
	return s
}

func version(v http.Version) string {
	switch v {
	case http.HTTP10:
		return "HTTP/1.0"
	case http.HTTP2:
		return "HTTP/2.0"
	}
	return "HTTP/1.1"
}

func appendSeconds(b []byte, d time.Duration) []byte {
	ms := max(d, 0).Milliseconds()
	return appendMillis(append(strconv.AppendInt(b, ms/1000, 10), '.'), ms%1000)
}

func appendMillis(b []byte, ms int64) []byte {
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
}

func orDash(b, v []byte) []byte {
	if len(v) == 0 {
		return append(b, '-')
	}
	return appendEscaped(b, v)
}

const hexDigits = "0123456789ABCDEF"

// appendEscaped escapes as nginx does.
func appendEscaped(b, v []byte) []byte {
	for _, c := range v[:min(len(v), longest)] {
		if c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

func appendJSONText(b, v []byte) []byte {
	v = v[:min(len(v), longest)]
	for len(v) > 0 {
		c := v[0]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(v)
			b = utf8.AppendRune(b, r) // what is no UTF-8 becomes U+FFFD
			v = v[n:]
			continue
		}
		v = v[1:]
	}
	return b
}
