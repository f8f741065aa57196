package annotation

import "slices"

// Support is what becomes of an annotation.
type Support string

// The kinds of support.
const (
	Honoured    Support = "honoured"
	Translated  Support = "translated"    // the effect is reached in another way, or there is no need of it
	Unsupported Support = "NOT supported" // it has no effect
)

// Annotation is what is known of one annotation of ingress-nginx.
type Annotation struct {
	Key     string // without prefix
	Support Support
	// Note: what it does here; how it is translated; why it is not supported
	// and what to do instead.
	Note string

	// Closed: a value that cannot be understood, or the annotation at all if it is
	// not supported, closes the rules of the Ingress.
	Closed bool
	// Canary: looked at on a canary Ingress too.
	Canary bool
	Want   string // what a right value is
	// Apply notes a value. An error is, or wraps, ErrValue: it is not what Want says.
	// nil: the value does not matter.
	Apply func(*Reading, string) error
}

// All lists what is known, by key.
func All() []Annotation {
	var all []Annotation
	for _, part := range [][]Annotation{trafficKeys(), accessKeys(), endpointKeys(), refusedKeys()} {
		all = append(all, part...)
	}
	slices.SortFunc(all, func(a, b Annotation) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return all
}

const (
	wantBool    = `"true" or "false"`
	wantSeconds = "a number of seconds, at least 1"
	wantNumber  = "a number that is not negative"
	wantRanges  = "addresses and ranges such as 192.0.2.0/24, separated by commas"
	wantSecret  = "the name of a Secret, or namespace/name"
	wantURL     = "an http or https URL"
)

// trafficKeys are those that decide where a request goes.
func trafficKeys() []Annotation {
	h := Honoured
	return []Annotation{
		{Key: "canary", Support: h, Canary: true, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.IsCanary }),
			Note: "The Ingress is a second version of the rules of another one with the same host, path and path type. Without such rules it does nothing, and is told so."},
		{Key: "canary-by-header", Support: h, Canary: true, Apply: setHeaderName(func(r *Reading) *string { return &r.Canary.Header }), Want: "the name of a header",
			Note: "The value always chooses the canary, never does not; others leave it to the cookie, and that to the weight."},
		{Key: "canary-by-header-value", Support: h, Canary: true, Apply: setText(func(r *Reading) *string { return &r.Canary.HeaderValue }),
			Note: "That value chooses the canary, in the place of always and never."},
		{Key: "canary-by-header-pattern", Support: h, Canary: true, Apply: canaryPattern, Want: "a regular expression (RE2 syntax)",
			Note: "Values that match choose the canary; not looked at beside canary-by-header-value. Expressions are RE2: no look-around, no back references."},
		{Key: "canary-by-cookie", Support: h, Canary: true, Apply: setHeaderName(func(r *Reading) *string { return &r.Canary.Cookie }), Want: "the name of a cookie",
			Note: "always and never, as with the header."},
		{Key: "canary-weight", Support: h, Canary: true, Apply: canaryNumber(func(r *Reading) *uint32 { return &r.Canary.Weight }), Want: "a number from 0 to canary-weight-total",
			Note: "The share of requests that go to the canary, of canary-weight-total."},
		{Key: "canary-weight-total", Support: h, Canary: true, Apply: canaryNumber(func(r *Reading) *uint32 { return &r.Canary.Total }), Want: "a number above 0",
			Note: "What canary-weight is a part of; 100 if not given."},
		{Key: "rewrite-target", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Rewrite }), Want: "a path, with $1 to $9",
			Note: "The path towards the endpoint. All paths of the host become regular expressions (without regard to case, bound to the begin), of whatever Ingress they are."},
		{Key: "use-regex", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.UseRegex }),
			Note: "All paths of the host are regular expressions (RE2), without regard to case and bound to the begin, of whatever Ingress they are."},
		{Key: "app-root", Support: h, Apply: appRoot, Want: `a path that begins with "/"`, Note: `A request of "/" is redirected there (302).`},
		{Key: "ssl-redirect", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Policy.SSLRedirect }),
			Note: "Plain http is redirected to https (308) if the host is in spec.tls; true unless given."},
		{Key: "force-ssl-redirect", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Policy.ForceSSLRedirect }),
			Note: "The same though the host is not in spec.tls, for TLS that ends in front of the gateway."},
		{Key: "preserve-trailing-slash", Support: Translated, Want: wantBool, Apply: checkBool, Note: "Redirects to https never change the path."},
		{Key: "use-port-in-redirects", Support: Translated, Want: wantBool, Apply: checkBool, Note: "Redirects name the port whenever it is not the usual one."},
		{Key: "permanent-redirect", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Permanent }), Want: "a URL",
			Note: "Every request is answered with it (301). Variables such as $request_uri are understood."},
		{Key: "permanent-redirect-code", Support: h, Apply: redirectCode(func(r *Reading) *int { return &r.PermanentCode }), Want: "301, 302, 303, 307 or 308", Note: "The status of permanent-redirect."},
		{Key: "temporal-redirect", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Temporal }), Want: "a URL",
			Note: "Every request is answered with it (302); it goes before permanent-redirect."},
		{Key: "temporal-redirect-code", Support: h, Apply: redirectCode(func(r *Reading) *int { return &r.TemporalCode }), Want: "301, 302, 303, 307 or 308", Note: "The status of temporal-redirect."},
		{Key: "from-to-www-redirect", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.WWW }),
			Note: "www.example.com is redirected to example.com (308), or the other way for a host that begins with www., unless an Ingress has that host."},
		{Key: "server-alias", Support: h, Apply: aliases, Want: "host names, separated by commas",
			Note: "These hosts have the rules of the Ingress' hosts; a host that an Ingress has rules for is not taken over. Aliases that are regular expressions (~...) are not supported."},
		{Key: "default-backend", Support: h, Apply: setText(func(r *Reading) *string { return &r.DefaultBackend }), Want: "the name of a Service of this namespace",
			Note: "Its first port takes requests when the Service of a rule has no endpoint, and answers for custom-http-errors."},
		{Key: "custom-http-errors", Support: h, Apply: customErrors, Want: "statuses from 300 to 599, separated by commas",
			Note: "Answers with these statuses are replaced by those of default-backend, or of the gateway's default backend."},
		{Key: "disable-proxy-intercept-errors", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.NoIntercept }), Note: "custom-http-errors is not looked at."},
		{Key: "ssl-passthrough", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Passthrough }),
			Note: "TLS of the host is carried to the endpoints of its path / as it is; all other annotations have no effect on it. There is no switch to turn on first."},
		{Key: "enable-access-log", Support: h, Want: wantBool, Apply: accessLog, Note: "false: requests are not logged."},
		{Key: "enable-rewrite-log", Support: Translated, Want: wantBool, Apply: checkBool, Note: "There is no such log: `fingerpost gateway explain URL` shows how a request is rewritten."},
		{Key: "x-forwarded-prefix", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Policy.ForwardPrefix }), Want: "a path", Note: "The field X-Forwarded-Prefix towards the endpoint."},
		{Key: "upstream-vhost", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Policy.UpstreamHost }), Want: "a host", Note: "The Host towards the endpoint."},
		{Key: "custom-headers", Support: h, Apply: customHeaders, Want: "the name of a ConfigMap, or namespace/name", Note: "The entries of the ConfigMap are set as fields of responses. There is no list of allowed names."},
	}
}
