package v1alpha1

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"strconv"
	"strings"
)

const (
	labelMax = 63 // RFC 1123
	hashLen  = 10 // 50 bits: a collision among a million names has odds of 1 in 2,000
	headMax  = labelMax - 1 - hashLen
)

// nameEncoding writes hashes with digits and small letters only.
var nameEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// InstanceName is the name of the Instance for one endpoint of a service. All
// doors use it, so that two registrations of the same address and port meet in
// one object, as two claims. It is a DNS label: the service's name (at most 52
// characters of it), a dash and ten characters of a hash of all three.
// An address in another spelling of the same IP gives the same name.
func InstanceName(service, address string, port int32) string {
	if ip, err := netip.ParseAddr(address); err == nil {
		address = ip.Unmap().String()
	}
	return head(Slug(service)) + "-" + hash(service, address, strconv.Itoa(int(port)))
}

// Slug makes a DNS label that starts with a letter, fit for a Service's name,
// out of any name: lower case, everything but letters and digits becomes '-'.
// A name that is already such a label stays as it is; any other one loses
// something on the way, so it is cut to 52 characters and gets ten characters
// of a hash of the original, which keeps different names apart.
//
// Case counts as part of the name. A door whose protocol ignores case
// (Eureka, Consul) lowers it first.
func Slug(name string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			b.WriteRune(r)
		case 'A' <= r && r <= 'Z':
			b.WriteRune(r - 'A' + 'a')
		default:
			b.WriteByte('-')
		}
	}
	s := strings.Trim(b.String(), "-")
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		s = strings.TrimSuffix("s-"+s, "-")
	}
	if s == name && len(s) <= labelMax {
		return s
	}
	return head(s) + "-" + hash(name)
}

// head is as much of a slug as leaves room for a hash.
func head(s string) string {
	if len(s) > headMax {
		s = s[:headMax]
	}
	return strings.TrimRight(s, "-")
}

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return nameEncoding.EncodeToString(sum[:])[:hashLen]
}
