package filter

import (
	"bytes"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	"github.com/fingerpost/fingerpost/wire/http"
)

// certNames are the fields that tell an endpoint about a client certificate. No
// client may send them, whatever the rule says: an application that trusts them
// would take anybody for anybody.
var certNames = []string{"ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert", "ssl-client-serial", "ssl-client-fingerprint"}

// identified asks for the certificate that the host wants.
func (c *Chain) identified(x *Exchange) *Answer {
	if !c.cert.Required && c.cert.Match == nil {
		return nil
	}
	if !x.Peer.TLS {
		// Nobody can show a certificate here. The redirect is for those who came
		// to the wrong port; behind a proxy that ended TLS there is no way.
		if !x.https {
			return c.toHTTPS(x, "client-certificate")
		}
		return c.unidentified(x)
	}
	if !x.sameName() {
		// The certificate was checked for the host of the handshake, not for this
		// one. Browsers that share a connection between hosts open another one.
		return x.reply(421, "client-certificate")
	}
	id := x.Peer.Client
	if c.cert.Required && (id == nil || !id.Verified) {
		return c.unidentified(x)
	}
	// What a certificate that nobody signed says of itself is anybody's text.
	if c.cert.Match != nil && (id == nil || !id.Verified || !c.cert.Match.MatchString(id.Subject)) {
		a := x.reply(403, "client-certificate")
		a.Body = bytesOf("403 The client certificate is of somebody else\n")
		return a
	}
	return nil
}

// sameName says that the request is for the host of the handshake.
func (x *Exchange) sameName() bool {
	return http.EqualFold(bytesOf(x.Peer.ServerName), bytes.TrimSuffix(hostname(x.Authority), []byte(".")))
}

func (c *Chain) unidentified(x *Exchange) *Answer {
	if c.cert.ErrorURL != "" && clean([]byte(c.cert.ErrorURL)) {
		return x.redirect(302, bytesOf(c.cert.ErrorURL), "client-certificate")
	}
	a := x.reply(400, "client-certificate")
	a.Body = bytesOf("400 No valid client certificate was sent\n")
	if x.Peer.Client == nil {
		a.Body = bytesOf("400 No required client certificate was sent\n")
	}
	return a
}

// tellCertificate tells the endpoint what the client showed.
func (c *Chain) tellCertificate(x *Exchange, r *http.Request) {
	if !x.Peer.TLS {
		return
	}
	f := &r.Fields
	add := func(name, value string) {
		if v := bytesOf(value); value != "" {
			if !clean(v) { // a name in a certificate is anybody's text
				start := len(x.buf)
				x.buf = appendValue(x.buf, v)
				v = x.buf[start:len(x.buf):len(x.buf)]
			}
			*f = append(*f, http.Field{Name: bytesOf(name), Value: v})
		}
	}
	if !x.sameName() { // what was checked for another host says nothing about this one
		add("ssl-client-verify", "NONE")
		return
	}
	add("ssl-client-verify", verdict(x.Peer))
	if id := x.Peer.Client; id != nil {
		add("ssl-client-subject-dn", id.Subject)
		add("ssl-client-issuer-dn", id.Issuer)
		if c.cert.Pass {
			add("ssl-client-cert", id.PEM)
		}
	}
}

// verdict is nginx' $ssl_client_verify.
func verdict(p *stream.Peer) string {
	switch id := p.Client; {
	case id == nil:
		return "NONE"
	case id.Verified:
		return "SUCCESS"
	default:
		return "FAILED:" + id.Problem
	}
}

func certificate(p *stream.Peer, v variable) string {
	if p.Client == nil {
		if v == certVerify {
			return "NONE"
		}
		return ""
	}
	switch v {
	case certSubject:
		return p.Client.Subject
	case certIssuer:
		return p.Client.Issuer
	case certSerial:
		return p.Client.Serial
	case certDigest:
		return p.Client.Digest
	case certVerify:
		return verdict(p)
	}
	return ""
}
