package ingress

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

// reading is what the annotations of one Ingress say, as they stand: what
// they mean together is found when all are read.
type reading struct {
	policy route.Policy

	isCanary bool
	canary   route.Canary

	rewrite                     string
	useRegex                    bool
	permanent, temporal         string
	permanentCode, temporalCode int
	www                         bool
	aliases                     []string
	defaultBackend              string
	noIntercept                 bool
	passthrough                 bool
	customHeaders               string
	serviceUpstream             bool
	hashBy                      string

	basicKind, basicSecret, basicType, realm string
	auth                                     route.ExternalAuth
	authHeaders                              string
	tlsSecret, tlsVerify, tlsError           string
	tlsDepth                                 int
	tlsPass                                  bool
	corsOn                                   bool
	cors                                     route.CORS
	limit                                    route.Limit

	affinityKind, affinityMode string
	affinity                   route.Affinity
	proxySecret, proxyName     string
	proxyVerify                bool

	unused  string // values that are checked only
	ignored bool
}

func newReading() *reading {
	return &reading{
		policy: route.Policy{SSLRedirect: true, Retry: route.Retry{Reset: true}},
		// The defaults of ingress-nginx where they are not the zero value.
		cors:          route.CORS{Methods: corsMethods, Headers: corsHeaders, Credentials: true, MaxAge: corsMaxAge},
		tlsDepth:      1,
		permanentCode: 301, temporalCode: 302,
	}
}

func canaryPattern(r *reading, v string) (err error) {
	r.canary.HeaderPattern, err = parsePattern(v)
	return err
}

func canaryNumber(field func(*reading) *uint32) func(*reading, string) error {
	return func(r *reading, v string) error {
		n, err := parseNumber(v)
		if err == nil {
			*field(r) = uint32(n)
		}
		return err
	}
}

func appRoot(r *reading, v string) error {
	if !strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//") || strings.ContainsAny(v, " ;{}\\\"'<>") || printable(v) != nil {
		return errValue
	}
	r.policy.AppRoot = v
	return nil
}

func aliases(r *reading, v string) error {
	var bad []string
	for _, a := range words(v) {
		if a = strings.ToLower(a); hostName(a) {
			r.aliases = append(r.aliases, a)
		} else {
			bad = append(bad, a)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("%w: %s", errValue, strings.Join(bad, ", "))
	}
	return nil
}

func customErrors(r *reading, v string) (err error) {
	r.policy.CustomErrors, err = parseStatuses(v)
	return err
}

func accessLog(r *reading, v string) error {
	on, err := parseBool(v)
	r.policy.DisableAccessLog = err == nil && !on
	return err
}

func customHeaders(r *reading, v string) error {
	return setText(func(r *reading) *string { return &r.customHeaders })(r, v)
}

func satisfy(_ *reading, v string) error {
	if strings.TrimSpace(v) != "all" {
		return errValue
	}
	return nil
}

func authType(r *reading, v string) error {
	if !strings.EqualFold(strings.TrimSpace(v), "basic") {
		return errValue
	}
	r.basicKind = "basic"
	return nil
}

func authURL(r *reading, v string) error {
	v = strings.TrimSpace(v)
	if _, _, _, err := parseURL(v); err != nil {
		return err
	}
	r.auth.URL = v
	return nil
}

func authMethod(r *reading, v string) error {
	switch v = strings.TrimSpace(v); v {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		r.auth.Method = v
		return nil
	}
	return errValue
}

func authResponse(r *reading, v string) error {
	names := words(v)
	for _, n := range names {
		if !token(n) {
			return fmt.Errorf("%w: %q", errValue, n)
		}
	}
	r.auth.ResponseFields = names
	return nil
}

// authCacheDefault is what ingress-nginx keeps answers for.
const authCacheDefault = 5 * time.Minute

func authCache(r *reading, v string) (err error) {
	r.auth.CacheDuration, err = parseAuthCache(v)
	return err
}

func corsOrigins(r *reading, v string) error {
	// What is not understood must not become the default, which is everybody.
	r.cors.Origins = []string{}
	var bad []string
	for _, o := range words(v) {
		head, rest, ok := strings.Cut(o, "://")
		at := strings.TrimPrefix(rest, "*.")
		host, _, _, err := parseURL("http://" + at)
		switch {
		case o == "*", ok && head != "" && token(head) && err == nil && host != "" && !strings.ContainsAny(at, "*/?#$"):
			r.cors.Origins = append(r.cors.Origins, o)
		default:
			bad = append(bad, o)
		}
	}
	if len(bad) > 0 || len(r.cors.Origins) == 0 {
		return fmt.Errorf("%w: %s", errValue, strings.Join(bad, ", "))
	}
	return nil
}

func corsList(field func(*reading) *string) func(*reading, string) error {
	return func(r *reading, v string) error {
		for _, w := range words(v) {
			if !token(w) {
				return fmt.Errorf("%w: %q", errValue, w)
			}
		}
		if len(words(v)) == 0 {
			return errValue
		}
		*field(r) = strings.Join(words(v), ", ") // without line breaks
		return nil
	}
}

func bodySize(r *reading, v string) error {
	n, err := parseSize(v)
	if err != nil {
		return err
	}
	if n == 0 {
		n = -1
	}
	r.policy.BodyLimit = n
	return nil
}

func backendProtocol(r *reading, v string) error {
	switch strings.ToUpper(strings.TrimSpace(v)) {
	case "HTTP", "AUTO_HTTP":
		r.policy.Protocol = route.HTTP
	case "HTTPS":
		r.policy.Protocol = route.HTTPS
	case "GRPC":
		r.policy.Protocol = route.H2C
	case "GRPCS":
		r.policy.Protocol = route.H2
	default:
		return errValue
	}
	return nil
}

func secureBackends(r *reading, v string) error {
	on, err := parseBool(v)
	if on {
		r.policy.Protocol = route.HTTPS
	}
	return err
}

func grpcBackend(r *reading, v string) error {
	on, err := parseBool(v)
	if on {
		r.policy.Protocol = route.H2C
	}
	return err
}

func nextUpstream(r *reading, v string) error {
	n, err := parseNext(v)
	if err != nil {
		return err
	}
	n.Tries, n.Within = r.policy.Retry.Tries, r.policy.Retry.Within
	r.policy.Retry = n
	return nil
}

func loadBalance(r *reading, v string) error {
	b := &r.policy.Balance
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
		return errValue
	}
	return nil
}

func cookieSecure(r *reading, v string) error {
	b, err := parseBool(v)
	if err == nil {
		r.affinity.Secure = &b
	}
	return err
}
