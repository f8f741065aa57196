package gateway

import (
	"sync"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// watch ends an exchange with an endpoint when the client gives up meanwhile, which
// HTTP/2 tells. A client of HTTP/1 that closes its half of the connection may
// still wait for the answer, so that only writing to it shows that it is gone.
type watch struct {
	mu   sync.Mutex
	u    stream.Upstream
	gone bool
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
	if x.plain != nil {
		return true
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
