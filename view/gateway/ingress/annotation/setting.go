package annotation

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// Reading is what the annotations of one Ingress say, as they stand: what
// they mean together is found when all are read.
type Reading struct {
	Policy route.Policy

	IsCanary bool
	Canary   route.Canary

	Rewrite                     string
	UseRegex                    bool
	Permanent, Temporal         string
	PermanentCode, TemporalCode int
	WWW                         bool
	Aliases                     []string
	DefaultBackend              string
	NoIntercept                 bool
	Passthrough                 bool
	CustomHeaders               string
	ServiceUpstream             bool
	HashBy                      string
	HashSubset                  bool
	SubsetSize                  int
	RedirectFrom, RedirectTo    string

	BasicKind, BasicSecret, BasicType, Realm string
	Auth                                     route.ExternalAuth
	AuthHeaders                              string
	TLSSecret, TLSVerify, TLSError           string
	TLSDepth                                 int
	TLSPass                                  bool
	TLSMatch                                 *regexp.Regexp
	CORSOn                                   bool
	CORS                                     route.CORS
	Limit                                    route.Limit

	AffinityKind, AffinityMode string
	Affinity                   route.Affinity
	ProxySecret, ProxyName     string
	ProxyVerify                bool
	ProxyDepth                 int // -1: any
	ProxyMin, ProxyMax         uint16

	unused  string // values that are checked only
	ignored bool
}

// New is what no annotation says: the defaults.
func New() *Reading {
	return &Reading{
		Policy: route.Policy{SSLRedirect: true, Retry: route.Retry{Reset: true}},
		// The defaults of ingress-nginx where they are not the zero value.
		CORS:          route.CORS{Methods: corsMethods, Headers: corsHeaders, Credentials: true, MaxAge: corsMaxAge},
		TLSDepth:      1,
		ProxyDepth:    -1,
		PermanentCode: 301, TemporalCode: 302,
	}
}

func canaryPattern(r *Reading, v string) (err error) {
	r.Canary.HeaderPattern, err = parsePattern(v)
	return err
}

func canaryNumber(field func(*Reading) *uint32) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		n, err := parseNumber(v)
		if err == nil {
			*field(r) = uint32(n)
		}
		return err
	}
}

func appRoot(r *Reading, v string) error {
	if !strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//") || strings.ContainsAny(v, " ;{}\\\"'<>") || Printable(v) != nil {
		return ErrValue
	}
	r.Policy.AppRoot = v
	return nil
}

func aliases(r *Reading, v string) error {
	var bad []string
	for _, a := range words(v) {
		if a = strings.ToLower(a); HostName(a) {
			r.Aliases = append(r.Aliases, a)
		} else {
			bad = append(bad, a)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%w: %s", ErrValue, strings.Join(bad, ", "))
	}
	return nil
}

func customErrors(r *Reading, v string) (err error) {
	r.Policy.CustomErrors, err = parseStatuses(v)
	return err
}

func accessLog(r *Reading, v string) error {
	on, err := ParseBool(v)
	r.Policy.DisableAccessLog = err == nil && !on
	return err
}

func customHeaders(r *Reading, v string) error {
	return setText(func(r *Reading) *string { return &r.CustomHeaders })(r, v)
}

func satisfy(r *Reading, v string) error {
	switch strings.TrimSpace(v) {
	case "all":
		r.Policy.SatisfyAny = false
	case "any":
		r.Policy.SatisfyAny = true
	default:
		return ErrValue
	}
	return nil
}

// matchCN wants what ingress-nginx does: without CN= it would look at nothing.
func matchCN(r *Reading, v string) (err error) {
	if v = strings.TrimSpace(v); !strings.Contains(v, "CN=") {
		return fmt.Errorf("%w: there is no CN= in it", ErrValue)
	}
	r.TLSMatch, err = parsePattern(v)
	return err
}

// protocols reads versions of TLS; those that nobody should use are left out.
func protocols(r *Reading, v string) error {
	var low, high uint16
	for _, w := range words(v) {
		var n uint16
		switch w {
		case "SSLv2", "SSLv3", "TLSv1", "TLSv1.1":
			continue
		case "TLSv1.2":
			n = tls.VersionTLS12
		case "TLSv1.3":
			n = tls.VersionTLS13
		default:
			return fmt.Errorf("%w: %q", ErrValue, w)
		}
		if low == 0 || n < low {
			low = n
		}
		high = max(high, n)
	}
	if low == 0 {
		return fmt.Errorf("%w: no version is left", ErrValue)
	}
	r.ProxyMin, r.ProxyMax = low, high
	return nil
}

// replacement reads "FROM TO".
func replacement(field func(*Reading) **route.Replacement, domain bool) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		*field(r) = nil
		f := strings.Fields(v)
		if len(f) == 1 && f[0] == "off" {
			return nil
		}
		if len(f) != 2 {
			return ErrValue
		}
		p, err := ParseReplacement(f[0], f[1], domain)
		if err == nil {
			*field(r) = p
		}
		return err
	}
}

func redirectFrom(r *Reading, v string) error {
	v = strings.TrimSpace(v)
	if v != "off" && v != "default" {
		if _, err := ParseReplacement(v, "/", false); err != nil {
			return err
		}
	}
	r.RedirectFrom = v
	return nil
}

// ParseReplacement reads the two words of proxy_redirect and the like. nocase:
// expressions are without regard to case in any case.
func ParseReplacement(from, to string, nocase bool) (*route.Replacement, error) {
	from, to = unquote(from), unquote(to)
	if from == "" || from == "~" || from == "~*" || strings.ContainsAny(to, " ;{}\\\"'`<>") && !strings.Contains(to, "${") {
		return nil, ErrValue
	}
	if err := errors.Join(Printable(from), Printable(to)); err != nil {
		return nil, err
	}
	out := &route.Replacement{From: from, To: to}
	text, ok := strings.CutPrefix(from, "~")
	if !ok {
		return out, nil
	}
	if rest, ok := strings.CutPrefix(text, "*"); ok {
		text, nocase = rest, true
	}
	if nocase {
		text = "(?i)" + text
	}
	var err error
	out.From = ""
	out.Regex, err = parsePattern(text)
	return out, err
}

func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

func authType(r *Reading, v string) error {
	if !strings.EqualFold(strings.TrimSpace(v), "basic") {
		return ErrValue
	}
	r.BasicKind = "basic"
	return nil
}

func authURL(r *Reading, v string) error {
	v = strings.TrimSpace(v)
	if _, _, _, err := ParseURL(v); err != nil {
		return err
	}
	r.Auth.URL = v
	return nil
}

func authMethod(r *Reading, v string) error {
	switch v = strings.TrimSpace(v); v {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		r.Auth.Method = v
		return nil
	}
	return ErrValue
}

func authResponse(r *Reading, v string) error {
	names := words(v)
	for _, n := range names {
		if !Token(n) {
			return fmt.Errorf("%w: %q", ErrValue, n)
		}
	}
	r.Auth.ResponseFields = names
	return nil
}

// AuthCacheDefault is what ingress-nginx keeps answers for.
const AuthCacheDefault = 5 * time.Minute

func authCache(r *Reading, v string) (err error) {
	r.Auth.CacheDuration, err = parseAuthCache(v)
	return err
}

func corsOrigins(r *Reading, v string) error {
	// What is not understood must not become the default, which is everybody.
	r.CORS.Origins = []string{}
	var bad []string
	for _, o := range words(v) {
		head, rest, ok := strings.Cut(o, "://")
		at := strings.TrimPrefix(rest, "*.")
		host, _, _, err := ParseURL("http://" + at)
		switch {
		case o == "*", ok && head != "" && Token(head) && err == nil && host != "" && !strings.ContainsAny(at, "*/?#$"):
			r.CORS.Origins = append(r.CORS.Origins, o)
		default:
			bad = append(bad, o)
		}
	}
	if len(bad) > 0 || len(r.CORS.Origins) == 0 {
		return fmt.Errorf("%w: %s", ErrValue, strings.Join(bad, ", "))
	}
	return nil
}

func corsList(field func(*Reading) *string) func(*Reading, string) error {
	return func(r *Reading, v string) error {
		for _, w := range words(v) {
			if !Token(w) {
				return fmt.Errorf("%w: %q", ErrValue, w)
			}
		}
		if len(words(v)) == 0 {
			return ErrValue
		}
		*field(r) = strings.Join(words(v), ", ") // without line breaks
		return nil
	}
}

func bodySize(r *Reading, v string) error {
	n, err := parseSize(v)
	if err != nil {
		return err
	}
	if n == 0 {
		n = -1
	}
	r.Policy.BodyLimit = n
	return nil
}

func backendProtocol(r *Reading, v string) error {
	switch strings.ToUpper(strings.TrimSpace(v)) {
	case "HTTP", "AUTO_HTTP":
		r.Policy.Protocol = route.HTTP
	case "HTTPS":
		r.Policy.Protocol = route.HTTPS
	case "GRPC":
		r.Policy.Protocol = route.H2C
	case "GRPCS":
		r.Policy.Protocol = route.H2
	default:
		return ErrValue
	}
	return nil
}

func secureBackends(r *Reading, v string) error {
	on, err := ParseBool(v)
	if on {
		r.Policy.Protocol = route.HTTPS
	}
	return err
}

func grpcBackend(r *Reading, v string) error {
	on, err := ParseBool(v)
	if on {
		r.Policy.Protocol = route.H2C
	}
	return err
}

func nextUpstream(r *Reading, v string) error {
	n, err := parseNext(v)
	if err != nil {
		return err
	}
	n.Tries, n.Within = r.Policy.Retry.Tries, r.Policy.Retry.Within
	r.Policy.Retry = n
	return nil
}

func loadBalance(r *Reading, v string) error {
	b := &r.Policy.Balance
	switch v = strings.TrimSpace(v); v {
	case "round_robin", "ewma", "random", "least_request":
		b.Algorithm = v
	case "least_conn":
		b.Algorithm = "least_request"
	case "random_two":
		b.Algorithm = ""
	case "ip_hash":
		b.Algorithm, b.HashBy = "ring_hash", "$remote_addr"
	case "maglev":
		b.Algorithm, b.HashBy = "maglev", "$remote_addr"
	default:
		return ErrValue
	}
	return nil
}

func cookieSecure(r *Reading, v string) error {
	b, err := ParseBool(v)
	if err == nil {
		r.Affinity.Secure = &b
	}
	return err
}
