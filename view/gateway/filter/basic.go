package filter

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"runtime"
	"sync"

	"github.com/fingerpost/fingerpost/view/gateway/route"
	"github.com/fingerpost/fingerpost/wire/http"
)

// basic asks for a name and password (RFC 7617).
type basic struct {
	challenge []byte
	users     map[string]string
	decoy     string // a hash for names that do not exist, so that they take as long
	problem   bool
}

func newBasic(p *route.BasicAuth) *basic {
	realm := make([]byte, 0, len(p.Realm)+32)
	realm = append(realm, `Basic realm="`...)
	for i := range len(p.Realm) {
		switch c := p.Realm[i]; {
		case c < 0x20 || c == 0x7f:
		case c == '"' || c == '\\':
			realm = append(realm, '\\', c)
		default:
			realm = append(realm, c)
		}
	}
	b := &basic{challenge: append(realm, `", charset="UTF-8"`...), users: p.Users, problem: p.Problem != ""}
	for _, h := range p.Users {
		b.decoy = max(b.decoy, h) // any will do, but the same one each time
	}
	return b
}

const maxCredentials = 1024 // bytes, of name and password

func (b *basic) admit(x *Exchange) *Answer {
	if b.problem {
		// As ingress-nginx does: who configured a password wants nobody in without.
		return x.reply(503, "basic-auth")
	}
	if user, password, ok := credentials(x, x.Request.Fields.Get(http.Authorization)); ok {
		hash, known := b.users[string(user)]
		if !known {
			hash = b.decoy
		}
		if x.set.basic.right(x, hash, password) && known {
			x.User = user
			return nil
		}
	}
	return b.challenged(x)
}

// challenged asks for a password.
func (b *basic) challenged(x *Exchange) *Answer {
	a := x.reply(401, "basic-auth")
	a.Fields.Add(http.WWWAuthenticate, b.challenge)
	return a
}

// credentials decodes the value of Authorization.
func credentials(x *Exchange, v []byte) (user, password []byte, ok bool) {
	if len(v) < 7 || !http.EqualFold(v[:6], []byte("basic ")) {
		return nil, nil, false
	}
	v = trim(v[6:])
	if len(v) > maxCredentials*4/3 {
		return nil, nil, false
	}
	start := len(x.buf)
	x.buf = append(x.buf, v...) // room for what is shorter
	out := x.buf[start:len(x.buf):len(x.buf)]
	n, err := base64.StdEncoding.Decode(out, v)
	if err != nil {
		if n, err = base64.RawStdEncoding.Decode(out, v); err != nil {
			return nil, nil, false
		}
	}
	out = out[:n]
	for i, c := range out {
		if c < 0x20 || c == 0x7f {
			return nil, nil, false
		}
		if c == ':' {
			return out[:i], out[i+1:], clean(out[i+1:])
		}
	}
	return nil, nil, false
}

// verdicts remembers whether a password belongs to a hash: bcrypt is meant to
// be slow, and clients send the same password with every request. Passwords
// are not kept, only a keyed digest of the pair.
type verdicts struct {
	key    [32]byte
	work   chan struct{} // bounds how many cores are busy with passwords
	shards [shards]verdictShard
	most   int // in a shard
}

type verdictShard struct {
	mu sync.Mutex
	m  map[[32]byte]bool
}

const shards = 16

func newVerdicts(n int) *verdicts {
	v := &verdicts{most: max(n/shards, 1), work: make(chan struct{}, max(runtime.GOMAXPROCS(0)/2, 1))}
	_, _ = rand.Read(v.key[:])
	for i := range v.shards {
		v.shards[i].m = map[[32]byte]bool{}
	}
	return v
}

func (v *verdicts) right(x *Exchange, hash string, password []byte) bool {
	start := len(x.buf)
	x.buf = append(x.buf, v.key[:]...)
	x.buf = binary.BigEndian.AppendUint32(x.buf, uint32(len(hash)))
	x.buf = append(append(x.buf, hash...), password...)
	key := sha256.Sum256(x.buf[start:])
	clear(x.buf[start:])
	x.buf = x.buf[:start]

	s := &v.shards[key[0]%shards]
	s.mu.Lock()
	right, known := s.m[key]
	s.mu.Unlock()
	if known {
		return right
	}
	v.work <- struct{}{}
	right = check(hash, password)
	<-v.work
	s.mu.Lock()
	if len(s.m) >= v.most {
		for k, r := range s.m { // a wrong one goes first, if one is near
			delete(s.m, k)
			if !r || len(s.m) < v.most {
				break
			}
		}
	}
	s.m[key] = right
	s.mu.Unlock()
	return right
}
