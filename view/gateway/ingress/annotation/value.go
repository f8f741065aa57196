package annotation

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

type (
	prefixes []netip.Prefix
	duration time.Duration
)

// ErrValue means that the value is not what the table says; the message is made
// from the table.
var ErrValue = errors.New("not understood")

func ParseBool(s string) (bool, error) {
	switch strings.TrimSpace(s) {
	case "true", "True", "TRUE", "t", "T", "1":
		return true, nil
	case "false", "False", "FALSE", "f", "F", "0":
		return false, nil
	}
	return false, ErrValue
}

func setBool(field func(*Reading) *bool) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		b, err := ParseBool(v)
		if err == nil {
			*field(r) = b
		}
		return err
	}
}

func checkBool(_ *Reading, v string) error {
	_, err := ParseBool(v)
	return err
}

// parseOnOff takes what nginx does, and what people write by mistake.
func parseOnOff(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return ParseBool(s)
}

func onOff(field func(*Reading) *bool) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		b, err := parseOnOff(v)
		if err == nil {
			*field(r) = b
		}
		return err
	}
}

// Printable refuses what would break lines of heads apart.
func Printable(s string) error {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return fmt.Errorf("%w: it has a control character", ErrValue)
		}
	}
	return nil
}

func setText(field func(*Reading) *string) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		v = strings.TrimSpace(v)
		if v == "" {
			return fmt.Errorf("%w: it is empty", ErrValue)
		}
		if err := Printable(v); err != nil {
			return err
		}
		*field(r) = v
		return nil
	}
}

// setPlace takes text with variables.
func setPlace(field func(*Reading) *string) func(*Reading, string) error {
	set := setText(field)
	return func(r *Reading, v string) error {
		if strings.ContainsAny(strings.TrimSpace(v), " ;{}\\\"'`<>") && !strings.Contains(v, "${") {
			return fmt.Errorf("%w: it has characters that no URL has", ErrValue)
		}
		return set(r, v)
	}
}

func Token(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

func setHeaderName(field func(*Reading) *string) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		v = strings.TrimSpace(v)
		if !Token(v) {
			return ErrValue
		}
		*field(r) = v
		return nil
	}
}

func oneOf(field func(*Reading) *string, words ...string) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, strings.TrimSpace(v)) })
		if i < 0 {
			return ErrValue
		}
		*field(r) = words[i]
		return nil
	}
}

func parseNumber(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
	if err != nil {
		return 0, ErrValue
	}
	return int(n), nil
}

func setNumber(field func(*Reading) *int) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		n, err := parseNumber(v)
		if err == nil {
			*field(r) = n
		}
		return err
	}
}

// parseSeconds takes a number, and one with the unit that people add although
// ingress-nginx does not know it.
func parseSeconds(s string) (time.Duration, error) {
	n, err := parseNumber(strings.TrimSuffix(strings.TrimSpace(s), "s"))
	if err != nil || n > 10*365*24*3600 {
		return 0, ErrValue
	}
	return time.Duration(n) * time.Second, nil
}

func seconds(field func(*Reading) *duration) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		d, err := parseSeconds(v)
		if err != nil || d == 0 {
			return ErrValue
		}
		*field(r) = duration(d)
		return nil
	}
}

func secondsOrNone(field func(*Reading) *duration) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		d, err := parseSeconds(v)
		if err == nil {
			*field(r) = duration(d)
		}
		return err
	}
}

// parseSize reads a size as nginx writes it; 0 is no limit.
func parseSize(s string) (int64, error) {
	s = strings.TrimSpace(s)
	shift := 0
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
		if shift > 0 {
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseUint(s, 10, 63-shift)
	if err != nil {
		return 0, ErrValue
	}
	return int64(n) << shift, nil
}

// words splits a list at commas and spaces.
func words(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\t' || c == '\r' })
}

func parseRanges(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, w := range words(s) {
		p, err := netip.ParsePrefix(w)
		if err != nil {
			a, err := netip.ParseAddr(w)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%w: %q is neither", ErrValue, w)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out = append(out, p.Masked())
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrValue)
	}
	return out, nil
}

func ranges(field func(*Reading) *prefixes) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		p, err := parseRanges(v)
		if err == nil {
			*field(r) = p
		}
		return err
	}
}

func redirectCode(field func(*Reading) *int) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		n, err := parseNumber(v)
		if err != nil || !slices.Contains([]int{301, 302, 303, 307, 308}, n) {
			return ErrValue
		}
		*field(r) = n
		return nil
	}
}

func parseStatuses(s string) ([]int, error) {
	var out []int
	for _, w := range words(s) {
		n, err := parseNumber(w)
		if err != nil || n < 300 || n > 599 {
			return nil, fmt.Errorf("%w: %q is no such status", ErrValue, w)
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return nil, ErrValue
	}
	return out, nil
}

// parseAuthCache reads "200 202 10m, 401 5m": the shortest of the durations.
func parseAuthCache(s string) (time.Duration, error) {
	var least time.Duration
	for part := range strings.SplitSeq(s, ",") {
		f := strings.Fields(part)
		if len(f) == 0 {
			return 0, ErrValue
		}
		for _, code := range f[:len(f)-1] {
			if n, err := parseNumber(code); code != "any" && (err != nil || n < 100 || n > 599) {
				return 0, fmt.Errorf("%w: %q is no status", ErrValue, code)
			}
		}
		last := f[len(f)-1]
		d, err := parseSeconds(last)
		if err != nil {
			for unit, each := range map[string]time.Duration{"ms": time.Millisecond, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
				if head, ok := strings.CutSuffix(last, unit); ok {
					if n, e := parseNumber(head); e == nil && n <= 100_000 {
						d, err = time.Duration(n)*each, nil
					}
				}
			}
		}
		if err != nil || d == 0 {
			return 0, fmt.Errorf("%w: %q is no duration", ErrValue, last)
		}
		if least == 0 || d < least {
			least = d
		}
	}
	return least, nil
}

// ParseURL checks a URL with variables, and gives the host if that has none.
func ParseURL(s string) (host, port, scheme string, err error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "http" && scheme != "https" || strings.ContainsAny(s, " \"'`;{}\\<>") || Printable(s) != nil {
		return "", "", "", ErrValue
	}
	at := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		at = rest[:i]
	}
	if strings.Contains(at, "$") {
		return "", "", scheme, nil
	}
	u, e := url.Parse(scheme + "://" + at)
	if e != nil || u.Hostname() == "" || u.User != nil {
		return "", "", "", ErrValue
	}
	if p := u.Port(); p != "" {
		if n, e := strconv.ParseUint(p, 10, 16); e != nil || n == 0 {
			return "", "", "", ErrValue
		}
	}
	return u.Hostname(), u.Port(), scheme, nil
}

// HostName says whether s can be a host of a rule.
func HostName(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// parseNext reads the words of proxy_next_upstream.
func parseNext(s string) (route.Retry, error) {
	var out route.Retry
	for _, w := range words(s) {
		switch w {
		case "error", "invalid_header":
			out.Reset = true
		case "timeout":
			out.TimeOut = true
		case "non_idempotent":
			out.NonIdempotent = true
		case "off":
			out.Off = true
		case "http_500", "http_502", "http_503", "http_504", "http_403", "http_404", "http_429":
			n, _ := strconv.Atoi(w[len("http_"):])
			if !slices.Contains(out.On, n) {
				out.On = append(out.On, n)
			}
		default:
			return out, fmt.Errorf("%w: %q", ErrValue, w)
		}
	}
	if len(words(s)) == 0 {
		return out, ErrValue
	}
	return out, nil
}

func parsePattern(s string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrValue, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return re, nil
}

// ParsePasswords reads an htpasswd file: a line for each user.
func ParsePasswords(file string) map[string]string {
	users := map[string]string{}
	for line := range strings.Lines(file) {
		line = strings.TrimSpace(line)
		user, rest, _ := strings.Cut(line, ":")
		hash, _, _ := strings.Cut(rest, ":")
		if user == "" || hash == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, again := users[user]; !again { // as nginx: the first counts
			users[user] = hash
		}
	}
	return users
}
