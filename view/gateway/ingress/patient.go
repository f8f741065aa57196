package ingress

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// patient repeats requests for which no connection could be made: nothing was
// sent. Reflectors by themselves wait longer and longer, up to a minute, and for
// as long would not see that the server is back.
type patient struct {
	next http.RoundTripper
	log  *slog.Logger
	away *atomic.Int64 // since when, in ns; 0: it answers
}

const (
	patientFirst = 50 * time.Millisecond
	patientMost  = time.Second
)

// RoundTrip implements http.RoundTripper.
func (p *patient) RoundTrip(r *http.Request) (*http.Response, error) {
	for pause := patientFirst; ; pause = min(2*pause, patientMost) {
		res, err := p.next.RoundTrip(r)
		var op *net.OpError
		if err == nil {
			if p.away.Swap(0) != 0 {
				p.log.Info("the API server answers again")
			}
			return res, nil
		}
		if !errors.As(err, &op) || op.Op != "dial" {
			return nil, err
		}
		if p.away.CompareAndSwap(0, time.Now().UnixNano()) {
			p.log.Warn("the API server does not answer; the routes stay as they are", "error", err)
		}
		again := r.Clone(r.Context())
		if r.Body != nil && r.Body != http.NoBody {
			var body io.ReadCloser
			if r.GetBody == nil {
				return nil, err
			}
			if body, err = r.GetBody(); err != nil {
				return nil, err
			}
			again.Body = body
		}
		t := time.NewTimer(pause)
		select {
		case <-r.Context().Done():
			t.Stop()
			return nil, r.Context().Err()
		case <-t.C:
		}
		r = again
	}
}
