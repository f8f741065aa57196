package gateway

import (
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// watch ends an exchange with an endpoint when the client gives up meanwhile, which
// HTTP/2 tells. A client of HTTP/1 that closes its half of the connection may
// still wait for the answer, so that the endpoint gets a moment yet; when the answer
// has begun, only writing shows that the client is gone.
type watch struct {
	mu   sync.Mutex
	u    stream.Upstream
	gone bool

	went  bool        // the client sends nothing more
	timer *time.Timer // runs since then
	turn  int
}

var _ socket.Leaver = (*watch)(nil)

// PeerLeft is of socket.Leaver.
func (w *watch) PeerLeft() {
	w.mu.Lock()
	w.went = true
	w.patience()
	w.mu.Unlock()
}

// patience begins to wait for the end of an exchange whose client has left. w.mu is
// held.
func (w *watch) patience() {
	if w.u == nil || w.timer != nil {
		return
	}
	turn := w.turn
	w.timer = time.AfterFunc(leaving, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.turn == turn && w.u != nil {
			w.gone = true
			w.u.Abort(errGone)
		}
	})
}

// forget makes it new.
func (w *watch) forget() {
	w.attend(nil)
	w.gone, w.went = false, false
}

// attend begins to look after an exchange, nil: ends it. false: the client is
// gone.
func (w *watch) attend(u stream.Upstream) bool {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.u = u
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
		w.turn++
	}
	if w.went {
		w.patience()
	}
	return !w.gone
}

// left says that the client is gone.
func (w *watch) left() bool {
	if w == nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

func (w *watch) abort(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if w.u != nil {
		w.u.Abort(err)
	}
}

// attend looks after the exchange with an endpoint.
func (x *exchange) attend(u stream.Upstream) bool {
	if x.plain != nil && (x.told || x.plain.Socket() == nil) {
		return true
	}
	if x.watch == nil && x.plain != nil {
		x.watch = &x.own
		x.plain.Socket().Leaves(x.watch)
	}
	if x.watch == nil {
		d, ok := x.d.(interface{ OnAbort(func(error)) })
		if !ok {
			return true
		}
		x.watch = &watch{}
		d.OnAbort(x.watch.abort)
	}
	return x.watch.attend(u)
}

// release ends the exchange with the endpoint.
func (x *exchange) release() {
	x.watch.attend(nil)
	x.u.Release()
	x.u = nil
}
