package annotation

import "github.com/fingerpost/fingerpost/view/gateway/route"

// endpointKeys are those on how endpoints are chosen and spoken to.
func endpointKeys() []Annotation {
	h := Honoured
	memory := "Bodies are streamed with bounded memory; there is no size to set and no temporary file."
	return []Annotation{
		{Key: "proxy-connect-timeout", Support: h, Apply: seconds(func(r *Reading) *duration { return (*duration)(&r.Policy.ConnectTimeout) }), Want: wantSeconds, Note: "How long a connection to an endpoint may take to be made."},
		{Key: "proxy-read-timeout", Support: h, Apply: seconds(func(r *Reading) *duration { return (*duration)(&r.Policy.ReadTimeout) }), Want: wantSeconds, Note: "How long an endpoint may be silent."},
		{Key: "proxy-send-timeout", Support: h, Apply: seconds(func(r *Reading) *duration { return (*duration)(&r.Policy.SendTimeout) }), Want: wantSeconds, Note: "How long an endpoint may take nothing."},
		{Key: "proxy-body-size", Support: h, Apply: bodySize, Want: "a size such as 8m, 512k or 1g; 0 for no limit", Note: "Larger bodies of requests get 413."},
		{Key: "proxy-buffering", Support: h, Apply: onOff(func(r *Reading) *bool { return &r.Policy.BufferResponse }), Want: `"on" or "off"`, Note: "Whether responses are read ahead of slow clients, within bounds."},
		{Key: "proxy-request-buffering", Support: h, Apply: onOff(func(r *Reading) *bool { return &r.Policy.BufferRequest }), Want: `"on" or "off"`, Note: "on: an endpoint is chosen when the body is there. Unless given, bodies are streamed."},
		{Key: "proxy-http-version", Support: Translated, Apply: oneOf(func(r *Reading) *string { return &r.unused }, "1.1"), Want: `"1.1"`, Note: "Endpoints are always spoken to in 1.1 (or HTTP/2 by backend-protocol)."},
		{Key: "proxy-buffer-size", Support: Translated, Note: memory},
		{Key: "proxy-buffers-number", Support: Translated, Note: memory},
		{Key: "proxy-busy-buffers-size", Support: Translated, Note: memory},
		{Key: "proxy-max-temp-file-size", Support: Translated, Note: memory},
		{Key: "client-body-buffer-size", Support: Translated, Note: memory},
		{Key: "backend-protocol", Support: h, Apply: backendProtocol, Closed: true, Want: "HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP", Note: "GRPC is HTTP/2 without TLS, GRPCS with; AUTO_HTTP is HTTP. FCGI and AJP are not supported, and close the rules (503)."},
		{Key: "secure-backends", Support: Translated, Apply: secureBackends, Want: wantBool, Note: "Of old releases: true is backend-protocol HTTPS."},
		{Key: "grpc-backend", Support: Translated, Apply: grpcBackend, Want: wantBool, Note: "Of old releases: true is backend-protocol GRPC."},
		{Key: "proxy-next-upstream", Support: h, Apply: nextUpstream, Want: "words out of error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429 non_idempotent off", Note: "When a request goes to another endpoint. A connection that could not be made is always tried elsewhere, with off too: nothing was sent. invalid_header is as error."},
		{Key: "proxy-next-upstream-tries", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.Policy.Retry.Tries }), Want: wantNumber, Note: "How many times a request may be lost or answered so; 3 unless given. 0, for no limit, is 3 too. Connections that could not be made do not count."},
		{Key: "proxy-next-upstream-timeout", Support: h, Apply: secondsOrNone(func(r *Reading) *duration { return (*duration)(&r.Policy.Retry.Within) }), Want: "a number of seconds; 0 for no limit", Note: "How long after its begin a request may go to another endpoint."},
		{Key: "load-balance", Support: h, Canary: true, Apply: loadBalance, Want: "round_robin, ewma, least_request, random, random_two, ip_hash or maglev", Note: "round_robin and ewma as there; least_conn is least_request, ip_hash is a ring by $remote_addr. Unless given: the one of two with fewer requests."},
		{Key: "upstream-hash-by", Support: h, Canary: true, Apply: setPlace(func(r *Reading) *string { return &r.HashBy }), Want: "text with variables, such as $request_uri", Note: "Consistent hashing (a ring) with bounded load."},
		{Key: "upstream-hash-by-subset", Support: h, Canary: true, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.HashSubset }), Note: "The requests of one hash go to upstream-hash-by-subset-size endpoints and not to one: to the one of them with the fewest requests."},
		{Key: "upstream-hash-by-subset-size", Support: h, Canary: true, Apply: setNumber(func(r *Reading) *int { return &r.SubsetSize }), Want: wantNumber, Note: "How many that are; 3 unless given, and at most 32."},
		{Key: "affinity", Support: h, Apply: oneOf(func(r *Reading) *string { return &r.AffinityKind }, "cookie"), Want: `"cookie"`, Note: "A cookie keeps a client at an endpoint."},
		{Key: "affinity-mode", Support: h, Apply: oneOf(func(r *Reading) *string { return &r.AffinityMode }, "balanced", "persistent"), Want: `"balanced" or "persistent"`, Note: "persistent: clients stay though others have fewer."},
		{Key: "affinity-canary-behavior", Support: h, Canary: true, Apply: oneOf(func(r *Reading) *string { return &r.Affinity.Canary }, "sticky", "legacy"), Want: `"sticky" or "legacy"`, Note: "sticky: who was at the canary stays there; legacy: the canary is decided anew for each request."},
		{Key: "session-cookie-name", Support: h, Apply: setHeaderName(func(r *Reading) *string { return &r.Affinity.Cookie }), Want: "the name of a cookie", Note: "INGRESSCOOKIE unless given."},
		{Key: "session-cookie-path", Support: h, Apply: setText(func(r *Reading) *string { return &r.Affinity.Path }), Want: "a path", Note: "/ unless given."},
		{Key: "session-cookie-domain", Support: h, Apply: setText(func(r *Reading) *string { return &r.Affinity.Domain }), Want: "a domain", Note: "None unless given."},
		{Key: "session-cookie-max-age", Support: h, Apply: secondsOrNone(func(r *Reading) *duration { return (*duration)(&r.Affinity.MaxAge) }), Want: "a number of seconds", Note: "A cookie of the session unless given."},
		{Key: "session-cookie-expires", Support: h, Apply: secondsOrNone(func(r *Reading) *duration { return (*duration)(&r.Affinity.Expires) }), Want: "a number of seconds", Note: "The same for old browsers."},
		{Key: "session-cookie-samesite", Support: h, Apply: oneOf(func(r *Reading) *string { return &r.Affinity.SameSite }, "None", "Lax", "Strict"), Want: "None, Lax or Strict", Note: "None unless given."},
		{Key: "session-cookie-conditional-samesite-none", Support: Translated, Want: wantBool, Apply: checkBool, Note: "Browsers that misread SameSite=None are gone; the attribute is always sent."},
		{Key: "session-cookie-secure", Support: h, Apply: cookieSecure, Want: wantBool, Note: "Unless given: on https only."},
		{Key: "session-cookie-change-on-failure", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Affinity.OnFailure }), Note: "A client gets another endpoint for good when its own failed."},
		{Key: "session-cookie-partitioned", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.Affinity.Partitioned }), Note: "The attribute Partitioned of the cookie."},
		{Key: "session-cookie-hash", Support: Translated, Note: "Of old releases: the cookie's value has a form of its own."},
		{Key: "service-upstream", Support: h, Want: wantBool, Apply: setBool(func(r *Reading) *bool { return &r.ServiceUpstream }), Note: "Requests go to the cluster address of the Service and not to its endpoints: no retries elsewhere, no affinity."},
		{Key: "proxy-ssl-secret", Support: h, Closed: true, Apply: setText(func(r *Reading) *string { return &r.ProxySecret }), Want: "namespace/name of a Secret", Note: "Certificate (tls.crt, tls.key) and authorities (ca.crt) for TLS towards endpoints."},
		{Key: "proxy-ssl-verify", Support: h, Closed: true, Apply: onOff(func(r *Reading) *bool { return &r.ProxyVerify }), Want: `"on" or "off"`, Note: "on: the endpoint's certificate must be of the authorities in proxy-ssl-secret."},
		{Key: "proxy-ssl-verify-depth", Support: h, Apply: setNumber(func(r *Reading) *int { return &r.ProxyDepth }), Want: wantNumber, Note: "How many certificates there may be between the endpoint's and the authority, with proxy-ssl-verify; 0 is 1, and any number unless given."},
		{Key: "proxy-ssl-name", Support: h, Apply: setText(func(r *Reading) *string { return &r.ProxyName }), Want: "a host", Note: "The name in TLS towards endpoints, which their certificate must have."},
		{Key: "proxy-ssl-server-name", Support: Translated, Apply: onOff(func(r *Reading) *bool { return &r.ignored }), Want: `"on" or "off"`, Note: "The name is always sent if there is one (proxy-ssl-name)."},
		{Key: "proxy-ssl-ciphers", Support: Unsupported, Note: "The ciphers are those of the Go library, which has no weak ones. Remove it."},
		{Key: "proxy-ssl-protocols", Support: h, Apply: protocols, Want: "words out of TLSv1.2 TLSv1.3 (older ones have no effect)", Note: "The versions of TLS towards endpoints; 1.2 and 1.3 unless given."},
		{Key: "proxy-redirect-from", Support: h, Apply: redirectFrom, Want: `what Location begins with, a regular expression (RE2) after ~ (~* without regard to case), or "off"`, Note: "Location and Refresh of responses that begin so begin with proxy-redirect-to instead; of an expression all is replaced. default is off: there is no address of nginx in them."},
		{Key: "proxy-redirect-to", Support: h, Apply: setPlace(func(r *Reading) *string { return &r.RedirectTo }), Want: `text with variables and $1 to $9, or "off"`, Note: "See proxy-redirect-from."},
		{Key: "proxy-cookie-domain", Support: h, Apply: replacement(func(r *Reading) **route.Replacement { return &r.Policy.CookieDomain }, true), Want: `"FROM TO", FROM may be a regular expression after ~; or "off"`, Note: "The Domain FROM of cookies that endpoints set becomes TO."},
		{Key: "proxy-cookie-path", Support: h, Apply: replacement(func(r *Reading) **route.Replacement { return &r.Policy.CookiePath }, false), Want: `"FROM TO", FROM may be a regular expression after ~ or ~*; or "off"`, Note: "The Path of cookies that endpoints set begins with TO where it began with FROM."},
		{Key: "enable-opentelemetry", Support: Translated, Want: wantBool, Apply: checkBool, Note: "traceparent is always carried on; the gateway makes no spans of its own."},
		{Key: "opentelemetry-trust-incoming-span", Support: Translated, Want: wantBool, Apply: checkBool, Note: "A traceparent that came is carried on."},
		{Key: "opentelemetry-operation-name", Support: Unsupported, Note: "The gateway makes no spans of its own. Remove it."},
	}
}

// refusedKeys are those that have no place here.
func refusedKeys() []Annotation {
	snippet := func(what string) string {
		return "Snippets are configuration of nginx, and let whoever may write an Ingress read every Secret (CVE-2021-25742). It is ignored. " + what
	}
	var out []Annotation
	add := func(note string, keys ...string) {
		for _, k := range keys {
			out = append(out, Annotation{Key: k, Support: Unsupported, Note: note})
		}
	}
	add(snippet("For fields of responses use custom-headers; for redirects, addresses and the like their annotations."), "configuration-snippet", "server-snippet")
	add(snippet("Streams are no business of an Ingress; use a Service of type LoadBalancer."), "stream-snippet")
	add("There is no ModSecurity here. Put a web application firewall in front, or behind as a Service.", "enable-modsecurity", "enable-owasp-core-rules", "modsecurity-transaction-id", "modsecurity-snippet")
	out = append(out, Annotation{Key: "auth-snippet", Support: Unsupported, Closed: true,
		Note: snippet("It was part of an authentication, so the rules are closed (503) until it is removed. For fields of the question use auth-proxy-set-headers.")})
	add("Requests are not copied to a second place.", "mirror-target", "mirror-host", "mirror-request-body")
	add("Bytes a second are not limited. Use limit-rps or limit-connections.", "limit-rate", "limit-rate-after")
	add("There is no store of counters for several gateways. Use limit-rps on each.", "global-rate-limit", "global-rate-limit-window", "global-rate-limit-key", "global-rate-limit-ignored-cidrs")
	add("FastCGI is not spoken. Put a web server beside the application.", "fastcgi-index", "fastcgi-params-configmap")
	add("Browsers have removed HTTP/2 push. Remove it.", "http2-push-preload")
	add("The gateway sets Connection itself. Remove it.", "connection-proxy-header")
	add("The ciphers are those of the Go library, which has no weak ones. Remove it.", "ssl-ciphers")
	out = append(out, Annotation{Key: "ssl-prefer-server-ciphers", Support: Translated, Apply: checkBool, Want: wantBool,
		Note: "The gateway always chooses, by what is fast on both sides."})
	add("Gone from ingress-nginx too. traceparent is carried on.", "enable-opentracing", "opentracing-trust-incoming-span")
	add("Gone from ingress-nginx too. Read the gateway's metrics.", "enable-influxdb", "influxdb-measurement", "influxdb-port", "influxdb-host", "influxdb-server-name")
	add("Gone from ingress-nginx too. Let the application use X-Forwarded-Prefix.", "add-base-url", "base-url-scheme")
	return out
}
