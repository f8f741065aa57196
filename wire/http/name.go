package http

// ID is a well-known field name.
type ID uint8

// The well-known field names; Other is any other.
const (
	Other ID = iota
	Host
	Connection
	KeepAlive
	ProxyConnection
	TransferEncoding
	ContentLength
	Upgrade
	TE
	Trailer
	HTTP2Settings
	Expect
	ContentType
	ContentEncoding
	Date
	Server
	Location
	SetCookie
	Cookie
	Authorization
	ProxyAuthorization
	WWWAuthenticate
	Accept
	AcceptEncoding
	AcceptLanguage
	UserAgent
	Referer
	Origin
	CacheControl
	ETag
	LastModified
	IfNoneMatch
	IfModifiedSince
	Range
	RetryAfter
	Vary
	Via
	Allow
	XRealIP
	XForwardedFor
	XForwardedHost
	XForwardedPort
	XForwardedProto
	XForwardedPrefix
	XForwardedScheme
	XScheme
	XOriginalURL
	XOriginalMethod
	XRequestID
	Forwarded
	Traceparent
	Tracestate
	AccessControlAllowOrigin
	AccessControlRequestMethod
	AccessControlRequestHeaders
	StrictTransportSecurity
	GrpcStatus
	GrpcMessage
	GrpcTimeout
	SecWebSocketKey
	SecWebSocketAccept

	ids int = iota
)

// Identify says which well-known name this is, in any case.
func Identify(name []byte) ID {
	switch len(name) {
	case 2:
		switch name[0] | 0x20 {
		case 't':
			if same(name, "te") {
				return TE
			}
		}
	case 3:
		switch name[0] | 0x20 {
		case 'v':
			if same(name, "via") {
				return Via
			}
		}
	case 4:
		switch name[0] | 0x20 {
		case 'd':
			if same(name, "date") {
				return Date
			}
		case 'e':
			if same(name, "etag") {
				return ETag
			}
		case 'h':
			if same(name, "host") {
				return Host
			}
		case 'v':
			if same(name, "vary") {
				return Vary
			}
		}
	case 5:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "allow") {
				return Allow
			}
		case 'r':
			if same(name, "range") {
				return Range
			}
		}
	case 6:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "accept") {
				return Accept
			}
		case 'c':
			if same(name, "cookie") {
				return Cookie
			}
		case 'e':
			if same(name, "expect") {
				return Expect
			}
		case 'o':
			if same(name, "origin") {
				return Origin
			}
		case 's':
			if same(name, "server") {
				return Server
			}
		}
	case 7:
		switch name[0] | 0x20 {
		case 'r':
			if same(name, "referer") {
				return Referer
			}
		case 't':
			if same(name, "trailer") {
				return Trailer
			}
		case 'u':
			if same(name, "upgrade") {
				return Upgrade
			}
		}
	case 8:
		switch name[0] | 0x20 {
		case 'l':
			if same(name, "location") {
				return Location
			}
		case 'x':
			if same(name, "x-scheme") {
				return XScheme
			}
		}
	case 9:
		switch name[0] | 0x20 {
		case 'f':
			if same(name, "forwarded") {
				return Forwarded
			}
		case 'x':
			if same(name, "x-real-ip") {
				return XRealIP
			}
		}
	case 10:
		switch name[0] | 0x20 {
		case 'c':
			if same(name, "connection") {
				return Connection
			}
		case 'k':
			if same(name, "keep-alive") {
				return KeepAlive
			}
		case 's':
			if same(name, "set-cookie") {
				return SetCookie
			}
		case 't':
			if same(name, "tracestate") {
				return Tracestate
			}
		case 'u':
			if same(name, "user-agent") {
				return UserAgent
			}
		}
	case 11:
		switch name[0] | 0x20 {
		case 'g':
			if same(name, "grpc-status") {
				return GrpcStatus
			}
		case 'r':
			if same(name, "retry-after") {
				return RetryAfter
			}
		case 't':
			if same(name, "traceparent") {
				return Traceparent
			}
		}
	case 12:
		switch name[0] | 0x20 {
		case 'c':
			if same(name, "content-type") {
				return ContentType
			}
		case 'g':
			if same(name, "grpc-message") {
				return GrpcMessage
			}
			if same(name, "grpc-timeout") {
				return GrpcTimeout
			}
		case 'x':
			if same(name, "x-request-id") {
				return XRequestID
			}
		}
	case 13:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "authorization") {
				return Authorization
			}
		case 'c':
			if same(name, "cache-control") {
				return CacheControl
			}
		case 'i':
			if same(name, "if-none-match") {
				return IfNoneMatch
			}
		case 'l':
			if same(name, "last-modified") {
				return LastModified
			}
		}
	case 14:
		switch name[0] | 0x20 {
		case 'c':
			if same(name, "content-length") {
				return ContentLength
			}
		case 'h':
			if same(name, "http2-settings") {
				return HTTP2Settings
			}
		case 'x':
			if same(name, "x-original-url") {
				return XOriginalURL
			}
		}
	case 15:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "accept-encoding") {
				return AcceptEncoding
			}
			if same(name, "accept-language") {
				return AcceptLanguage
			}
		case 'x':
			if same(name, "x-forwarded-for") {
				return XForwardedFor
			}
		}
	case 16:
		switch name[0] | 0x20 {
		case 'c':
			if same(name, "content-encoding") {
				return ContentEncoding
			}
		case 'p':
			if same(name, "proxy-connection") {
				return ProxyConnection
			}
		case 'w':
			if same(name, "www-authenticate") {
				return WWWAuthenticate
			}
		case 'x':
			if same(name, "x-forwarded-host") {
				return XForwardedHost
			}
			if same(name, "x-forwarded-port") {
				return XForwardedPort
			}
		}
	case 17:
		switch name[0] | 0x20 {
		case 'i':
			if same(name, "if-modified-since") {
				return IfModifiedSince
			}
		case 's':
			if same(name, "sec-websocket-key") {
				return SecWebSocketKey
			}
		case 't':
			if same(name, "transfer-encoding") {
				return TransferEncoding
			}
		case 'x':
			if same(name, "x-forwarded-proto") {
				return XForwardedProto
			}
			if same(name, "x-original-method") {
				return XOriginalMethod
			}
		}
	case 18:
		switch name[0] | 0x20 {
		case 'x':
			if same(name, "x-forwarded-prefix") {
				return XForwardedPrefix
			}
			if same(name, "x-forwarded-scheme") {
				return XForwardedScheme
			}
		}
	case 19:
		switch name[0] | 0x20 {
		case 'p':
			if same(name, "proxy-authorization") {
				return ProxyAuthorization
			}
		}
	case 20:
		switch name[0] | 0x20 {
		case 's':
			if same(name, "sec-websocket-accept") {
				return SecWebSocketAccept
			}
		}
	case 25:
		switch name[0] | 0x20 {
		case 's':
			if same(name, "strict-transport-security") {
				return StrictTransportSecurity
			}
		}
	case 27:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "access-control-allow-origin") {
				return AccessControlAllowOrigin
			}
		}
	case 29:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "access-control-request-method") {
				return AccessControlRequestMethod
			}
		}
	case 30:
		switch name[0] | 0x20 {
		case 'a':
			if same(name, "access-control-request-headers") {
				return AccessControlRequestHeaders
			}
		}
	}
	return Other
}

// same compares a name with one in lower case of the same length, eight bytes at a
// time: two letters (bit 0x40) may differ in bit 0x20, nothing else may differ.
func same(name []byte, lower string) bool {
	if len(name) < 8 {
		for i := range name {
			c := lower[i]
			if d := name[i] ^ c; d&^(c&0x40>>1) != 0 {
				return false
			}
		}
		return true
	}
	for i := 0; ; i += 8 {
		i = min(i, len(name)-8)
		if x, y := word(name[i:i+8]), word(lower[i:i+8]); (x^y)&^(y&0x4040404040404040>>1) != 0 {
			return false
		}
		if i == len(name)-8 {
			return true
		}
	}
}

// word is one load: the compiler joins the bytes.
func word[T []byte | string](b T) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}
