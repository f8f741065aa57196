package h2

import "encoding/binary"

// Preface is what a client sends first (RFC 9113, 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// HeaderLen is the length of the head of a frame.
const HeaderLen = 9

// Type is the type of a frame.
type Type uint8

// The types of RFC 9113, section 6.
const (
	Data Type = iota
	Headers
	Priority
	RSTStream
	Settings
	PushPromise
	Ping
	GoAway
	WindowUpdate
	Continuation
)

// Flags of a frame; their meaning depends on the type.
type Flags uint8

// The flags of RFC 9113.
const (
	EndStream   Flags = 0x1
	Ack         Flags = 0x1
	EndHeaders  Flags = 0x4
	Padded      Flags = 0x8
	HasPriority Flags = 0x20
)

// Header is the head of a frame.
type Header struct {
	Length uint32
	Type   Type
	Flags  Flags
	Stream uint32
}

// Sizes that the protocol sets.
const (
	MinFrame      = 1 << 14           // the least that everyone accepts as payload
	MaxFrame      = 1<<24 - 1         // the most that one can allow
	MaxWindow     = 1<<31 - 1         // of flow control
	InitialWindow = 1<<16 - 1         // before settings
	TableSize     = 4096              // of HPACK, before settings
	settingLen    = 6                 // one setting
	goAwayLen     = 8                 // at least
	streamMask    = uint32(1)<<31 - 1 // the first bit is reserved
)

// ParseHeader reads the head of a frame; b holds at least HeaderLen bytes.
func ParseHeader(b []byte) Header {
	_ = b[8]
	return Header{
		Length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:   Type(b[3]),
		Flags:  Flags(b[4]),
		Stream: binary.BigEndian.Uint32(b[5:]) & streamMask,
	}
}

// AppendHeader writes the head of a frame.
func AppendHeader(dst []byte, h Header) []byte {
	return append(dst, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags),
		byte(h.Stream>>24), byte(h.Stream>>16), byte(h.Stream>>8), byte(h.Stream))
}

// PutLength sets the length in the head of a frame that is written already.
func PutLength(b []byte, n int) { b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n) }

// Unpad takes padding and priority off the payload of DATA and HEADERS
// (RFC 9113, 6.1 and 6.2). self says that the stream depends on itself.
func (h Header) Unpad(p []byte) (out []byte, depends uint32, err error) {
	pad := 0
	if h.Flags&Padded != 0 {
		if len(p) < 1 {
			return nil, 0, ErrPadding
		}
		pad, p = int(p[0]), p[1:]
	}
	if h.Type == Headers && h.Flags&HasPriority != 0 {
		if len(p) < 5 {
			return nil, 0, ErrFrameSize
		}
		depends, p = binary.BigEndian.Uint32(p)&streamMask, p[5:]
	}
	if pad > len(p) {
		return nil, 0, ErrPadding
	}
	return p[:len(p)-pad], depends, nil
}

// SettingID names a setting.
type SettingID uint16

// The settings of RFC 9113, 6.5.2, and RFC 8441.
const (
	HeaderTableSize       SettingID = 1
	EnablePush            SettingID = 2
	MaxConcurrentStreams  SettingID = 3
	InitialWindowSize     SettingID = 4
	MaxFrameSize          SettingID = 5
	MaxHeaderListSize     SettingID = 6
	EnableConnectProtocol SettingID = 8
)

// Setting is one of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

// CheckSettings says what is wrong with a SETTINGS frame, before Settings are
// taken from its payload one by one by SettingAt.
func CheckSettings(h Header, p []byte) error {
	switch {
	case h.Stream != 0:
		return ErrStreamID
	case h.Flags&Ack != 0 && len(p) != 0, len(p)%settingLen != 0:
		return ErrFrameSize
	}
	for ; len(p) > 0; p = p[settingLen:] {
		s := SettingAt(p)
		switch {
		case s.ID == EnablePush && s.Value > 1, s.ID == EnableConnectProtocol && s.Value > 1:
			return ErrSetting
		case s.ID == InitialWindowSize && s.Value > MaxWindow:
			return ErrWindowSetting
		case s.ID == MaxFrameSize && (s.Value < MinFrame || s.Value > MaxFrame):
			return ErrSetting
		}
	}
	return nil
}

// SettingAt reads the first setting of a payload that CheckSettings passed.
func SettingAt(p []byte) Setting {
	return Setting{SettingID(binary.BigEndian.Uint16(p)), binary.BigEndian.Uint32(p[2:])}
}

// SettingLen is the length of a setting in a payload.
const SettingLen = settingLen

// AppendSettings writes a SETTINGS frame.
func AppendSettings(dst []byte, s ...Setting) []byte {
	dst = AppendHeader(dst, Header{Length: uint32(len(s) * settingLen), Type: Settings})
	for _, x := range s {
		dst = binary.BigEndian.AppendUint16(dst, uint16(x.ID))
		dst = binary.BigEndian.AppendUint32(dst, x.Value)
	}
	return dst
}

// AppendSettingsAck writes the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(dst []byte) []byte {
	return AppendHeader(dst, Header{Type: Settings, Flags: Ack})
}

// AppendPing writes a PING with eight bytes of data.
func AppendPing(dst []byte, ack bool, data []byte) []byte {
	h := Header{Length: 8, Type: Ping}
	if ack {
		h.Flags = Ack
	}
	return append(AppendHeader(dst, h), data[:8]...)
}

// AppendGoAway writes a GOAWAY.
func AppendGoAway(dst []byte, last uint32, code Code, debug string) []byte {
	dst = AppendHeader(dst, Header{Length: uint32(goAwayLen + len(debug)), Type: GoAway})
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// ParseGoAway reads the payload of a GOAWAY.
func ParseGoAway(h Header, p []byte) (last uint32, code Code, err error) {
	switch {
	case h.Stream != 0:
		return 0, 0, ErrStreamID
	case len(p) < goAwayLen:
		return 0, 0, ErrFrameSize
	}
	return binary.BigEndian.Uint32(p) & streamMask, Code(binary.BigEndian.Uint32(p[4:])), nil
}

// AppendReset writes a RST_STREAM.
func AppendReset(dst []byte, stream uint32, code Code) []byte {
	dst = AppendHeader(dst, Header{Length: 4, Type: RSTStream, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// ParseReset reads the payload of a RST_STREAM.
func ParseReset(h Header, p []byte) (Code, error) {
	switch {
	case h.Stream == 0:
		return 0, ErrStreamID
	case len(p) != 4:
		return 0, ErrFrameSize
	}
	return Code(binary.BigEndian.Uint32(p)), nil
}

// AppendWindowUpdate writes a WINDOW_UPDATE; stream 0 is the connection.
func AppendWindowUpdate(dst []byte, stream, n uint32) []byte {
	dst = AppendHeader(dst, Header{Length: 4, Type: WindowUpdate, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, n)
}

// ParseWindowUpdate reads the payload of a WINDOW_UPDATE. An increment of 0 is
// an error of the stream, or of the connection on stream 0: the caller's to tell.
func ParseWindowUpdate(h Header, p []byte) (uint32, error) {
	if len(p) != 4 {
		return 0, ErrFrameSize
	}
	return binary.BigEndian.Uint32(p) & streamMask, nil
}
