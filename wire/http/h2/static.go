package h2

import "github.com/fingerpost/fingerpost/wire/http"

// staticText is the table of RFC 7541, appendix A.
var staticText = [61][2]string{
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

// pseudo says which pseudo field a name is.
type pseudo uint8

const (
	regular pseudo = iota
	pAuthority
	pMethod
	pPath
	pScheme
	pStatus
	pProtocol
	pUnknown
)

func pseudoOf(name []byte) pseudo {
	if len(name) == 0 || name[0] != ':' {
		return regular
	}
	switch string(name) {
	case ":authority":
		return pAuthority
	case ":method":
		return pMethod
	case ":path":
		return pPath
	case ":scheme":
		return pScheme
	case ":status":
		return pStatus
	case ":protocol":
		return pProtocol
	}
	return pUnknown
}

// entry is a field of a block, with what was found out about it once.
type entry struct {
	name, value []byte
	id          http.ID
	pseudo      pseudo
	flaw        flaw
}

// flaw is what is wrong with a field.
type flaw uint8

const (
	badName flaw = 1 << iota
	badValue
)

var static = newStatic()

// statics is the static table as it is used: entries by index, from 1, and the
// index and the spelling of the names that are well known.
type statics struct {
	entries [62]entry
	index   [256]uint8
	lower   [256][]byte
}

func newStatic() *statics {
	s := &statics{}
	for i, t := range staticText {
		name := []byte(t[0])
		e := entry{name: name, value: []byte(t[1]), id: http.Identify(name), pseudo: pseudoOf(name)}
		s.entries[i+1] = e
		if e.id != http.Other && s.index[e.id] == 0 {
			s.index[e.id] = uint8(i + 1)
		}
	}
	for id := http.Other + 1; id.Text() != ""; id++ {
		s.lower[id] = appendLower(nil, id.Bytes())
	}
	return s
}

// nameIndex is the index of a name that is in the static table but not well
// known to us; 0 if it is not there.
func nameIndex(name []byte) int {
	switch string(name) {
	case "accept-charset":
		return 15
	case "accept-ranges":
		return 18
	case "age":
		return 21
	case "content-disposition":
		return 25
	case "content-language":
		return 27
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "expires":
		return 36
	case "from":
		return 37
	case "if-match":
		return 39
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "link":
		return 45
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "refresh":
		return 52
	}
	return 0
}

func appendLower(dst, s []byte) []byte {
	for _, c := range s {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}
