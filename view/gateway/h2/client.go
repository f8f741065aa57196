package h2

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// Client is a connection to an endpoint, which any number of goroutines use.
type Client struct{ c *conn }

// NewClient begins HTTP/2 on a connection. It does not wait for the endpoint.
func NewClient(nc net.Conn, cfg Config) (*Client, error) {
	c := newConn(nc, cfg, true)
	c.mu.Lock()
	c.watch = time.AfterFunc(c.period(false), c.look)
	c.partial = 1
	c.mu.Unlock()
	c.start()
	go c.serve()
	return &Client{c}, nil
}

var (
	errFull    = fmt.Errorf("%w: the connection has as many streams as it may", stream.ErrRefused)
	errGone    = fmt.Errorf("%w: the connection takes no more requests", stream.ErrRefused)
	errAway    = fmt.Errorf("%w: the endpoint closes the connection and has not looked at the request", stream.ErrRefused)
	errConnect = errors.New("h2: the endpoint does not take upgrades over HTTP/2 (RFC 8441): use HTTP/1.1 for it")
)

// Open gives a stream for one request, which is to be released. It fails with
// stream.ErrRefused if the connection is full or gone.
func (k *Client) Open() (stream.Upstream, error) {
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone():
		return nil, errGone
	case c.full():
		return nil, errFull
	}
	s := c.newStream()
	s.holders, s.slot = 1, true
	s.fresh = c.maxID == 0 && c.running == 0
	c.running++
	return s, nil
}

// Full says that no more streams can be opened now.
func (k *Client) Full() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.full()
}

// Gone says that no more streams can be opened ever.
func (k *Client) Gone() bool {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.gone()
}

// Streams is how many streams are open.
func (k *Client) Streams() int {
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	return k.c.running
}

// Drain closes the connection when the last stream is released; no more can be
// opened.
func (k *Client) Drain() {
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peerGone = true
	c.drained()
}

// Close closes the connection; open streams fail.
func (k *Client) Close() error {
	c := k.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(errGone)
	return nil
}

func (c *conn) full() bool {
	return c.running >= c.cfg.MaxStreams || uint32(c.running) >= c.peerMax
}

func (c *conn) gone() bool {
	return c.err != nil || c.quitting || c.peerGone || c.maxID >= wire.MaxWindow-2
}

// refuseAbove takes the endpoint's GOAWAY.
func (c *conn) refuseAbove(last uint32, code wire.Code) {
	c.peerGone = true
	for i := len(c.streams) - 1; i >= 0; i-- {
		if i >= len(c.streams) {
			continue
		}
		if s := c.streams[i]; s.id > last {
			s.broken(errAway)
			c.remove(s)
		}
	}
	c.drained()
}

// Send sends the head of the request.
func (s *strm) Send(r *http.Request, end bool) error {
	c := s.c
	if r.Upgrade != nil {
		if err := s.awaitSettings(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.id != 0 || s.sentHead {
		return errEnded
	}
	if err := s.roomForHead(); err != nil && c.err == nil {
		return err
	}
	if c.gone() {
		return errGone // whatever has happened: the request was not sent
	}
	if c.maxID == 0 {
		c.maxID = 1
	} else {
		c.maxID += 2
	}
	s.id, s.sendLeft = c.maxID, c.initial
	s.head = string(r.Method) == "HEAD"
	s.sentHead = true
	if r.Upgrade != nil {
		end = false
		s.upgrade = append([]byte(nil), r.Upgrade...)
		if key := r.Fields.Get(http.SecWebSocketKey); key != nil {
			s.acceptOf(key)
		}
	}
	if string(r.Method) == "CONNECT" {
		end = false
	}
	c.add(s)
	s.sendRequest = r
	c.appendHead(s, end, (*strm).encodeRequest)
	s.sendRequest = nil
	if end {
		c.ended(s)
	}
	return nil
}

func (s *strm) encodeRequest(dst []byte) []byte {
	return s.c.enc.AppendRequest(dst, s.sendRequest, s.c.cfg.HTTPS)
}

// awaitSettings waits until it is known whether the endpoint takes upgrades.
func (s *strm) awaitSettings() error {
	c := s.c
	var late <-chan time.Time
	c.mu.Lock()
	d := s.wr.deadline
	c.mu.Unlock()
	if !d.IsZero() {
		t := time.NewTimer(time.Until(d))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-c.ready:
	case <-late:
		return os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return errGone
	}
	if !c.connect {
		return errConnect
	}
	return nil
}

// acceptOf computes what a server of HTTP/1 answers to this key (RFC 6455, 4.2.2).
func (s *strm) acceptOf(key []byte) {
	h := sha1.New()
	h.Write(key)
	h.Write([]byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	base64.StdEncoding.Encode(s.acceptText[:], h.Sum(nil))
	s.accepts = true
}

// responseHead takes a complete head from an endpoint.
func (c *conn) responseHead(id uint32, block []byte, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calm.earn()
	s := c.find(id)
	if s == nil {
		if !c.opened(id) {
			return errIdle
		}
		return c.skip(block)
	}
	if s.final {
		return c.trailers(s, block, end)
	}
	err := c.dec.Response(block, end, &s.arena, &s.resp, c.cfg.Head)
	switch {
	case ofConnection(err) != nil:
		return err
	case err == wire.ErrTooLarge:
		c.resetStream(s, wire.Cancel, stream.ErrTooLarge)
		return nil
	case err != nil:
		c.resetStream(s, wire.ProtocolError, c.lost(err))
		return nil
	case s.resp.Status < 200:
		if len(s.infos) == 16 {
			c.resetStream(s, wire.EnhanceYourCalm, c.lost(errCalm))
			return nil
		}
		info := s.resp
		info.Fields = append(http.Fields(nil), s.resp.Fields...)
		s.infos = append(s.infos, info)
		s.rd.wake()
		return nil
	}
	s.final = true
	r := &s.resp
	switch {
	case s.upgrade != nil && r.Status/100 == 2:
		r.Status, r.Upgrade, r.Length, r.Declared = 101, s.upgrade, http.Unknown, false
		if s.accepts {
			r.Fields.Add(http.SecWebSocketAccept, s.acceptText[:])
		}
	case s.head || r.Status == 204 || r.Status == 304:
		s.expect = 0
	default:
		s.expect = r.Length
	}
	if end {
		c.endOfBody(s)
	}
	s.rd.wake()
	return nil
}

// Receive reads the head of a response into r.
func (s *strm) Receive(r *http.Response) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(s.infos) > 0:
			r.Reset()
			f := r.Fields
			*r = s.infos[0]
			r.Fields = append(f, s.infos[0].Fields...)
			s.infos = append(s.infos[:0], s.infos[1:]...)
			return nil
		case s.final && !s.given:
			s.given = true
			f := r.Fields[:0]
			*r = s.resp
			r.Fields = append(f, s.resp.Fields...)
			return nil
		case s.given:
			return errEnded
		case s.recvErr != nil:
			return s.recvErr
		}
		if err := s.rd.wait(&c.mu); err != nil {
			return err
		}
	}
}

// Fresh says that this is the first request of the connection.
func (s *strm) Fresh() bool { return s.fresh }

// Release ends the exchange.
func (s *strm) Release() { s.over() }
