package annotation

// accessKeys are those that decide who gets in.
func accessKeys() []Annotation {
	h := Honoured
	return []Annotation{
		{Key: "allowlist-source-range", Support: h, Closed: true, Apply: ranges(func(r *Reading) *prefixes { return (*prefixes)(&r.Policy.Allow) }), Want: wantRanges, Note: "Other clients get 403."},
		{Key: "whitelist-source-range", Support: h, Closed: true, Apply: ranges(func(r *Reading) *prefixes { return (*prefixes)(&r.Policy.Allow) }), Want: wantRanges, Note: "The old name of allowlist-source-range."},
		{Key: "denylist-source-range", Support: h, Closed: true, Apply: ranges(func(r *Reading) *prefixes { return (*prefixes)(&r.Policy.Deny) }), Want: wantRanges, Note: "These clients get 403."},
		{Key: "satisfy", Support: h, Apply: satisfy, Want: `"all" or "any"`, Note: "all: addresses, password and authentication server must all agree; any: one of them is enough, asked in this order. Without an answer that is understood: all."},
		{Key: "auth-type", Support: h, Closed: true, Apply: authType, Want: `"basic"`, Note: "basic. digest is not supported, and closes the rules (503)."},
		{Key: "auth-secret", Support: h, Closed: true, Apply: setText(func(r *Reading) *string { return &r.BasicSecret }), Want: wantSecret, Note: "The Secret with users and hashes: bcrypt, $apr1$, $5$, $6$, {SHA} or plain. While it is not there: 503."},
		{Key: "auth-secret-type", Support: h, Closed: true, Apply: oneOf(func(r *Reading) *string { return &r.BasicType }, "auth-file", "auth-map"), Want: `"auth-file" or "auth-map"`, Note: "auth-file: an htpasswd file in the key auth; auth-map: a key for each user."},
		{Key: "auth-realm", Support: h, Apply: setText(func(r *Reading) *string { return &r.Realm }), Note: "What the browser shows when it asks."},
		{Key: "auth-url", Support: h, Closed: true, Apply: authURL, Want: wantURL, Note: "This server is asked about each request: 2xx lets it pass, 401 and 403 do not, anything else is a 500. A URL that names a Service of the cluster goes to its endpoints."},
		{Key: "auth-method", Support: h, Closed: true, Apply: authMethod, Want: "an HTTP method", Note: "The method of that question; GET unless given."},
		{Key: "auth-signin", Support: h, Closed: true, Apply: setPlace(func(r *Reading) *string { return &r.Auth.SignIn }), Want: "a URL", Note: "Where a 401 is redirected to, with the place asked for in the parameter rd."},
		{Key: "auth-signin-redirect-param", Support: h, Apply: setText(func(r *Reading) *string { return &r.Auth.SignInParam }), Note: "The name of that parameter."},
		{Key: "auth-response-headers", Support: h, Closed: true, Apply: authResponse, Want: "names of headers, separated by commas", Note: "Fields of the answer that the endpoint gets; those of the client with these names are removed."},
		{Key: "auth-request-redirect", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Auth.RequestRedirect }), Note: "The field X-Auth-Request-Redirect of the question."},
		{Key: "auth-proxy-set-headers", Support: h, Closed: true, Apply: setText(func(r *Reading) *string { return &r.AuthHeaders }), Want: "the name of a ConfigMap, or namespace/name", Note: "Entries of the ConfigMap are set as fields of the question."},
		{Key: "auth-cache-key", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.Auth.CacheKey }), Note: "Answers are kept under this text with variables, for each rule."},
		{Key: "auth-cache-duration", Support: Translated, Apply: authCache, Want: "such as 200 202 401 5m", Note: "How long answers are kept. One duration holds for all answers that are kept: the shortest given."},
		{Key: "auth-always-set-cookie", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Auth.AlwaysSetCookie }), Note: "Cookies of the answer are set on failures too."},
		{Key: "auth-keepalive", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-requests", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-timeout", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-share-vars", Support: Translated, Note: "There are no variables of nginx to share."},
		{Key: "enable-global-auth", Support: Translated, Want: wantBool, Apply: checkBool, Note: "There is no global authentication that it could switch off; give auth-url on each Ingress."},
		{Key: "auth-tls-secret", Support: h, Closed: true, Apply: setText(func(r *Reading) *string { return &r.TLSSecret }), Want: "namespace/name of a Secret with ca.crt", Note: "Clients of the host must show a certificate of these authorities. Of several Ingresses of a host the oldest decides."},
		{Key: "auth-tls-verify-client", Support: h, Closed: true, Apply: oneOf(func(r *Reading) *string { return &r.TLSVerify }, "on", "off", "optional", "optional_no_ca"), Want: `"on", "off", "optional" or "optional_no_ca"`, Note: "optional lets wrong certificates in as optional_no_ca does: ssl-client-verify tells the endpoint."},
		{Key: "auth-tls-verify-depth", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.TLSDepth }), Want: wantNumber, Note: "How many authorities there may be between the certificate and the root; 1 unless given."},
		{Key: "auth-tls-error-page", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.TLSError }), Want: wantURL, Note: "Clients without a valid certificate are redirected there."},
		{Key: "auth-tls-pass-certificate-to-upstream", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.TLSPass }), Note: "The certificate is sent to the endpoint in ssl-client-cert."},
		{Key: "auth-tls-match-cn", Support: h, Closed: true, Apply: matchCN, Want: "a regular expression (RE2 syntax) with CN= in it", Note: "The subject of the client's certificate (CN=web,O=Shop) must match somewhere, else 403. A certificate that auth-tls-secret does not vouch for never matches."},
		{Key: "enable-cors", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.CORSOn }), Note: "Answers for browsers (Fetch standard)."},
		{Key: "cors-allow-origin", Support: h, Apply: corsOrigins, Want: "* or origins such as https://app.example.com or https://*.example.com, separated by commas", Note: "* unless given. If no given one can be understood, no origin is allowed."},
		{Key: "cors-allow-methods", Support: h, Apply: corsList(func(r *Reading) *string { return &r.CORS.Methods }), Want: "methods, separated by commas", Note: corsMethods + " unless given."},
		{Key: "cors-allow-headers", Support: h, Apply: corsList(func(r *Reading) *string { return &r.CORS.Headers }), Want: "names of headers, separated by commas", Note: corsHeaders + " unless given."},
		{Key: "cors-expose-headers", Support: h, Apply: corsList(func(r *Reading) *string { return &r.CORS.Expose }), Want: "names of headers, separated by commas", Note: "None unless given."},
		{Key: "cors-allow-credentials", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.CORS.Credentials }), Note: "true unless given."},
		{Key: "cors-max-age", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.CORS.MaxAge }), Want: wantNumber, Note: "1728000 unless given."},
		{Key: "limit-rps", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.Limit.RPS }), Want: wantNumber, Note: "Requests a second of one address; others get 503."},
		{Key: "limit-rpm", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.Limit.RPM }), Want: wantNumber, Note: "Requests a minute of one address."},
		{Key: "limit-connections", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.Limit.Connections }), Want: wantNumber, Note: "Requests of one address at the same time."},
		{Key: "limit-burst-multiplier", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.Limit.Burst }), Want: wantNumber, Note: "How many times the limit may come at once; 5 unless given."},
		{Key: "limit-whitelist", Support: h, Apply: ranges(func(r *Reading) *prefixes { return (*prefixes)(&r.Limit.Except) }), Want: wantRanges, Note: "These are not limited."},
		{Key: "limit-allowlist", Support: h, Apply: ranges(func(r *Reading) *prefixes { return (*prefixes)(&r.Limit.Except) }), Want: wantRanges, Note: "The new name of limit-whitelist."},
	}
}

// The defaults of ingress-nginx.
const (
	corsMethods = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	corsHeaders = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	corsMaxAge  = 1728000
)
