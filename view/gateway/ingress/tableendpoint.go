package ingress

// endpointKeys are those on how endpoints are chosen and spoken to.
func endpointKeys() []Annotation {
	h := Honoured
	memory := "Bodies are streamed with bounded memory; there is no size to set and no temporary file."
	return []Annotation{
		{Key: "proxy-connect-timeout", Support: h, apply: seconds(func(r *reading) *duration { return (*duration)(&r.policy.ConnectTimeout) }), want: wantSeconds, Note: "How long a connection to an endpoint may take to be made."},
		{Key: "proxy-read-timeout", Support: h, apply: seconds(func(r *reading) *duration { return (*duration)(&r.policy.ReadTimeout) }), want: wantSeconds, Note: "How long an endpoint may be silent."},
		{Key: "proxy-send-timeout", Support: h, apply: seconds(func(r *reading) *duration { return (*duration)(&r.policy.SendTimeout) }), want: wantSeconds, Note: "How long an endpoint may take nothing."},
		{Key: "proxy-body-size", Support: h, apply: bodySize, want: "a size such as 8m, 512k or 1g; 0 for no limit", Note: "Larger bodies of requests get 413."},
		{Key: "proxy-buffering", Support: h, apply: onOff(func(r *reading) *bool { return &r.policy.BufferResponse }), want: `"on" or "off"`, Note: "Whether responses are read ahead of slow clients, within bounds."},
		{Key: "proxy-request-buffering", Support: h, apply: onOff(func(r *reading) *bool { return &r.policy.BufferRequest }), want: `"on" or "off"`, Note: "on: an endpoint is chosen when the body is there. Unless given, bodies are streamed."},
		{Key: "proxy-http-version", Support: Translated, apply: oneOf(func(r *reading) *string { return &r.unused }, "1.1"), want: `"1.1"`, Note: "Endpoints are always spoken to in 1.1 (or HTTP/2 by backend-protocol)."},
		{Key: "proxy-buffer-size", Support: Translated, Note: memory},
		{Key: "proxy-buffers-number", Support: Translated, Note: memory},
		{Key: "proxy-busy-buffers-size", Support: Translated, Note: memory},
		{Key: "proxy-max-temp-file-size", Support: Translated, Note: memory},
		{Key: "client-body-buffer-size", Support: Translated, Note: memory},
		{Key: "backend-protocol", Support: h, apply: backendProtocol, closed: true, want: "HTTP, HTTPS, GRPC, GRPCS or AUTO_HTTP", Note: "GRPC is HTTP/2 without TLS, GRPCS with; AUTO_HTTP is HTTP. FCGI and AJP are not supported, and close the rules (503)."},
		{Key: "secure-backends", Support: Translated, apply: secureBackends, want: wantBool, Note: "Of old releases: true is backend-protocol HTTPS."},
		{Key: "grpc-backend", Support: Translated, apply: grpcBackend, want: wantBool, Note: "Of old releases: true is backend-protocol GRPC."},
		{Key: "proxy-next-upstream", Support: h, apply: nextUpstream, want: "words out of error timeout invalid_header http_500 http_502 http_503 http_504 http_403 http_404 http_429 non_idempotent off", Note: "When a request goes to another endpoint. A connection that could not be made is always tried elsewhere, except with off; invalid_header is as error."},
		{Key: "proxy-next-upstream-tries", Support: h, apply: setNumber(func(r *reading) *int { return &r.policy.Retry.Tries }), want: wantNumber, Note: "How many endpoints are asked; 3 unless given. 0, for no limit, is 3 too."},
		{Key: "proxy-next-upstream-timeout", Support: h, apply: secondsOrNone(func(r *reading) *duration { return (*duration)(&r.policy.Retry.Within) }), want: "a number of seconds; 0 for no limit", Note: "How long after its begin a request may go to another endpoint."},
		{Key: "load-balance", Support: h, canary: true, apply: loadBalance, want: "round_robin, ewma, least_request, random, random_two, ip_hash or maglev", Note: "round_robin and ewma as there; least_conn is least_request, ip_hash is a ring by $remote_addr. Unless given: the one of two with fewer requests."},
		{Key: "upstream-hash-by", Support: h, canary: true, apply: setPlace(func(r *reading) *string { return &r.hashBy }), want: "text with variables, such as $request_uri", Note: "Consistent hashing (a ring) with bounded load."},
		{Key: "upstream-hash-by-subset", Support: Unsupported, Note: "One endpoint is chosen by hash, and the next ones when it has more than its share. Remove it."},
		{Key: "upstream-hash-by-subset-size", Support: Unsupported, Note: "See upstream-hash-by-subset."},
		{Key: "affinity", Support: h, apply: oneOf(func(r *reading) *string { return &r.affinityKind }, "cookie"), want: `"cookie"`, Note: "A cookie keeps a client at an endpoint."},
		{Key: "affinity-mode", Support: h, apply: oneOf(func(r *reading) *string { return &r.affinityMode }, "balanced", "persistent"), want: `"balanced" or "persistent"`, Note: "persistent: clients stay though others have fewer."},
		{Key: "affinity-canary-behavior", Support: h, canary: true, apply: oneOf(func(r *reading) *string { return &r.affinity.Canary }, "sticky", "legacy"), want: `"sticky" or "legacy"`, Note: "sticky: who was at the canary stays there; legacy: the canary is decided anew for each request."},
		{Key: "session-cookie-name", Support: h, apply: setHeaderName(func(r *reading) *string { return &r.affinity.Cookie }), want: "the name of a cookie", Note: "INGRESSCOOKIE unless given."},
		{Key: "session-cookie-path", Support: h, apply: setText(func(r *reading) *string { return &r.affinity.Path }), want: "a path", Note: "/ unless given."},
		{Key: "session-cookie-domain", Support: h, apply: setText(func(r *reading) *string { return &r.affinity.Domain }), want: "a domain", Note: "None unless given."},
		{Key: "session-cookie-max-age", Support: h, apply: secondsOrNone(func(r *reading) *duration { return (*duration)(&r.affinity.MaxAge) }), want: "a number of seconds", Note: "A cookie of the session unless given."},
		{Key: "session-cookie-expires", Support: h, apply: secondsOrNone(func(r *reading) *duration { return (*duration)(&r.affinity.Expires) }), want: "a number of seconds", Note: "The same for old browsers."},
		{Key: "session-cookie-samesite", Support: h, apply: oneOf(func(r *reading) *string { return &r.affinity.SameSite }, "None", "Lax", "Strict"), want: "None, Lax or Strict", Note: "None unless given."},
		{Key: "session-cookie-conditional-samesite-none", Support: Translated, want: wantBool, apply: checkBool, Note: "Browsers that misread SameSite=None are gone; the attribute is always sent."},
		{Key: "session-cookie-secure", Support: h, apply: cookieSecure, want: wantBool, Note: "Unless given: on https only."},
		{Key: "session-cookie-change-on-failure", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.affinity.OnFailure }), Note: "A client gets another endpoint for good when its own failed."},
		{Key: "session-cookie-partitioned", Support: Unsupported, Note: "The attribute Partitioned is not sent. Remove it."},
		{Key: "session-cookie-hash", Support: Translated, Note: "Of old releases: the cookie's value has a form of its own."},
		{Key: "service-upstream", Support: h, want: wantBool, apply: setBool(func(r *reading) *bool { return &r.serviceUpstream }), Note: "Requests go to the cluster address of the Service and not to its endpoints: no retries elsewhere, no affinity."},
		{Key: "proxy-ssl-secret", Support: h, closed: true, apply: setText(func(r *reading) *string { return &r.proxySecret }), want: "namespace/name of a Secret", Note: "Certificate (tls.crt, tls.key) and authorities (ca.crt) for TLS towards endpoints."},
		{Key: "proxy-ssl-verify", Support: h, closed: true, apply: onOff(func(r *reading) *bool { return &r.proxyVerify }), want: `"on" or "off"`, Note: "on: the endpoint's certificate must be of the authorities in proxy-ssl-secret."},
		{Key: "proxy-ssl-verify-depth", Support: Unsupported, Note: "Chains of any length are accepted if they end in the given authorities. Remove it."},
		{Key: "proxy-ssl-name", Support: h, apply: setText(func(r *reading) *string { return &r.proxyName }), want: "a host", Note: "The name in TLS towards endpoints, which their certificate must have."},
		{Key: "proxy-ssl-server-name", Support: Translated, apply: onOff(func(r *reading) *bool { return &r.ignored }), want: `"on" or "off"`, Note: "The name is always sent if there is one (proxy-ssl-name)."},
		{Key: "proxy-ssl-ciphers", Support: Unsupported, Note: "The ciphers are those of the Go library, which has no weak ones. Remove it."},
		{Key: "proxy-ssl-protocols", Support: Unsupported, Note: "TLS 1.2 and 1.3. Remove it."},
		{Key: "enable-opentelemetry", Support: Translated, want: wantBool, apply: checkBool, Note: "traceparent is always carried on; the gateway makes no spans of its own."},
		{Key: "opentelemetry-trust-incoming-span", Support: Translated, want: wantBool, apply: checkBool, Note: "A traceparent that came is carried on."},
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
	out = append(out, Annotation{Key: "auth-snippet", Support: Unsupported, closed: true,
		Note: snippet("It was part of an authentication, so the rules are closed (503) until it is removed. For fields of the question use auth-proxy-set-headers.")})
	add("Requests are not copied to a second place.", "mirror-target", "mirror-host", "mirror-request-body")
	add("Domains and paths of cookies are not rewritten. Let the application set them.", "proxy-cookie-domain", "proxy-cookie-path")
	add("Location fields of responses are not rewritten. Let the application use X-Forwarded-Host and -Proto.", "proxy-redirect-from", "proxy-redirect-to")
	add("Bytes a second are not limited. Use limit-rps or limit-connections.", "limit-rate", "limit-rate-after")
	add("There is no store of counters for several gateways. Use limit-rps on each.", "global-rate-limit", "global-rate-limit-window", "global-rate-limit-key", "global-rate-limit-ignored-cidrs")
	add("FastCGI is not spoken. Put a web server beside the application.", "fastcgi-index", "fastcgi-params-configmap")
	add("Browsers have removed HTTP/2 push. Remove it.", "http2-push-preload")
	add("The gateway sets Connection itself. Remove it.", "connection-proxy-header")
	add("The ciphers are those of the Go library, which has no weak ones. Remove it.", "ssl-ciphers", "ssl-prefer-server-ciphers")
	add("Gone from ingress-nginx too. traceparent is carried on.", "enable-opentracing", "opentracing-trust-incoming-span")
	add("Gone from ingress-nginx too. Read the gateway's metrics.", "enable-influxdb", "influxdb-measurement", "influxdb-port", "influxdb-host", "influxdb-server-name")
	add("Gone from ingress-nginx too. Let the application use X-Forwarded-Prefix.", "add-base-url", "base-url-scheme")
	return out
}
