package filter

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// check compares a password with a hash as htpasswd writes them: bcrypt,
// $apr1$ and $1$ (MD5), $5$ and $6$ (SHA-crypt), {SHA}, {SSHA}, {PLAIN}, or the
// password itself. The time it takes depends on the kind of hash only.
func check(stored string, password []byte) bool {
	equal := func(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
	switch {
	case stored == "":
		return false
	case strings.HasPrefix(stored, "$2"):
		if len(password) > 72 {
			password = password[:72] // what bcrypt looks at, in all implementations
		}
		return bcrypt.CompareHashAndPassword([]byte(stored), password) == nil
	case strings.HasPrefix(stored, "$apr1$"), strings.HasPrefix(stored, "$1$"):
		magic := stored[:strings.IndexByte(stored[1:], '$')+2]
		salt, _, ok := strings.Cut(stored[len(magic):], "$")
		return ok && equal([]byte(stored), md5Crypt(password, magic, salt))
	case strings.HasPrefix(stored, "$5$"), strings.HasPrefix(stored, "$6$"):
		want := shaCrypt(stored, password)
		return want != nil && equal([]byte(stored), want)
	case strings.HasPrefix(stored, "{SHA}"):
		want, err := base64.StdEncoding.DecodeString(stored[5:])
		sum := sha1.Sum(password)
		return err == nil && equal(want, sum[:])
	case strings.HasPrefix(stored, "{SSHA}"):
		want, err := base64.StdEncoding.DecodeString(stored[6:])
		if err != nil || len(want) < sha1.Size {
			return false
		}
		sum := sha1.Sum(append(bytes.Clone(password), want[sha1.Size:]...))
		return equal(want[:sha1.Size], sum[:])
	}
	a, b := sha256.Sum256([]byte(strings.TrimPrefix(stored, "{PLAIN}"))), sha256.Sum256(password)
	return equal(a[:], b[:])
}

const itoa64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// append64 writes n characters of 6 bits each, the lowest first.
func append64(dst []byte, a, b, c byte, n int) []byte {
	v := uint(a)<<16 | uint(b)<<8 | uint(c)
	for range n {
		dst = append(dst, itoa64[v&0x3f])
		v >>= 6
	}
	return dst
}

// md5Crypt is that of FreeBSD, with the magic of Apache or its own.
func md5Crypt(password []byte, magic, salt string) []byte {
	if len(salt) > 8 {
		salt = salt[:8]
	}
	h := md5.New()
	h.Write(password)
	h.Write([]byte(salt))
	h.Write(password)
	mixed := h.Sum(nil)

	h.Reset()
	h.Write(password)
	h.Write([]byte(magic))
	h.Write([]byte(salt))
	for n := len(password); n > 0; n -= md5.Size {
		h.Write(mixed[:min(n, md5.Size)])
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write([]byte{0})
		} else {
			h.Write(password[:1])
		}
	}
	sum := h.Sum(nil)
	for i := range 1000 {
		h.Reset()
		round(h, i, sum, []byte(salt), password)
		sum = h.Sum(sum[:0])
	}
	out := []byte(magic + salt + "$")
	for i := range 5 {
		last := i + 12
		if i == 4 {
			last = 5
		}
		out = append64(out, sum[i], sum[i+6], sum[last], 4)
	}
	return append64(out, 0, 0, sum[11], 2)
}

// round is what the MD5 and SHA variants repeat.
func round(h hash.Hash, i int, sum, salt, password []byte) {
	first, last := sum, password
	if i&1 != 0 {
		first, last = password, sum
	}
	h.Write(first)
	if i%3 != 0 {
		h.Write(salt)
	}
	if i%7 != 0 {
		h.Write(password)
	}
	h.Write(last)
}

// Bounds of SHA-crypt. The specification allows up to 999,999,999 rounds, which
// would be minutes a request.
const (
	defaultRounds = 5000
	minRounds     = 1000
	maxRounds     = 1000000
)

// shaCrypt is Drepper's "Unix crypt using SHA-256 and SHA-512"; nil: the hash
// is broken.
func shaCrypt(stored string, password []byte) []byte {
	prefix, rest := stored[:3], stored[3:]
	newHash := sha256.New
	if prefix == "$6$" {
		newHash = sha512.New
	}
	rounds, explicit := defaultRounds, false
	if r, ok := strings.CutPrefix(rest, "rounds="); ok {
		text, after, ok := strings.Cut(r, "$")
		n, err := strconv.Atoi(text)
		if !ok || err != nil || n > maxRounds {
			return nil
		}
		rounds, explicit, rest = max(n, minRounds), true, after
	}
	text, _, ok := strings.Cut(rest, "$")
	if !ok {
		return nil
	}
	salt := []byte(text)
	if len(salt) > 16 {
		salt = salt[:16]
	}
	h := newHash()
	size := h.Size()
	h.Write(password)
	h.Write(salt)
	h.Write(password)
	mixed := h.Sum(nil)

	h.Reset()
	h.Write(password)
	h.Write(salt)
	for n := len(password); n > 0; n -= size {
		h.Write(mixed[:min(n, size)])
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 != 0 {
			h.Write(mixed)
		} else {
			h.Write(password)
		}
	}
	sum := h.Sum(nil)

	h.Reset()
	for range len(password) {
		h.Write(password)
	}
	p := repeat(h.Sum(nil), len(password))
	h.Reset()
	for range 16 + int(sum[0]) {
		h.Write(salt)
	}
	s := repeat(h.Sum(nil), len(salt))
	for i := range rounds {
		h.Reset()
		round(h, i, sum, s, p)
		sum = h.Sum(sum[:0])
	}
	out := []byte(prefix)
	if explicit {
		out = append(strconv.AppendInt(append(out, "rounds="...), int64(rounds), 10), '$')
	}
	out = append(append(out, salt...), '$')
	if size == sha256.Size {
		for i := range 10 {
			a, b, c := sum[i], sum[i+10], sum[i+20]
			switch i % 3 {
			case 1:
				a, b, c = c, a, b
			case 2:
				a, b, c = b, c, a
			}
			out = append64(out, a, b, c, 4)
		}
		return append64(out, 0, sum[31], sum[30], 3)
	}
	for i := range 21 {
		a, b, c := sum[i], sum[i+21], sum[i+42]
		switch i % 3 {
		case 1:
			a, b, c = b, c, a
		case 2:
			a, b, c = c, a, b
		}
		out = append64(out, a, b, c, 4)
	}
	return append64(out, 0, 0, sum[63], 2)
}

func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, b[:min(len(b), n-len(out))]...)
	}
	return out
}
