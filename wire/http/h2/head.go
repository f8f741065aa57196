package h2

import "github.com/fingerpost/fingerpost/wire/http"

// Limits bound what a block of fields may become.
type Limits struct {
	Size   int // as the RFC counts: text and 32 for each field; 0: 64 KiB
	Fields int // 0: 200
}

func (l Limits) or() Limits {
	if l.Size == 0 {
		l.Size = 64 << 10
	}
	if l.Fields == 0 {
		l.Fields = 200
	}
	return l
}

// scan is the decoding of one block into a head.
type scan struct {
	d       *Decoder
	arena   *[]byte
	limits  Limits
	size    int
	count   int
	err     error // of the stream; the first one counts
	length  int64
	host    []byte
	cookies int
	te      bool
	expect  bool
	e       entry
}

func (s *scan) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// next gives the next field that is to be looked at: with an error of the
// stream there is none, but the block is decoded to its end.
func (s *scan) next() (bool, error) {
	for {
		mark := *s.arena
		more, err := s.d.next(s.arena, &s.e, s.err != nil)
		if !more || err != nil {
			return false, err
		}
		s.count++
		s.size += len(s.e.name) + len(s.e.value) + overhead
		switch {
		case s.err != nil:
		case s.size > s.limits.Size || s.count > s.limits.Fields:
			s.fail(ErrTooLarge)
		case s.e.flaw&badName != 0:
			s.fail(ErrName)
		case s.e.flaw&badValue != 0:
			s.fail(ErrValue)
		default:
			return true, nil
		}
		*s.arena = mark // what is not wanted is not kept
	}
}

// regular takes a field that is no pseudo field; keep says that it belongs to
// the fields of the head.
func (s *scan) regular(request bool) (keep bool) {
	switch s.e.id {
	case http.Connection, http.KeepAlive, http.ProxyConnection, http.TransferEncoding, http.Upgrade:
		s.fail(ErrConnection)
		return false
	case http.TE:
		// RFC 9113, 8.2.2: nothing but trailers.
		if !request || !http.EqualFold(s.e.value, trailersText) {
			s.fail(ErrConnection)
		}
		s.te = true
		return false
	case http.HTTP2Settings:
		return false
	case http.ContentLength:
		n, ok := parseLength(s.e.value)
		if !ok || s.length != http.Unknown && s.length != n {
			s.fail(ErrLength)
		}
		s.length = n
		return false
	case http.Host:
		if !request {
			return true
		}
		if s.host != nil && !http.EqualFold(s.host, s.e.value) {
			s.fail(ErrAuthority)
		}
		s.host = s.e.value
		return false
	case http.Cookie:
		s.cookies++
	case http.Expect:
		if request && http.EqualFold(s.e.value, continueText) {
			s.expect = true
			return false
		}
	}
	return true
}

var (
	trailersText = []byte("trailers")
	continueText = []byte("100-continue")
	getText      = []byte("GET")
	connectText  = []byte("CONNECT")
)

func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Request decodes the block of a request into r, which is reset before. end says
// that no body follows. An error that is of the stream leaves r as far as it was
// decoded; with any other one the connection is of no use any more.
//
// An extended CONNECT (RFC 8441) becomes what it stands for, so that nobody
// needs to know of it: a GET with Upgrade.
func (d *Decoder) Request(block []byte, end bool, arena *[]byte, r *http.Request, l Limits) error {
	r.Reset()
	r.Version = http.HTTP2
	s := scan{d: d, arena: arena, limits: l.or(), length: http.Unknown}
	d.begin(block)
	var scheme []byte
	seen := uint8(0)
	last := false // a regular field was seen
	for {
		more, err := s.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if s.e.pseudo == regular {
			last = true
			if s.regular(true) {
				r.Fields = append(r.Fields, http.Field{ID: s.e.id, Name: s.e.name, Value: s.e.value})
			}
			continue
		}
		bit := uint8(1) << s.e.pseudo
		if last || seen&bit != 0 {
			s.fail(ErrPseudo)
			continue
		}
		seen |= bit
		switch s.e.pseudo {
		case pMethod:
			r.Method = s.e.value
		case pScheme:
			scheme = s.e.value
		case pPath:
			r.Path = s.e.value
		case pAuthority:
			r.Authority = s.e.value
		case pProtocol:
			r.Upgrade = s.e.value
		default:
			s.fail(ErrPseudo)
		}
	}
	s.request(r, scheme, seen, end)
	return s.err
}

// request checks what can be told only when all fields are there.
func (s *scan) request(r *http.Request, scheme []byte, seen uint8, end bool) {
	const (
		method    = 1 << pMethod
		path      = 1 << pPath
		scheme1   = 1 << pScheme
		authority = 1 << pAuthority
		protocol  = 1 << pProtocol
	)
	r.Trailers, r.Expect = s.te, s.expect
	if s.cookies > 1 {
		joinCookies(s.arena, r)
	}
	if s.err != nil {
		return
	}
	if !validToken(r.Method) {
		s.fail(ErrPseudo)
		return
	}
	connect := string(r.Method) == "CONNECT"
	switch {
	case connect && seen&protocol == 0:
		// RFC 9113, 8.5: nothing but the authority.
		if seen&(path|scheme1) != 0 || seen&authority == 0 || len(r.Authority) == 0 {
			s.fail(ErrPseudo)
		}
	case connect:
		if seen&(path|scheme1|authority) != path|scheme1|authority || !validToken(r.Upgrade) {
			s.fail(ErrPseudo)
		}
		s.target(r, scheme)
		r.Method = getText
	default:
		if seen&protocol != 0 || seen&(path|scheme1) != path|scheme1 {
			s.fail(ErrPseudo)
		}
		s.target(r, scheme)
	}
	if s.host != nil {
		switch {
		case seen&authority == 0:
			r.Authority = s.host
		case !http.EqualFold(r.Authority, s.host):
			s.fail(ErrAuthority)
		}
	}
	if len(r.Authority) == 0 || !validAuthority(r.Authority) {
		s.fail(ErrAuthority)
	}
	r.Length = s.length
	switch {
	case r.Upgrade != nil || connect:
		if s.length > 0 {
			s.fail(ErrLength)
		}
		r.Length = http.Unknown
		if end {
			r.Length = 0
		}
	case end:
		if s.length > 0 {
			s.fail(ErrLength)
		}
		r.Length = 0
	}
}

// target checks :scheme and :path.
func (s *scan) target(r *http.Request, scheme []byte) {
	if len(scheme) == 0 || len(r.Path) == 0 {
		s.fail(ErrPseudo)
		return
	}
	for i, c := range scheme {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '+' || c == '-' || c == '.')) {
			s.fail(ErrPseudo)
			return
		}
	}
	if r.Path[0] != '/' && !(len(r.Path) == 1 && r.Path[0] == '*' && string(r.Method) == "OPTIONS") {
		s.fail(ErrPseudo)
	}
	for _, c := range r.Path {
		if c <= ' ' || c == 0x7f || c == '#' {
			s.fail(ErrPseudo)
			return
		}
	}
}

func validToken(t []byte) bool {
	for _, c := range t {
		if charClass[c]&inToken == 0 {
			return false
		}
	}
	return len(t) > 0
}

// validAuthority refuses what could be read as something else than a host and
// a port further on: RFC 9113, 8.3.1 forbids userinfo.
func validAuthority(a []byte) bool {
	for _, c := range a {
		if c <= ' ' || c >= 0x7f || c == '@' || c == '/' || c == '?' || c == '#' || c == '\\' || c == ',' {
			return false
		}
	}
	return true
}

// joinCookies makes one field of the crumbs (RFC 9113, 8.2.3).
func joinCookies(arena *[]byte, r *http.Request) {
	n := 0
	for i := range r.Fields {
		if r.Fields[i].ID == http.Cookie {
			n += len(r.Fields[i].Value) + 2
		}
	}
	a := reserve(arena, n)
	from := len(a)
	out := r.Fields[:0]
	at := -1
	for _, f := range r.Fields {
		if f.ID != http.Cookie {
			out = append(out, f)
			continue
		}
		if at < 0 {
			at = len(out)
			out = append(out, f)
		} else {
			a = append(a, "; "...)
		}
		a = append(a, f.Value...)
	}
	*arena = a
	r.Fields = out
	if at >= 0 {
		out[at].Value = a[from:len(a):len(a)]
	}
}

// Response decodes the block of a response into r, which is reset before.
func (d *Decoder) Response(block []byte, end bool, arena *[]byte, r *http.Response, l Limits) error {
	r.Reset()
	r.Version = http.HTTP2
	s := scan{d: d, arena: arena, limits: l.or(), length: http.Unknown}
	d.begin(block)
	last := false
	for {
		more, err := s.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		switch s.e.pseudo {
		case regular:
			last = true
			if s.regular(false) {
				r.Fields = append(r.Fields, http.Field{ID: s.e.id, Name: s.e.name, Value: s.e.value})
			}
		case pStatus:
			v := s.e.value
			if last || r.Status != 0 || len(v) != 3 || v[0] < '1' || v[0] > '9' || v[1]-'0' > 9 || v[2]-'0' > 9 {
				s.fail(ErrPseudo)
				continue
			}
			r.Status = int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
		default:
			s.fail(ErrPseudo)
		}
	}
	// A 101 is of HTTP/1 (RFC 9113, 8.6); nothing ends with a 1xx.
	if r.Status == 0 || r.Status == 101 || r.Status < 200 && end {
		s.fail(ErrPseudo)
	}
	r.Length, r.Declared = s.length, s.length >= 0
	if end && !r.Declared {
		r.Length = 0
	}
	return s.err
}

// Trailers decodes the block after a body.
func (d *Decoder) Trailers(block []byte, arena *[]byte, f *http.Fields, l Limits) error {
	*f = (*f)[:0]
	s := scan{d: d, arena: arena, limits: l.or(), length: http.Unknown}
	d.begin(block)
	for {
		more, err := s.next()
		if err != nil {
			return err
		}
		if !more {
			return s.err
		}
		if s.e.pseudo != regular {
			s.fail(ErrTrailers)
			continue
		}
		switch s.e.id {
		case http.Connection, http.KeepAlive, http.ProxyConnection, http.TransferEncoding, http.Upgrade, http.TE:
			s.fail(ErrConnection)
		case http.ContentLength, http.Host, http.Trailer, http.HTTP2Settings:
			// They would frame or route a message that is over.
		default:
			*f = append(*f, http.Field{ID: s.e.id, Name: s.e.name, Value: s.e.value})
		}
	}
}
