package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TCP passes when a connection can be made.
func TCP(ctx context.Context, t Target) Result {
	patience := patience(ctx)
	c, err := new(net.Dialer).DialContext(ctx, "tcp", t.hostPort())
	if err != nil {
		return gaveUp(ctx, patience, err)
	}
	_ = c.Close()
	return passed("connected to " + t.hostPort())
}

const (
	maxBody      = 10 << 10
	maxRedirects = 10
)

// HTTP sends GET and passes on a status from 200 to 399. Like the prober of
// Kubernetes it follows redirects on the same host only: one that leads
// elsewhere is no failure, as the target did answer.
func HTTP(ctx context.Context, t Target) Result {
	u, err := url.Parse(t.Path)
	if err != nil || u.Host != "" || u.Scheme != "" {
		return failed(fmt.Sprintf("bad path %q: give a path such as /healthz", t.Path))
	}
	u.Scheme, u.Host = "http", t.hostPort()
	config := &tls.Config{InsecureSkipVerify: true} // the target is asked whether it lives, not who it is
	if t.TLS {
		u.Scheme = "https"
		if host, _, err := net.SplitHostPort(t.Host); err == nil {
			config.ServerName = host
		} else {
			config.ServerName = t.Host
		}
	}
	if u.Path == "" {
		u.Path = "/"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return failed(err.Error())
	}
	req.Host = t.Host
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")

	client := http.Client{
		Transport: &http.Transport{
			DialContext:        new(net.Dialer).DialContext,
			TLSClientConfig:    config,
			ForceAttemptHTTP2:  true,
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return fmt.Errorf("stopped after %d redirects", maxRedirects)
			}
			return nil
		},
	}
	patience := patience(ctx)
	res, err := client.Do(req)
	if err != nil {
		var in *url.Error // its text begins with the whole URL
		if errors.As(err, &in) {
			err = in.Err
		}
		return gaveUp(ctx, patience, err)
	}
	defer res.Body.Close()
	// An answer that breaks off in the middle is none.
	if _, err := io.CopyN(io.Discard, res.Body, maxBody); err != nil && err != io.EOF {
		return gaveUp(ctx, patience, err)
	}
	switch {
	case res.StatusCode < 200 || res.StatusCode > 399:
		return failed("HTTP " + res.Status)
	case res.StatusCode >= 300 && res.Header.Get("Location") != "":
		return passed("HTTP " + res.Status + ", warning: the redirect to another host was not followed")
	default:
		return passed("HTTP " + res.Status)
	}
}

// GRPC asks grpc.health.v1.Health/Check and passes on SERVING.
func GRPC(ctx context.Context, t Target) Result {
	creds := insecure.NewCredentials()
	if t.TLS {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, ServerName: t.Host})
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent(userAgent),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
	}
	if t.Host != "" {
		options = append(options, grpc.WithAuthority(t.Host))
	}
	conn, err := grpc.NewClient("passthrough:///"+t.hostPort(), options...)
	if err != nil {
		return failed(err.Error())
	}
	defer conn.Close()
	patience := patience(ctx)
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: t.Service})
	switch s := status.Convert(err); {
	case err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_SERVING:
		return passed("gRPC SERVING")
	case err == nil:
		return failed("gRPC " + answer.GetStatus().String())
	case s.Code() == codes.Unimplemented:
		return failed("the server does not implement grpc.health.v1.Health: register the health service or check with tcp")
	case s.Code() == codes.NotFound:
		return failed(fmt.Sprintf("the server's health service does not know %q", t.Service))
	case s.Code() == codes.DeadlineExceeded:
		return gaveUp(ctx, patience, context.DeadlineExceeded)
	case s.Code() == codes.Canceled:
		return gaveUp(ctx, patience, context.Canceled)
	default:
		return gaveUp(ctx, patience, errors.New("gRPC "+s.Code().String()+": "+s.Message()))
	}
}
