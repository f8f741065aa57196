package route

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"regexp"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Update is what a source tells the gateway: what changed since the last one.
// Whoever hands it over does not change it any more.
type Update struct {
	// Hosts by name, all lower case: "shop.example.com", "*.example.com" or ""
	// for every host. nil removes one.
	Hosts map[string]*Host
	// Certificates by the object they come from; nil removes one.
	Certificates map[string]*Certificate
	// Global replaces what is not of a host; nil: unchanged.
	Global *Global
	// Replace: what is not named here is removed.
	Replace bool
}

// Global is what is not of one host.
type Global struct {
	// Default takes what no rule matches; nil: the gateway's own 404.
	Default *Backend
	// Certificate is for TLS without a better one; nil: a self-signed one.
	Certificate *tls.Certificate
}

// Certificate is one with the names that it may be shown for.
type Certificate struct {
	Origin Origin   // the Secret
	Hosts  []string // lower case, "*.example.com" allowed
	Chain  *tls.Certificate
}

// Origin says where something was declared.
type Origin struct {
	Kind, Namespace, Name string
	Rule                  int // its number in the object, -1: not of a rule
}

// Host is all that one host name has.
type Host struct {
	Name  string
	Rules []Rule
	// TLS: there is a certificate for it, which ssl-redirect looks at.
	TLS bool
	// ClientCert asks clients for a certificate; nil: not.
	ClientCert *ClientCert
	// Passthrough: TLS is not ended here but carried to this backend; nil: ended.
	Passthrough *Backend
}

// Rule sends a part of a host's requests somewhere.
type Rule struct {
	Origin Origin
	Path   Path
	// Method, Headers and Query are further conditions, all of which must hold.
	Method  string // "": any
	Headers []ValueMatch
	Query   []ValueMatch
	// Backends take requests in proportion to weight. None: 503.
	Backends []Backend
	// Canaries are asked before Backends, in order.
	Canaries []Canary
	// Redirect answers by itself; nil: not.
	Redirect *Redirect
	Policy   *Policy // never nil after Build
	// Problem says why the rule cannot work ("the service default/web does not
	// exist"); the answer is 503. "": it can.
	Problem string
}

// PathKind is how a path matches.
type PathKind uint8

// The kinds of path matches.
const (
	Prefix PathKind = iota // by elements
	Exact
	Regex // at the begin, without regard to case
	// StringPrefix is a prefix of the text, not of elements, as a location of
	// nginx without modifier: "/foo" takes "/foobar" too.
	StringPrefix
)

// Path matches the path of a request, without query.
type Path struct {
	Kind  PathKind
	Value string // begins with "/" unless Regex
	Regex *regexp.Regexp
}

// ValueMatch is a condition on a header or a query parameter.
type ValueMatch struct {
	Name    string
	Value   string         // equal, unless Regex or Present
	Regex   *regexp.Regexp // the whole value
	Present bool           // any value
	Not     bool
}

// Backend is a port of a service.
type Backend struct {
	Service catalog.Key
	Port    string // name or number of the service's port; "": its only one
	Weight  uint32
	// External is of an ExternalName service that may be used: "host:port".
	External string
}

// Canary is a second version of a rule's backends (the canary annotations).
type Canary struct {
	Origin   Origin
	Backends []Backend
	Policy   *Policy // nil: that of the rule
	// Header: its value "always" chooses the canary, "never" does not; with
	// HeaderValue that value chooses it, with HeaderPattern one that matches.
	// A header that decides nothing leaves it to the cookie, and that to the weight.
	Header        string
	HeaderValue   string
	HeaderPattern *regexp.Regexp
	Cookie        string // "always", "never"
	Weight        uint32
	Total         uint32 // of Weight; 0: 100
}

// Redirect answers with another place.
type Redirect struct {
	Status int // 301, 302, 303, 307, 308
	// URL is where; it may refer to $scheme, $host, $request_uri, $1 …
	URL string
}

// Protocol is what an endpoint speaks.
type Protocol uint8

// The protocols of endpoints.
const (
	HTTP  Protocol = iota // HTTP/1.1
	HTTPS                 // HTTP/1.1, or 2 if it wants, in TLS
	H2C                   // HTTP/2 without TLS: also GRPC
	H2                    // HTTP/2 in TLS: also GRPCS
)

// ClientCert is what is asked of clients in TLS.
type ClientCert struct {
	Roots    *x509.CertPool
	Required bool // else it is asked for, and a wrong or missing one is let in and told to the backend
	Depth    int
	ErrorURL string // where clients without a valid certificate are sent; "": 400 or 403
	Pass     bool   // the certificate is passed to the backend (ssl-client-cert)
	// Match must be found in the subject of the certificate ("CN=web,O=Shop"), whether
	// one is Required or not; nil: any will do.
	Match *regexp.Regexp
}

// Policy is how the requests of a rule are treated. The zero value is what
// Ingress says: nothing special. Durations of 0 mean the gateway's default.
type Policy struct {
	SSLRedirect      bool // to https, if the host has TLS
	ForceSSLRedirect bool // to https in any case
	RedirectStatus   int  // of these two; 0: 308

	Rewrite        *string // the new path, with $1 … of a Regex path; nil: as it is
	AppRoot        string  // where "/" is redirected to
	UpstreamHost   string  // Host towards the endpoint; "": the client's
	ForwardPrefix  string  // X-Forwarded-Prefix
	RequestFields  []FieldEdit
	ResponseFields []FieldEdit

	Protocol       Protocol
	EndpointTLS    *EndpointTLS
	ConnectTimeout time.Duration
	ReadTimeout    time.Duration // between two reads from the endpoint
	SendTimeout    time.Duration
	BodyLimit      int64 // bytes; 0: default, -1: no limit
	BufferRequest  bool  // read the whole body before an endpoint is chosen
	BufferResponse bool
	Retry          Retry
	Balance        Balance
	Affinity       *Affinity
	Allow, Deny    []netip.Prefix // Allow empty: everybody
	Basic          *BasicAuth
	Auth           *ExternalAuth
	// SatisfyAny: one of Allow, Basic and Auth is enough. Else all must agree.
	SatisfyAny       bool
	CORS             *CORS
	Limit            *Limit
	CustomErrors     []int    // statuses of endpoints for which Errors answers
	Errors           *Backend // also takes requests when there is no endpoint
	DisableAccessLog bool
	// Location, CookieDomain and CookiePath change what endpoints say in Location and
	// Refresh, and in the attributes of Set-Cookie; nil: nothing.
	Location, CookieDomain, CookiePath *Replacement
}

// Replacement puts To in the place of what a value begins with (for a domain: what
// it is), or of what Regex finds. To may refer to variables, and to $1 … of Regex.
type Replacement struct {
	From  string
	Regex *regexp.Regexp // in the place of From
	To    string
}

// FieldEdit changes a field.
type FieldEdit struct {
	Name, Value string
	Op          Op
}

// Op is what a FieldEdit does.
type Op uint8

// The operations on fields.
const (
	Set Op = iota
	Add
	Remove
)

// EndpointTLS is TLS towards endpoints.
type EndpointTLS struct {
	ServerName  string
	Roots       *x509.CertPool // nil: any certificate will do
	Certificate *tls.Certificate
	// MinVersion and MaxVersion of TLS; 0: those of the gateway.
	MinVersion, MaxVersion uint16
	// Depth is how many certificates there may be between that of the endpoint and
	// an authority, with Roots; -1: any number.
	Depth int
}

// Retry is when a request goes to another endpoint. Connections that could not
// be made are always tried elsewhere.
type Retry struct {
	Off           bool
	On            []int // statuses, such as 502, 503
	Reset         bool  // connection lost before a response (idempotent methods); default true by Build
	TimeOut       bool
	NonIdempotent bool
	Tries         int           // 0: 3
	Within        time.Duration // 0: no limit
}

// Balance is how an endpoint is chosen.
type Balance struct {
	Algorithm string // "" (random two, least request), round_robin, random, least_request, ewma, ring_hash, maglev
	// HashBy is what ring_hash and maglev hash: "$request_uri", "$remote_addr",
	// "$host", "$http_NAME", "$cookie_NAME", "$arg_NAME", and text around them.
	HashBy string
	// Bounded limits how much more than the mean load one endpoint may have, in
	// per cent; 0: 125 for hashes.
	Bounded int
	// Subset: with ring_hash so many endpoints share the requests of one hash; 0: one.
	Subset int
}

// Affinity keeps a client at an endpoint by a cookie.
type Affinity struct {
	Cookie     string
	Path       string
	Domain     string
	MaxAge     time.Duration
	Expires    time.Duration
	SameSite   string
	Secure     *bool
	Persistent bool // stay with an endpoint although others have fewer clients
	// Partitioned: the cookie is kept for each site that embeds this one (CHIPS).
	Partitioned bool
	OnFailure   bool // a new cookie when the endpoint failed
	Canary      string
}

// BasicAuth asks for a name and password.
type BasicAuth struct {
	Realm string
	// Users gives the hash of a user's password: bcrypt, $apr1$, $5$, $6$, {SHA} or
	// plain.
	Users map[string]string
	// Problem: nobody may pass, because the secret is not there.
	Problem string
}

// ExternalAuth asks another server about each request.
type ExternalAuth struct {
	URL             string // http or https; may refer to $host, $request_uri …
	Method          string // "": GET
	SignIn          string // where a 401 is redirected to; "": the 401
	SignInParam     string // "": rd
	ResponseFields  []string
	RequestRedirect string
	CacheKey        string
	CacheDuration   time.Duration
	AlwaysSetCookie bool
	RequestFields   []FieldEdit
	// Backend is the service of a URL that names one in this cluster.
	Backend *Backend
}

// CORS answers for browsers (Fetch standard).
type CORS struct {
	Origins     []string // "*", "https://a.example.com", "https://*.example.com"
	Methods     string
	Headers     string
	Expose      string
	Credentials bool
	MaxAge      int
}

// Limit bounds one client address. 0: no limit.
type Limit struct {
	RPS, RPM    int
	Burst       int // multiplier; 0: 5
	Connections int
	Except      []netip.Prefix
	Status      int // 0: 503, as ingress-nginx
}
