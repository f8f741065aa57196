package dns

import (
	"context"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// TestStopFinishesWhatWaits: a question that waits for an upstream when the
// server is told to stop gets its answer, on every transport.
func TestStopFinishesWhatWaits(t *testing.T) {
	for _, plain := range []bool{false, true} {
		asked, release := make(chan string, 100), make(chan struct{})
		cfg := wireConfig(t, plain)
		cfg.Upstreams = []string{upstream(t, func(w miekg.ResponseWriter, q *miekg.Msg) {
			asked <- strings.ToLower(q.Question[0].Name)
			<-release
			good(w, q)
		})}
		w := newWorld(t, cfg)
		if err := w.server.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- w.server.Run(ctx) }()
		type outcome struct {
			transport string
			answer    *miekg.Msg
			err       error
		}
		outcomes := make(chan outcome, 4)
		for i, tr := range transports() {
			conn := &miekg.Conn{Conn: tr.dial(t, w.server)}
			defer conn.Close()
			go func() {
				// Different names: equal questions would wait together.
				q := new(miekg.Msg).SetQuestion("www."+[]string{"a", "b", "c", "d"}[i]+".example.", miekg.TypeA)
				o := outcome{transport: tr.name}
				if o.err = conn.WriteMsg(q); o.err == nil {
					o.answer, o.err = conn.ReadMsg()
				}
				outcomes <- o
			}()
		}
		// The upstream is probed as well, and asked again when it takes long.
		for names := map[string]bool{}; len(names) < len(transports()); {
			if name := <-asked; strings.HasSuffix(name, ".example.") {
				names[name] = true
			}
		}
		cancel()
		for !w.server.closing.Load() { // it has heard
			select {
			case err := <-done:
				t.Fatal("it ended without an answer:", err)
			case <-time.After(time.Millisecond):
			}
		}
		close(release)
		for range transports() {
			if o := <-outcomes; o.err != nil || len(o.answer.Answer) != 1 {
				t.Errorf("plain=%v: %s: %v %v", plain, o.transport, o.answer, o.err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
