package ingress

// accessKeys are those that decide who gets in.
func accessKeys() []Annotation {
	h := Honoured
	return []Annotation{
		{Key: "allowlist-source-range", Support: h, closed: true, apply: ranges(func(r *reading) *prefixes { return (*prefixes)(&r.policy.Allow) }), want: wantRanges, Note: "Other clients get 403."},
		{Key: "whitelist-source-range", Support: h, closed: true, apply: ranges(func(r *reading) *prefixes { return (*prefixes)(&r.policy.Allow) }), want: wantRanges, Note: "The old name of allowlist-source-range."},
		{Key: "denylist-source-range", Support: h, closed: true, apply: ranges(func(r *reading) *prefixes { return (*prefixes)(&r.policy.Deny) }), want: wantRanges, Note: "These clients get 403."},
		{Key: "satisfy", Support: Translated, apply: satisfy, want: `"all"; "any" is not supported`, Note: "Addresses and passwords are both asked for (all). any is not supported: with it they still are, which lets in fewer, not more."},
		{Key: "auth-type", Support: h, closed: true, apply: authType, want: `"basic"`, Note: "basic. digest is not supported, and closes the rules (503)."},
		{Key: "auth-secret", Support: h, closed: true, apply: setText(func(r *reading) *string { return &r.basicSecret }), want: wantSecret, Note: "The Secret with users and hashes: bcrypt, $apr1$, $5$, $6$, {SHA} or plain. While it is not there: 503."},
		{Key: "auth-secret-type", Support: h, closed: true, apply: oneOf(func(r *reading) *string { return &r.basicType }, "auth-file", "auth-map"), want: `"auth-file" or "auth-map"`, Note: "auth-file: an htpasswd file in the key auth; auth-map: a key for each user."},
		{Key: "auth-realm", Support: h, apply: setText(func(r *reading) *string { return &r.realm }), Note: "What the browser shows when it asks."},
		{Key: "auth-url", Support: h, closed: true, apply: authURL, want: wantURL, Note: "This server is asked about each request: 2xx lets it pass, 401 and 403 do not, anything else is a 500. A URL that names a Service of the cluster goes to its endpoints."},
		{Key: "auth-method", Support: h, closed: true, apply: authMethod, want: "an HTTP method", Note: "The method of that question; GET unless given."},
		{Key: "auth-signin", Support: h, closed: true, apply: setPlace(func(r *reading) *string { return &r.auth.SignIn }), want: "a URL", Note: "Where a 401 is redirected to, with the place asked for in the parameter rd."},
		{Key: "auth-signin-redirect-param", Support: h, apply: setText(func(r *reading) *string { return &r.auth.SignInParam }), Note: "The name of that parameter."},
		{Key: "auth-response-headers", Support: h, closed: true, apply: authResponse, want: "names of headers, separated by commas", Note: "Fields of the answer that the endpoint gets; those of the client with these names are removed."},
		{Key: "auth-request-redirect", Support: h, apply: setPlace(func(r *reading) *string { return &r.auth.RequestRedirect }), Note: "The field X-Auth-Request-Redirect of the question."},
		{Key: "auth-proxy-set-headers", Support: h, closed: true, apply: setText(func(r *reading) *string { return &r.authHeaders }), want: "the name of a ConfigMap, or namespace/name", Note: "Entries of the ConfigMap are set as fields of the question."},
		{Key: "auth-cache-key", Support: h, apply: setPlace(func(r *reading) *string { return &r.auth.CacheKey }), Note: "Answers are kept under this text with variables, for each rule."},
		{Key: "auth-cache-duration", Support: Translated, apply: authCache, want: "such as 200 202 401 5m", Note: "How long answers are kept. One duration holds for all answers that are kept: the shortest given."},
		{Key: "auth-always-set-cookie", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.auth.AlwaysSetCookie }), Note: "Cookies of the answer are set on failures too."},
		{Key: "auth-keepalive", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-requests", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-timeout", Support: Translated, Note: "Connections to the authentication server are always kept."},
		{Key: "auth-keepalive-share-vars", Support: Translated, Note: "There are no variables of nginx to share."},
		{Key: "enable-global-auth", Support: Translated, want: wantBool, apply: checkBool, Note: "There is no global authentication that it could switch off; give auth-url on each Ingress."},
		{Key: "auth-tls-secret", Support: h, closed: true, apply: setText(func(r *reading) *string { return &r.tlsSecret }), want: "namespace/name of a Secret with ca.crt", Note: "Clients of the host must show a certificate of these authorities. Of several Ingresses of a host the oldest decides."},
		{Key: "auth-tls-verify-client", Support: h, closed: true, apply: oneOf(func(r *reading) *string { return &r.tlsVerify }, "on", "off", "optional", "optional_no_ca"), want: `"on", "off", "optional" or "optional_no_ca"`, Note: "optional lets wrong certificates in as optional_no_ca does: ssl-client-verify tells the endpoint."},
		{Key: "auth-tls-verify-depth", Support: h, apply: setNumber(func(r *reading) *int { return &r.tlsDepth }), want: wantNumber, Note: "How many authorities there may be between the certificate and the root; 1 unless given."},
		{Key: "auth-tls-error-page", Support: h, apply: setPlace(func(r *reading) *string { return &r.tlsError }), want: wantURL, Note: "Clients without a valid certificate are redirected there."},
		{Key: "auth-tls-pass-certificate-to-upstream", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.tlsPass }), Note: "The certificate is sent to the endpoint in ssl-client-cert."},
		{Key: "auth-tls-match-cn", Support: Unsupported, closed: true, Note: "The name in a certificate is not looked at, so the rules are closed (503). Use an authority of its own, or check ssl-client-subject-dn in the application."},
		{Key: "enable-cors", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.corsOn }), Note: "Answers for browsers (Fetch standard)."},
		{Key: "cors-allow-origin", Support: h, apply: corsOrigins, want: "* or origins such as https://app.example.com or https://*.example.com, separated by commas", Note: "* unless given. If no given one can be understood, no origin is allowed."},
		{Key: "cors-allow-methods", Support: h, apply: corsList(func(r *reading) *string { return &r.cors.Methods }), want: "methods, separated by commas", Note: corsMethods + " unless given."},
		{Key: "cors-allow-headers", Support: h, apply: corsList(func(r *reading) *string { return &r.cors.Headers }), want: "names of headers, separated by commas", Note: corsHeaders + " unless given."},
		{Key: "cors-expose-headers", Support: h, apply: corsList(func(r *reading) *string { return &r.cors.Expose }), want: "names of headers, separated by commas", Note: "None unless given."},
		{Key: "cors-allow-credentials", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.cors.Credentials }), Note: "true unless given."},
		{Key: "cors-max-age", Support: h, apply: setNumber(func(r *reading) *int { return &r.cors.MaxAge }), want: wantNumber, Note: "1728000 unless given."},
		{Key: "limit-rps", Support: h, apply: setNumber(func(r *reading) *int { return &r.limit.RPS }), want: wantNumber, Note: "Requests a second of one address; others get 503."},
		{Key: "limit-rpm", Support: h, apply: setNumber(func(r *reading) *int { return &r.limit.RPM }), want: wantNumber, Note: "Requests a minute of one address."},
		{Key: "limit-connections", Support: h, apply: setNumber(func(r *reading) *int { return &r.limit.Connections }), want: wantNumber, Note: "Requests of one address at the same time."},
		{Key: "limit-burst-multiplier", Support: h, apply: setNumber(func(r *reading) *int { return &r.limit.Burst }), want: wantNumber, Note: "How many times the limit may come at once; 5 unless given."},
		{Key: "limit-whitelist", Support: h, apply: ranges(func(r *reading) *prefixes { return (*prefixes)(&r.limit.Except) }), want: wantRanges, Note: "These are not limited."},
		{Key: "limit-allowlist", Support: h, apply: ranges(func(r *reading) *prefixes { return (*prefixes)(&r.limit.Except) }), want: wantRanges, Note: "The new name of limit-whitelist."},
	}
}

// The defaults of ingress-nginx.
const (
	corsMethods = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	corsHeaders = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	corsMaxAge  = 1728000
)
