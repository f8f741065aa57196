package h2

// Code is an error code (RFC 9113, section 7).
type Code uint32

// The error codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

// Text gives the name of the code as the RFC has it.
func (c Code) Text() string {
	switch c {
	case NoError:
		return "NO_ERROR"
	case ProtocolError:
		return "PROTOCOL_ERROR"
	case InternalError:
		return "INTERNAL_ERROR"
	case FlowControlError:
		return "FLOW_CONTROL_ERROR"
	case SettingsTimeout:
		return "SETTINGS_TIMEOUT"
	case StreamClosed:
		return "STREAM_CLOSED"
	case FrameSizeError:
		return "FRAME_SIZE_ERROR"
	case RefusedStream:
		return "REFUSED_STREAM"
	case Cancel:
		return "CANCEL"
	case CompressionError:
		return "COMPRESSION_ERROR"
	case ConnectError:
		return "CONNECT_ERROR"
	case EnhanceYourCalm:
		return "ENHANCE_YOUR_CALM"
	case InadequateSecurity:
		return "INADEQUATE_SECURITY"
	case HTTP11Required:
		return "HTTP_1_1_REQUIRED"
	}
	return "an unknown code"
}

// Error is a violation of the protocol by the peer.
type Error struct {
	Code   Code
	Stream bool // it ends one stream; otherwise the connection
	Reason string
}

func (e *Error) Error() string { return "h2: " + e.Code.Text() + ": " + e.Reason }

// The errors that end a connection.
var (
	ErrPadding       = &Error{Code: ProtocolError, Reason: "padding is longer than the frame"}
	ErrFrameSize     = &Error{Code: FrameSizeError, Reason: "the frame has a wrong size"}
	ErrStreamID      = &Error{Code: ProtocolError, Reason: "the frame is not allowed on this stream"}
	ErrSetting       = &Error{Code: ProtocolError, Reason: "a setting has a value that is not allowed"}
	ErrWindowSetting = &Error{Code: FlowControlError, Reason: "SETTINGS_INITIAL_WINDOW_SIZE is above 2^31-1"}
	ErrTableUpdate   = &Error{Code: CompressionError, Reason: "a table is resized within a block, or beyond what is allowed"}
	ErrCompression   = &Error{Code: CompressionError, Reason: "a block of fields cannot be decoded"}
)

// The errors that end a stream: a head that is not well-formed, or too large.
var (
	ErrTooLarge   = &Error{Code: EnhanceYourCalm, Stream: true, Reason: "the fields are larger than allowed"}
	ErrName       = malformed("a field has a name that is not allowed")
	ErrValue      = malformed("a field has a value with control characters or outer spaces")
	ErrPseudo     = malformed("pseudo fields are missing, unknown, repeated, misplaced or invalid")
	ErrConnection = malformed("a field governs a connection of HTTP/1")
	ErrLength     = malformed("content-length is not the length of the body")
	ErrAuthority  = malformed("host is not :authority")
	ErrTrailers   = malformed("trailers do not end the stream, or hold what cannot stand there")
)

func malformed(reason string) *Error {
	return &Error{Code: ProtocolError, Stream: true, Reason: reason}
}
