package observe

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	for _, c := range [][2]string{{"text", "loud"}, {"yaml", "info"}, {"", "info"}} {
		if _, err := Logger(&bytes.Buffer{}, c[0], c[1]); err == nil {
			t.Errorf("format %q, level %q: accepted", c[0], c[1])
		}
	}
	var b bytes.Buffer
	log, err := Logger(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("heard")
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"msg":"heard"`) {
		t.Errorf("logged %s", got)
	}
}

// TestChatty: narration is debug, bodies of requests are never shown.
func TestChatty(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelInfo:  "warning error ",
		slog.LevelDebug: "narration warning error cancelled ",
	} {
		var b bytes.Buffer
		log := Chatty(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: level})))
		log.Log(context.Background(), slog.Level(-8), "a response body with a Secret")
		log.Info("narration")
		log.Warn("warning")
		log.With("a", 1).Error("error", "error", errors.New("broken"))
		log.Error("cancelled", "error", context.Canceled)
		var got string
		for line := range strings.Lines(b.String()) {
			_, rest, _ := strings.Cut(line, "msg=")
			got += strings.Fields(rest)[0] + " "
		}
		if got != want {
			t.Errorf("at level %v: %q, want %q", level, got, want)
		}
	}
}
