package h2

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

const (
	// outLimit is what collects for writing before writers of bodies wait.
	outLimit = 64 << 10
	// connWindow is what a peer may send on all streams before it hears of us;
	// streams have windows of their own, so it only has to be large enough.
	connWindow = 1 << 20
)

// conn is a connection of either side. The reader is the goroutine of Serve, or
// one of its own; mu guards all that streams and the reader share.
type conn struct {
	net    net.Conn
	cfg    Config
	client bool
	own    bool // the workers are of this connection alone
	handle func(stream.Downstream)

	// Of the reader alone.
	dec     wire.Decoder
	rest    []byte // the frames of a head so far
	restID  uint32 // the stream whose head is not complete; 0: none
	restEnd bool
	frames  int // of that head
	in      reader
	hello   bool   // the peer's first SETTINGS came
	read    uint64 // frames that came

	mu      sync.Mutex
	ids     []uint32 // of the open streams; parallel to streams
	streams []*strm
	running int    // handlers, or exchanges of a client that hold a stream
	maxID   uint32 // the highest of the peer's streams, or of ours as a client
	taken   uint32 // the last stream that GOAWAY admits
	resets  resets // streams that we reset, whose late frames are ignored

	recvLeft   int64 // what the peer may still send on the connection
	recvCredit int64 // and what it is to be given back
	grown      int64 // what windows of streams have grown by

	enc      wire.Encoder
	out      []byte
	lastData int // where the head of the last frame in out is, if that is DATA; else -1
	writing  bool
	flushing bool
	sendLeft int64 // what we may send on the connection
	initial  int64 // the window of a new stream of ours
	maxFrame int
	waiting  []*strm // those that wait for room in out or for a window

	err      error // the connection is of no use any more
	quitting bool  // what is in out is written, then the connection is closed
	draining drain
	peerGone bool          // a client got GOAWAY
	peerMax  uint32        // of concurrent streams
	connect  bool          // the peer takes extended CONNECT
	ready    chan struct{} // closed when the peer's SETTINGS came
	settled  bool

	calm  budget // of frames that bring nothing
	reset budget // of streams that the client breaks

	watch   *time.Timer
	pinged  time.Time // when an endpoint was asked whether it lives
	seen    activity
	written uint64        // writes that ended, for the watch
	reads   uint64        // times that the reader waited
	partial uint64        // what the reader has a part of only; 0: nothing
	idle    chan struct{} // closed when nothing runs any more
}

func newConn(nc net.Conn, cfg Config, client bool) *conn {
	c := &conn{
		ready: make(chan struct{}),
		net:   nc, cfg: cfg.or(), client: client, own: cfg.Workers == nil,
		recvLeft: connWindow, sendLeft: wire.InitialWindow, initial: wire.InitialWindow,
		maxFrame: wire.MinFrame, lastData: -1, peerMax: 100, taken: wire.MaxWindow,
		calm:  budget{left: 400, most: 400, rate: 50},
		reset: budget{left: 250, most: 250, rate: 50},
	}
	return c
}

// start queues our part of the preface.
func (c *conn) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buffer()
	if c.client {
		b = append(b, wire.Preface...)
		b = wire.AppendSettings(b,
			wire.Setting{ID: wire.EnablePush, Value: 0},
			wire.Setting{ID: wire.InitialWindowSize, Value: uint32(c.cfg.Window)},
			wire.Setting{ID: wire.MaxHeaderListSize, Value: uint32(c.cfg.Head.Size)})
	} else {
		b = wire.AppendSettings(b,
			wire.Setting{ID: wire.MaxConcurrentStreams, Value: uint32(c.cfg.MaxStreams)},
			wire.Setting{ID: wire.InitialWindowSize, Value: uint32(c.cfg.Window)},
			wire.Setting{ID: wire.MaxHeaderListSize, Value: uint32(c.cfg.Head.Size)},
			wire.Setting{ID: wire.EnableConnectProtocol, Value: 1})
	}
	c.out = wire.AppendWindowUpdate(b, 0, connWindow-wire.InitialWindow)
	c.lastData = -1
	c.kick()
}

// find gives an open stream.
func (c *conn) find(id uint32) *strm {
	for i, x := range c.ids {
		if x == id {
			return c.streams[i]
		}
	}
	return nil
}

func (c *conn) add(s *strm) {
	s.index = len(c.ids)
	c.ids = append(c.ids, s.id)
	c.streams = append(c.streams, s)
}

// remove takes a stream off the open ones; it may be held by an exchange still.
func (c *conn) remove(s *strm) {
	if s.index < 0 {
		return
	}
	last := len(c.ids) - 1
	c.ids[s.index], c.streams[s.index] = c.ids[last], c.streams[last]
	c.streams[s.index].index = s.index
	c.ids, c.streams[last] = c.ids[:last], nil
	c.streams = c.streams[:last]
	s.index = -1
	c.grown -= s.window - int64(c.cfg.Window)
	s.window = int64(c.cfg.Window)
	c.drained()
}

// fatal ends the connection for an error of the peer: GOAWAY, then close.
func (c *conn) fatal(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	code := wire.InternalError
	reason := ""
	var e *wire.Error
	if errors.As(err, &e) {
		code, reason = e.Code, e.Reason
	}
	if c.err == nil && !c.quitting {
		c.goAway(c.maxPeer(), code, reason)
		c.quitting = true
	}
	c.failStreams(c.lost(err))
	c.kick()
}

// maxPeer is the last stream of the peer that was looked at.
func (c *conn) maxPeer() uint32 {
	if c.client {
		return 0
	}
	return min(c.maxID, c.taken)
}

func (c *conn) goAway(last uint32, code wire.Code, reason string) {
	c.out = wire.AppendGoAway(c.buffer(), last, code, reason)
	c.lastData = -1
}

// lost is what exchanges are told when the connection ends.
func (c *conn) lost(err error) error {
	if errors.Is(err, stream.ErrClosed) {
		return err
	}
	if err == nil || errors.Is(err, io.EOF) {
		return stream.ErrClosed
	}
	var e *wire.Error
	if errors.As(err, &e) {
		return fmt.Errorf("%w: %w", stream.ErrMalformed, err)
	}
	return fmt.Errorf("%w: %w", stream.ErrClosed, err)
}

// fail ends the connection: nothing can be written any more.
func (c *conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = c.lost(err)
	if c.client && !c.settled && errors.Is(c.err, stream.ErrClosed) && !errors.Is(c.err, errTimeout) {
		// It has not even said its preface: an endpoint that ended before it
		// accepted the connection.
		c.failStreams(errAway)
	}
	c.failStreams(c.err)
	c.wakeWriters()
	c.out = nil
	if !c.settled {
		c.settled = true
		close(c.ready)
	}
	// Closing TLS may wait for the peer to take an alert: not with the mutex.
	c.net.SetReadDeadline(time.Now())
	go c.net.Close()
}

func (c *conn) failStreams(err error) {
	for len(c.streams) > 0 {
		s := c.streams[len(c.streams)-1]
		s.broken(err)
		c.remove(s)
	}
}

// serve reads until the connection ends, and waits for those who use it.
func (c *conn) serve() error {
	err := c.readFrames()
	var e *wire.Error
	if errors.As(err, &e) {
		c.fatal(err)
		c.linger()
	}
	c.mu.Lock()
	c.fail(err)
	if c.watch != nil {
		c.watch.Stop()
	}
	var idle chan struct{}
	if c.running > 0 && !c.client {
		idle = make(chan struct{})
		c.idle = idle
	}
	c.mu.Unlock()
	c.in.release()
	if idle != nil {
		<-idle
	}
	if c.own {
		c.cfg.Workers.Close()
	}
	return err
}

// linger reads what the peer sent before it could know of our GOAWAY: closing
// over unread bytes would destroy it on its way.
func (c *conn) linger() {
	c.net.SetReadDeadline(time.Now().Add(lingering))
	p := inBuffers.Get().(*[inSize]byte)
	defer inBuffers.Put(p)
	for range 256 {
		if _, err := c.net.Read(p[:]); err != nil {
			return
		}
	}
}
