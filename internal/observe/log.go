package observe

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
)

// Logger makes the process's logger. Format is "text" or "json", level one of
// debug, info, warn, error.
func Logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

// Chatty wraps the log for libraries that narrate: their Info is our Debug,
// and what they say about requests that were cancelled is not worth a line.
func Chatty(log *slog.Logger) *slog.Logger { return slog.New(chatty{log.Handler()}) }

type chatty struct{ slog.Handler }

func (h chatty) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, lower(l))
}

func (h chatty) Handle(ctx context.Context, r slog.Record) error {
	cancelled := aborted(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		cancelled = cancelled || aborted(a.Value.String())
		return !cancelled
	})
	r.Level = lower(r.Level)
	if cancelled {
		r.Level = slog.LevelDebug
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// aborted says whether a text is about a request that its client, or the stop
// of the process, gave up.
func aborted(s string) bool {
	for _, t := range []string{context.Canceled.Error(), http.ErrHandlerTimeout.Error(), "Post-timeout activity", "broadcaster already stopped"} {
		if strings.Contains(s, t) {
			return true
		}
	}
	return false
}

func (h chatty) WithAttrs(a []slog.Attr) slog.Handler { return chatty{h.Handler.WithAttrs(a)} }
func (h chatty) WithGroup(n string) slog.Handler      { return chatty{h.Handler.WithGroup(n)} }

// lower leaves warnings and what is below debug as they are: the latter holds
// whole requests and answers, with Secrets and tokens, and is never shown.
func lower(l slog.Level) slog.Level {
	if l >= slog.LevelWarn || l < slog.LevelDebug {
		return l
	}
	return slog.LevelDebug
}
