package h2

import (
	"bytes"
	"strings"
	"testing"

	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

const (
	proto    = wire.ProtocolError
	size     = wire.FrameSizeError
	closed   = wire.StreamClosed
	flow     = wire.FlowControlError
	compress = wire.CompressionError
	calm     = wire.EnhanceYourCalm
)

type conformance struct {
	name string
	send [][]byte
	want []want // in this order
}

func f(b ...[]byte) [][]byte { return b }
func w(x ...want) []want     { return x }

func prio(depends uint32, weight byte) []byte { return append(u32(depends), weight) }

func join(b ...[]byte) []byte { return bytes.Join(b, nil) }

// alive is appended to cases after which the connection lives.
var alive = wire.AppendPing(nil, false, []byte("alive?!!"))
var lives = pong("alive?!!")

// suite holds cases by section of RFC 9113 (of RFC 7540 where it is obsolete)
// and RFC 7541, after the manner of the usual conformance suites.
func suite() map[string][]conformance {
	return map[string][]conformance{
		"4.1 frame format": {
			{"unknown type is ignored", f(fr(0xff, 0, 0, 1, 2, 3), alive), w(lives)},
			{"unknown type on a stream is ignored", f(fr(0x16, 0, 7, 1, 2, 3), alive), w(lives)},
			{"undefined flags are ignored", f(fr(wire.Ping, 0x16&^1, 0, []byte("flagflag")...)), w(pong("flagflag"))},
			{"reserved bit is ignored", f(join([]byte{0, 0, 8, 6, 0, 0x80, 0, 0, 0}, []byte("reserved"))), w(pong("reserved"))},
		},
		"4.2 frame size": {
			{"DATA of 2^14", f(post(1), data(1, es, strings.Repeat("x", 1<<14))), w(status(1, 200))},
			{"DATA above 2^14", f(post(1), data(1, es, strings.Repeat("x", 1<<14+1))), w(goAway(size))},
			{"HEADERS above 2^14", f(fr(wire.Headers, es|eh, 1, make([]byte, 1<<14+1)...)), w(goAway(size))},
			{"unknown frame above 2^14", f(fr(0x20, 0, 0, make([]byte, 1<<14+1)...)), w(goAway(size))},
		},
		"4.3 header compression": {
			{"invalid block", f(fr(wire.Headers, es|eh, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), w(goAway(compress))},
			{"invalid block on a closed stream", f(get(1), fr(wire.Headers, es|eh, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), w(goAway(compress, closed))},
			{"PRIORITY within a head", f(fr(wire.Headers, es, 1, request("GET", "/")...), fr(wire.Priority, 0, 1, prio(0, 1)...)), w(goAway(proto))},
			{"HEADERS of another stream within a head", f(fr(wire.Headers, es, 1, request("GET", "/")...), get(3)), w(goAway(proto))},
			{"DATA within a head", f(fr(wire.Headers, 0, 1, request("GET", "/")...), data(1, es, "x")), w(goAway(proto))},
			{"PING within a head", f(fr(wire.Headers, 0, 1, request("GET", "/")...), alive), w(goAway(proto))},
			{"unknown frame within a head", f(fr(wire.Headers, 0, 1, request("GET", "/")...), fr(0x16, 0, 0)), w(goAway(proto))},
		},
		"5.1 stream states": {
			{"idle: DATA", f(data(1, es, "x")), w(goAway(proto))},
			{"idle: RST_STREAM", f(wire.AppendReset(nil, 1, wire.Cancel)), w(goAway(proto))},
			{"idle: WINDOW_UPDATE", f(wire.AppendWindowUpdate(nil, 1, 100)), w(goAway(proto))},
			{"idle: CONTINUATION", f(fr(wire.Continuation, eh, 1, request("GET", "/")...)), w(goAway(proto))},
			{"idle: PRIORITY is allowed", f(fr(wire.Priority, 0, 5, prio(0, 1)...), get(7)), w(status(7, 200))},
			{"half closed: DATA", f(fr(wire.Headers, es|eh, 1, request("GET", "/wait")...), data(1, es, "x")), w(reset(1, closed))},
			{"half closed: HEADERS", f(fr(wire.Headers, es|eh, 1, request("GET", "/wait")...), fr(wire.Headers, es|eh, 1, block("x", "y")...)), w(reset(1, closed))},
			{"half closed: CONTINUATION", f(fr(wire.Headers, es|eh, 1, request("GET", "/wait")...), fr(wire.Continuation, eh, 1, block("x", "y")...)), w(goAway(proto, closed))},
			{"half closed: WINDOW_UPDATE is allowed", f(fr(wire.Headers, es|eh, 1, request("GET", "/wait")...), wire.AppendWindowUpdate(nil, 1, 10), alive), w(lives)},
			{"half closed: RST_STREAM is allowed", f(fr(wire.Headers, es|eh, 1, request("GET", "/wait")...), wire.AppendReset(nil, 1, wire.Cancel), alive), w(lives)},
			{"closed by RST_STREAM: DATA", f(post(1), wire.AppendReset(nil, 1, wire.Cancel), data(1, es, "x")), w(reset(1, closed))},
			{"closed by RST_STREAM: HEADERS", f(post(1), wire.AppendReset(nil, 1, wire.Cancel), get(1)), w(goAway(closed))},
			{"closed by RST_STREAM: CONTINUATION", f(post(1), wire.AppendReset(nil, 1, wire.Cancel), fr(wire.Continuation, eh, 1)), w(goAway(proto, closed))},
		},
		"5.1 lower stream": {
			{"closed: DATA to a lower number", f(get(5), data(3, es, "x")), w(reset(3, closed))},
			{"closed: WINDOW_UPDATE to a lower number", f(get(5), wire.AppendWindowUpdate(nil, 3, 1), alive), w(lives)},
			{"closed: RST_STREAM to a lower number", f(get(5), wire.AppendReset(nil, 3, wire.Cancel), alive), w(lives)},
			{"closed: PRIORITY is allowed", f(get(5), fr(wire.Priority, 0, 3, prio(0, 9)...), alive), w(lives)},
		},
		"5.1.1 stream identifiers": {
			{"even number", f(fr(wire.Headers, es|eh, 2, request("GET", "/")...)), w(goAway(proto))},
			{"lower number than before", f(get(5), get(3)), w(goAway(proto, closed))},
			{"numbers may be left out", f(get(1), get(101)), w(statuses(200, 1, 101))},
		},
		"5.3 priority": {
			{"HEADERS that depends on itself", f(fr(wire.Headers, es|eh|wire.HasPriority, 1, join(prio(1, 1), request("GET", "/"))...)), w(goAway(proto))},
			{"PRIORITY that depends on itself", f(fr(wire.Priority, 0, 1, prio(1, 1)...)), w(goAway(proto))},
			{"HEADERS with priority", f(fr(wire.Headers, es|eh|wire.HasPriority, 1, join(prio(0, 200), request("GET", "/"))...)), w(status(1, 200))},
			{"exclusive dependency", f(fr(wire.Headers, es|eh|wire.HasPriority, 3, join(prio(1<<31|1, 200), request("GET", "/"))...)), w(status(3, 200))},
			{"HEADERS with a cut priority", f(fr(wire.Headers, es|eh|wire.HasPriority, 1, 0, 0)), w(goAway(size))},
		},
		"5.4.1 connection errors": {
			{"PING of a wrong size ends it", f(fr(wire.Ping, 0, 0, 1, 2, 3)), w(goAway(size), isClosed)},
			{"last stream is said", f(get(1), get(3), fr(wire.Ping, 0, 0)), w(lastStream(3))},
		},
		"6.1 DATA": {
			{"stream 0", f(data(0, es, "x")), w(goAway(proto))},
			{"padded", f(post(1), fr(wire.Data, es|wire.Padded, 1, 3, 'a', 'b', 0, 0, 0)), w(status(1, 200), dataEnd(1))},
			{"all padding", f(post(1), fr(wire.Data, es|wire.Padded, 1, 3, 0, 0, 0)), w(status(1, 200))},
			{"padding as long as the payload", f(post(1), fr(wire.Data, es|wire.Padded, 1, 3, 0, 0)), w(goAway(proto))},
			{"padded without a length", f(post(1), fr(wire.Data, es|wire.Padded, 1)), w(goAway(proto, size))},
			{"padding is given back", f(fr(wire.Headers, eh, 1, request("POST", "/unread")...), paddedFlood(1)), w(windowOf(1), windowOf(1))},
			{"empty with END_STREAM", f(post(1), data(1, es, "")), w(status(1, 200))},
			{"several", f(post(1), data(1, 0, "a"), data(1, 0, "b"), data(1, es, "c")), w(status(1, 200), dataEnd(1))},
			{"cut in the middle of writing", f(post(1), data(1, 0, "abc")[:11], data(1, 0, "abc")[11:], data(1, es, "")), w(status(1, 200))},
		},
		"6.2 HEADERS": {
			{"stream 0", f(fr(wire.Headers, es|eh, 0, request("GET", "/")...)), w(goAway(proto))},
			{"padded", f(fr(wire.Headers, es|eh|wire.Padded, 1, join([]byte{2}, request("GET", "/"), []byte{0, 0})...)), w(status(1, 200))},
			{"padded with priority", f(fr(wire.Headers, es|eh|wire.Padded|wire.HasPriority, 1, join([]byte{2}, prio(0, 1), request("GET", "/"), []byte{0, 0})...)), w(status(1, 200))},
			{"padding as long as the payload", f(fr(wire.Headers, es|eh|wire.Padded, 1, 9, 0x82, 0x86, 0x84)), w(goAway(proto))},
			{"padded without a length", f(fr(wire.Headers, es|eh|wire.Padded, 1)), w(goAway(proto, size))},
			{"empty", f(fr(wire.Headers, es|eh, 1)), w(reset(1, proto))},
		},
		"6.3 PRIORITY": {
			{"stream 0", f(fr(wire.Priority, 0, 0, prio(1, 1)...)), w(goAway(proto))},
			{"wrong size", f(get(1), fr(wire.Priority, 0, 1, 0, 0, 0, 1)), w(goAway(size))},
		},
		"6.4 RST_STREAM": {
			{"stream 0", f(wire.AppendReset(nil, 0, wire.Cancel)), w(goAway(proto))},
			{"wrong size", f(post(1), fr(wire.RSTStream, 0, 1, 0, 0, 0)), w(goAway(size))},
			{"too long", f(post(1), fr(wire.RSTStream, 0, 1, 0, 0, 0, 0, 0)), w(goAway(size))},
			{"even stream", f(wire.AppendReset(nil, 2, wire.Cancel)), w(goAway(proto))},
			{"other streams live", f(post(1), post(3), wire.AppendReset(nil, 1, wire.Cancel), data(3, es, "x")), w(status(3, 200))},
		},
		"6.5 SETTINGS": {
			{"acknowledged", f(wire.AppendSettings(nil)), w(isSettingsAck)},
			{"ack with payload", f(fr(wire.Settings, wire.Ack, 0, 0, 1, 0, 0, 0, 1)), w(goAway(size))},
			{"stream other than 0", f(fr(wire.Settings, 0, 1)), w(goAway(proto))},
			{"wrong size", f(fr(wire.Settings, 0, 0, 0, 1, 0)), w(goAway(size))},
			{"enable push is neither 0 nor 1", f(setting(wire.EnablePush, 2)), w(goAway(proto))},
			{"window above the most", f(setting(wire.InitialWindowSize, 1<<31)), w(goAway(flow))},
			{"frame size too small", f(setting(wire.MaxFrameSize, 1<<14-1)), w(goAway(proto))},
			{"frame size too large", f(setting(wire.MaxFrameSize, 1<<24)), w(goAway(proto))},
			{"connect protocol is neither 0 nor 1", f(setting(wire.EnableConnectProtocol, 2)), w(goAway(proto))},
			{"unknown setting is ignored", f(setting(0xff, 1), alive), w(isSettingsAck, lives)},
			{"the last value counts", f(setting(wire.InitialWindowSize, 100), wire.AppendSettings(nil, wire.Setting{ID: wire.InitialWindowSize, Value: 100}, wire.Setting{ID: wire.InitialWindowSize, Value: 1}), get(1)), w(status(1, 200), dataOf(1, 1))},
			{"table of 0 is obeyed", f(setting(wire.HeaderTableSize, 0), get(1), get(3), get(5)), w(statuses(200, 1, 3, 5))},
		},
		"6.7 PING": {
			{"answered", f(wire.AppendPing(nil, false, []byte("12345678"))), w(pong("12345678"))},
			{"ack is not answered", f(wire.AppendPing(nil, true, []byte("invalid!")), alive), w(notPong("invalid!", lives))},
			{"stream other than 0", f(fr(wire.Ping, 0, 1, []byte("12345678")...)), w(goAway(proto))},
			{"wrong size", f(fr(wire.Ping, 0, 0, 1, 2, 3, 4, 5, 6, 7)), w(goAway(size))},
		},
		"6.8 GOAWAY": {
			{"stream other than 0", f(fr(wire.GoAway, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)), w(goAway(proto))},
			{"wrong size", f(fr(wire.GoAway, 0, 0, 0, 0, 0)), w(goAway(size))},
			{"streams go on", f(post(1), wire.AppendGoAway(nil, 0, wire.NoError, "bye"), data(1, es, "x")), w(status(1, 200))},
		},
		"6.9 WINDOW_UPDATE": {
			{"0 on the connection", f(wire.AppendWindowUpdate(nil, 0, 0)), w(goAway(proto))},
			{"0 on a stream", f(post(1), wire.AppendWindowUpdate(nil, 1, 0)), w(reset(1, proto))},
			{"wrong size", f(fr(wire.WindowUpdate, 0, 0, 0, 0, 1)), w(goAway(size))},
			{"connection's overflow", f(wire.AppendWindowUpdate(nil, 0, wire.MaxWindow), wire.AppendWindowUpdate(nil, 0, wire.MaxWindow)), w(goAway(flow))},
			{"stream's overflow", f(post(1), wire.AppendWindowUpdate(nil, 1, wire.MaxWindow), wire.AppendWindowUpdate(nil, 1, wire.MaxWindow)), w(reset(1, flow))},
			{"settings overflow a stream", f(post(1), wire.AppendWindowUpdate(nil, 1, wire.MaxWindow-65535), setting(wire.InitialWindowSize, 65536)), w(goAway(flow))},
			{"a window of 1 is kept", f(setting(wire.InitialWindowSize, 1), get(1)), w(status(1, 200), dataOf(1, 1))},
			{"a window of 0 opens", f(setting(wire.InitialWindowSize, 0), get(1), wire.AppendWindowUpdate(nil, 1, 2), alive), w(status(1, 200), dataOf(1, 2))},
			{"settings open it", f(setting(wire.InitialWindowSize, 0), get(1), alive, setting(wire.InitialWindowSize, 3)), w(status(1, 200), dataOf(1, 3))},
			{"negative windows", f(setting(wire.InitialWindowSize, 3), get(1), alive, setting(wire.InitialWindowSize, 2), wire.AppendWindowUpdate(nil, 1, 2)), w(status(1, 200), dataSum(1, 4))},
			{"reserved bit is ignored", f(fr(wire.WindowUpdate, 0, 0, 0x80, 0, 0, 1), alive), w(lives)},
		},
		"6.9.1 receiving": {
			{"more than the window of a stream", f(fr(wire.Headers, eh, 1, request("POST", "/unread")...), flood(1, 65536)), w(reset(1, flow))},
			{"window comes back when the body is read", f(post(1), flood(1, 60000)), w(windowOf(1))},
		},
		"6.10 CONTINUATION": {
			{"several", f(split(1, es, request("GET", "/"), 3)), w(status(1, 200))},
			{"empty ones", f(fr(wire.Headers, es, 1), fr(wire.Continuation, 0, 1), fr(wire.Continuation, eh, 1, request("GET", "/")...)), w(status(1, 200))},
			{"body after it", f(split(1, 0, request("POST", "/"), 2), data(1, es, "x")), w(status(1, 200))},
			{"stream 0", f(fr(wire.Headers, es, 1, request("GET", "/")...), fr(wire.Continuation, eh, 0)), w(goAway(proto))},
			{"another stream", f(fr(wire.Headers, es, 1, request("GET", "/")...), fr(wire.Continuation, eh, 3)), w(goAway(proto))},
			{"after a complete head", f(post(1), fr(wire.Continuation, eh, 1, block("x", "y")...)), w(goAway(proto))},
			{"after a complete CONTINUATION", f(split(1, 0, request("POST", "/"), 2), fr(wire.Continuation, eh, 1)), w(goAway(proto))},
			{"after DATA", f(post(1), data(1, 0, "x"), fr(wire.Continuation, eh, 1)), w(goAway(proto))},
		},
		"7 error codes": {
			{"unknown in GOAWAY", f(wire.AppendGoAway(nil, 0, 0xff, ""), alive), w(lives)},
			{"unknown in RST_STREAM", f(post(1), wire.AppendReset(nil, 1, 0xff), alive), w(lives)},
		},
		"8.4 push": {
			{"PUSH_PROMISE from a client", f(fr(wire.PushPromise, eh, 1, join(u32(2), request("GET", "/"))...)), w(goAway(proto))},
		},
	}
}

func TestConformance(t *testing.T) {
	n := 0
	for _, group := range []map[string][]conformance{suite(), messages(), compression()} {
		for section, cases := range group {
			for _, k := range cases {
				n++
				t.Run(section+"/"+k.name, func(t *testing.T) {
					t.Parallel()
					p := greeted(t, Config{}, suiteHandler)
					p.send(k.send...)
					for _, x := range k.want {
						p.await(x)
					}
				})
			}
		}
	}
	t.Logf("%d cases", n)
	if n < 120 {
		t.Error("the suite has lost cases")
	}
}

// TestPreface: RFC 9113, 3.4.
func TestPreface(t *testing.T) {
	for _, k := range []struct {
		name string
		send [][]byte
		want []want
	}{
		{"settings first", f([]byte(wire.Preface), wire.AppendSettings(nil)), w(isSettings, isSettingsAck)},
		{"another version", f([]byte("PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n")), w(goAway(proto), isClosed)},
		{"HTTP/1", f([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), w(goAway(proto), isClosed)},
		{"no settings", f([]byte(wire.Preface), alive), w(goAway(proto), isClosed)},
		{"ack for settings", f([]byte(wire.Preface), wire.AppendSettingsAck(nil)), w(goAway(proto), isClosed)},
		{"DATA for settings", f([]byte(wire.Preface), data(1, 0, "x")), w(goAway(proto), isClosed)},
	} {
		t.Run(k.name, func(t *testing.T) {
			p := raw(t, Config{}, suiteHandler)
			p.send(k.send...)
			for _, x := range k.want {
				p.await(x)
			}
		})
	}
}
