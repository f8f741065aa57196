package h2

import (
	wire "github.com/fingerpost/fingerpost/wire/http/h2"

	"github.com/fingerpost/fingerpost/wire/http"
)

// The errors that end a connection and are found here.
var (
	errFirst   = &wire.Error{Code: wire.ProtocolError, Reason: "the first frame is not SETTINGS"}
	errOrder   = &wire.Error{Code: wire.ProtocolError, Reason: "a head is interrupted by another frame"}
	errIdle    = &wire.Error{Code: wire.ProtocolError, Reason: "a frame for a stream that was not opened"}
	errClosed  = &wire.Error{Code: wire.StreamClosed, Reason: "a head for a stream that is closed"}
	errFlow    = &wire.Error{Code: wire.FlowControlError, Reason: "more than the window of the connection"}
	errWindow  = &wire.Error{Code: wire.FlowControlError, Reason: "a window above 2^31-1"}
	errZero    = &wire.Error{Code: wire.ProtocolError, Reason: "a WINDOW_UPDATE of nothing"}
	errPush    = &wire.Error{Code: wire.ProtocolError, Reason: "PUSH_PROMISE is not allowed"}
	errSelf    = &wire.Error{Code: wire.ProtocolError, Reason: "a stream depends on itself"}
	errCalm    = &wire.Error{Code: wire.EnhanceYourCalm, Reason: "too many frames that bring nothing"}
	errResets  = &wire.Error{Code: wire.EnhanceYourCalm, Reason: "too many requests are given up"}
	errHead    = &wire.Error{Code: wire.EnhanceYourCalm, Reason: "a head is larger than allowed"}
	errUnread  = &wire.Error{Code: wire.EnhanceYourCalm, Reason: "answers to control frames are not read"}
	errPreface = &wire.Error{Code: wire.ProtocolError, Reason: "the connection preface is not that of HTTP/2"}
)

// frame takes a frame that is in the buffer as a whole.
func (c *conn) frame(h wire.Header, p []byte) error {
	c.read++
	if !c.hello {
		if h.Type != wire.Settings || h.Flags&wire.Ack != 0 {
			return errFirst
		}
		c.hello = true
	}
	if c.restID != 0 && (h.Type != wire.Continuation || h.Stream != c.restID) {
		return errOrder
	}
	switch h.Type {
	case wire.Data:
		body, _, err := h.Unpad(p)
		if err != nil {
			return err
		}
		if err := c.beginData(h, len(p)); err != nil {
			return err
		}
		c.data(h, body, len(p)-len(body), true)
		return nil
	case wire.Headers:
		return c.beginHead(h, p)
	case wire.Continuation:
		return c.continuation(h, p)
	case wire.WindowUpdate:
		return c.windowUpdate(h, p)
	case wire.Settings:
		return c.settings(h, p)
	case wire.Ping:
		return c.ping(h, p)
	case wire.RSTStream:
		return c.resetByPeer(h, p)
	case wire.GoAway:
		return c.goneAway(h, p)
	case wire.Priority:
		return c.priority(h, p)
	case wire.PushPromise:
		return errPush
	}
	return c.spend()
}

// spend counts a frame that brings nothing.
func (c *conn) spend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spendHeld()
}

// spendHeld is spend for those who hold the mutex.
func (c *conn) spendHeld() error {
	if c.calm.spend() {
		return nil
	}
	return errCalm
}

// opened says whether a stream of this number was ever opened, by whoever may.
func (c *conn) opened(id uint32) bool { return id&1 == 1 && id <= c.maxID }

// beginData accounts for a DATA frame. n is its payload.
func (c *conn) beginData(h wire.Header, n int) error {
	switch {
	case !c.hello:
		return errFirst
	case c.restID != 0:
		return errOrder
	case h.Stream == 0:
		return wire.ErrStreamID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened(h.Stream) {
		return errIdle
	}
	if int64(n) > c.recvLeft {
		return errFlow
	}
	c.recvLeft -= int64(n)
	c.recvCredit += int64(n)
	if c.recvCredit >= connWindow/2 {
		c.control(wire.AppendWindowUpdate(c.buffer(), 0, uint32(c.recvCredit)))
		c.recvLeft += c.recvCredit
		c.recvCredit = 0
	}
	s := c.find(h.Stream)
	switch {
	case s == nil:
		if !c.resets.has(h.Stream) {
			c.control(wire.AppendReset(c.buffer(), h.Stream, wire.StreamClosed))
			c.resets.add(h.Stream)
			return c.spendHeld()
		}
	case s.recvEnd:
		c.resetStream(s, wire.StreamClosed, c.lost(errClosed))
	case c.client && !s.final:
		c.resetStream(s, wire.ProtocolError, c.lost(errIdle)) // a body before its head
	case int64(n) > s.recvLeft:
		c.resetStream(s, wire.FlowControlError, c.lost(errFlow))
	default:
		s.recvLeft -= int64(n)
	}
	if n == 0 && h.Flags&wire.EndStream == 0 {
		return c.spendHeld()
	}
	c.calm.earn()
	return nil
}

// data takes a part of a DATA frame; last says that it is the last one.
func (c *conn) data(h wire.Header, p []byte, padding int, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.find(h.Stream)
	if s == nil || s.recvEnd {
		return
	}
	if s.expect >= 0 {
		if s.expect -= int64(len(p)); s.expect < 0 {
			c.resetStream(s, wire.ProtocolError, c.lost(wire.ErrLength))
			return
		}
	}
	if len(p) > 0 {
		s.keep(p)
	}
	if padding > 0 {
		s.credit(padding)
	}
	if last && h.Flags&wire.EndStream != 0 {
		c.endOfBody(s)
	}
	if len(p) > 0 || s.recvEnd {
		s.rd.wake()
	}
}

// endOfBody is called when the peer ended its side of the stream.
func (c *conn) endOfBody(s *strm) {
	if s.expect > 0 {
		c.resetStream(s, wire.ProtocolError, c.lost(wire.ErrLength))
		return
	}
	s.recvEnd = true
	if s.sentEnd {
		c.remove(s)
	}
}

func (c *conn) beginHead(h wire.Header, p []byte) error {
	if h.Stream == 0 || h.Stream&1 == 0 {
		return wire.ErrStreamID
	}
	block, depends, err := h.Unpad(p)
	if err != nil {
		return err
	}
	if h.Flags&wire.HasPriority != 0 && depends == h.Stream {
		return errSelf
	}
	if h.Flags&wire.EndHeaders != 0 {
		return c.head(h.Stream, block, h.Flags&wire.EndStream != 0)
	}
	c.restID, c.restEnd, c.frames = h.Stream, h.Flags&wire.EndStream != 0, 1
	c.rest = append(c.rest[:0], block...)
	return nil
}

func (c *conn) continuation(h wire.Header, p []byte) error {
	if c.restID == 0 || h.Stream == 0 {
		return errOrder
	}
	c.frames++
	c.rest = append(c.rest, p...)
	// A head that is too large is to be answered (431), which other streams of the
	// connection do not notice; one without end is not waited for.
	if len(c.rest) > 2*c.cfg.Head.Size || c.frames > 8+c.cfg.Head.Size/1024 {
		return errHead
	}
	if h.Flags&wire.EndHeaders == 0 {
		if len(p) < 64 {
			return c.spend()
		}
		return nil
	}
	id, block := c.restID, c.rest
	c.restID, c.rest = 0, nil
	return c.head(id, block, c.restEnd)
}

// head takes a complete block of fields.
func (c *conn) head(id uint32, block []byte, end bool) error {
	if c.client {
		return c.responseHead(id, block, end)
	}
	return c.requestHead(id, block, end)
}

// skip decodes a block that nobody wants, for the sake of the table.
func (c *conn) skip(block []byte) error {
	var arena []byte
	var f http.Fields
	err := c.dec.Trailers(block, &arena, &f, c.cfg.Head)
	return ofConnection(err)
}

// ofConnection drops errors that end a stream only.
func ofConnection(err error) error {
	if e, ok := err.(*wire.Error); ok && e.Stream {
		return nil
	}
	return err
}

// trailers takes the head after a body; c.mu is held.
func (c *conn) trailers(s *strm, block []byte, end bool) error {
	err := c.dec.Trailers(block, &s.arena, &s.trailers, c.cfg.Head)
	switch {
	case ofConnection(err) != nil:
		return err
	case s.recvEnd:
		c.resetStream(s, wire.StreamClosed, c.lost(errClosed))
	case err != nil:
		c.resetStream(s, wire.ProtocolError, c.lost(err))
	case !end:
		c.resetStream(s, wire.ProtocolError, c.lost(wire.ErrTrailers))
	default:
		c.endOfBody(s)
		s.rd.wake()
	}
	return nil
}

// tinyWindow is an increment that makes more work than it lets us send. There are
// clients that acknowledge each frame, so what is above costs nothing.
const tinyWindow = 16

func (c *conn) windowUpdate(h wire.Header, p []byte) error {
	n, err := wire.ParseWindowUpdate(h, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < tinyWindow {
		if err := c.spendHeld(); err != nil {
			return err
		}
	}
	if h.Stream == 0 {
		if n == 0 {
			return errZero
		}
		if c.sendLeft += int64(n); c.sendLeft > wire.MaxWindow {
			return errWindow
		}
		c.wakeWriters()
		return nil
	}
	if !c.opened(h.Stream) {
		return errIdle
	}
	s := c.find(h.Stream)
	if s == nil {
		return nil
	}
	if n == 0 {
		c.resetStream(s, wire.ProtocolError, c.lost(errZero))
		return nil
	}
	if s.sendLeft += int64(n); s.sendLeft > wire.MaxWindow {
		c.resetStream(s, wire.FlowControlError, c.lost(errWindow))
		return nil
	}
	s.wr.wake()
	return nil
}

func (c *conn) settings(h wire.Header, p []byte) error {
	if err := wire.CheckSettings(h, p); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Flags&wire.Ack != 0 {
		return nil
	}
	if err := c.spendHeld(); err != nil {
		return err
	}
	if !c.settled {
		c.peerMax = 1<<32 - 1 // unless it says something else
	}
	for ; len(p) > 0; p = p[wire.SettingLen:] {
		x := wire.SettingAt(p)
		switch x.ID {
		case wire.HeaderTableSize:
			c.enc.SetTableSize(x.Value)
		case wire.MaxConcurrentStreams:
			c.peerMax = x.Value
		case wire.EnableConnectProtocol:
			c.connect = x.Value == 1
		case wire.InitialWindowSize:
			d := int64(x.Value) - c.initial
			c.initial = int64(x.Value)
			for _, s := range c.streams {
				if s.sendLeft += d; s.sendLeft > wire.MaxWindow {
					return errWindow
				}
				s.wr.wake()
			}
		}
	}
	if !c.settled {
		c.settled = true
		close(c.ready)
	}
	c.wakeWriters()
	c.control(wire.AppendSettingsAck(c.buffer()))
	return c.unread()
}

func (c *conn) ping(h wire.Header, p []byte) error {
	if h.Stream != 0 {
		return wire.ErrStreamID
	}
	if len(p) != 8 {
		return wire.ErrFrameSize
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Flags&wire.Ack != 0 {
		c.pong(p)
		return nil
	}
	if err := c.spendHeld(); err != nil {
		return err
	}
	c.control(wire.AppendPing(c.buffer(), true, p))
	return c.unread()
}

// unread bounds the answers that a peer makes us keep without reading them.
func (c *conn) unread() error {
	if len(c.out) > 2*outLimit {
		return errUnread
	}
	return nil
}

func (c *conn) resetByPeer(h wire.Header, p []byte) error {
	code, err := wire.ParseReset(h, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opened(h.Stream) {
		return errIdle
	}
	s := c.find(h.Stream)
	if s == nil {
		return c.spendHeld()
	}
	if !c.client && !c.reset.spend() {
		return errResets
	}
	s.brokenByPeer(code)
	c.remove(s)
	return nil
}

func (c *conn) goneAway(h wire.Header, p []byte) error {
	last, code, err := wire.ParseGoAway(h, p)
	if err != nil {
		return err
	}
	if err := c.spend(); err != nil {
		return err
	}
	if c.client {
		c.mu.Lock()
		c.refuseAbove(last, code)
		c.mu.Unlock()
	}
	return nil
}

func (c *conn) priority(h wire.Header, p []byte) error {
	if h.Stream == 0 {
		return wire.ErrStreamID
	}
	if len(p) != 5 {
		return wire.ErrFrameSize
	}
	if uint32(p[0]&0x7f)<<24|uint32(p[1])<<16|uint32(p[2])<<8|uint32(p[3]) == h.Stream {
		return errSelf
	}
	return c.spend()
}
