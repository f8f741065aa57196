package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/door/process"
	"github.com/fingerpost/fingerpost/door/process/claim"
	"github.com/fingerpost/fingerpost/internal/observe"
)

// doorCLI is the door of claims made on the command line.
const doorCLI = "cli"

// keepAliveTTL is the TTL of --keep-alive unless told otherwise.
const keepAliveTTL = 15 * time.Second

type registerFlags struct {
	ports       []string
	servicePort int32
	id          string
	ttl         time.Duration
	check       checkFlags
	state       string
	reason      string
	keepAlive   bool
	place       placeFlags
}

func (a *App) registerCmd() *cobra.Command {
	var f registerFlags
	c := &cobra.Command{
		Use:   "register NAME --address IP --port PORT [flags]",
		Short: "Register an endpoint on behalf of something that runs elsewhere",
		Long: `Register an endpoint of a service, which is created when it does not exist.

The registration stays until 'fingerpost deregister'. With --ttl it must be
renewed ('fingerpost renew', or PUT to the Instance's renew subresource), or it
goes out; --keep-alive stays, renews, and deregisters when stopped. With
--check the server checks the endpoint itself: http:/path, http:PORT/path,
https:..., tcp, tcp:PORT, grpc, grpc:SERVICE.

Registering again changes the registration: --state OutOfService takes the
endpoint out without losing it, --state Up brings it back.`,
		Example: `  fingerpost register db --address 10.1.2.3 --port 5432 --check tcp
  fingerpost register web --address 10.1.2.4 --port http=8080 --check http:/healthz --zone eu-1a --meta version=2
  fingerpost register web --address 127.0.0.1 --port 8080 --keep-alive`,
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.register(cmd.Context(), args[0], &f) },
	}
	fl := c.Flags()
	fl.StringArrayVar(&f.ports, "port", nil, "port it listens on: [NAME=]NUMBER[/udp]; may be repeated")
	fl.Int32Var(&f.servicePort, "service-port", 0, "first port of the service, if it is to differ")
	fl.StringVar(&f.id, "id", "", "name of the registration (default NAME/IP:PORT)")
	fl.DurationVar(&f.ttl, "ttl", 0, "longest time between two renewals (default: none are needed; 15s with --keep-alive)")
	f.check.add(c, "check", "the server does (default none)", 3)
	fl.StringVar(&f.state, "state", string(v1alpha1.ClaimUp), "Up, Starting, Down, OutOfService or Terminating")
	fl.StringVar(&f.reason, "reason", "", "why, when it is not Up")
	fl.BoolVar(&f.keepAlive, "keep-alive", false, "stay, renew the registration, and remove it when stopped")
	f.place.add(c)
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(claimStates(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func claimStates() []string {
	return []string{
		string(v1alpha1.ClaimUp), string(v1alpha1.ClaimStarting), string(v1alpha1.ClaimDown),
		string(v1alpha1.ClaimOutOfService), string(v1alpha1.ClaimTerminating),
	}
}

// instance turns what was typed into the Instance with the one claim.
func (f *registerFlags) instance(service, namespace string) (*v1alpha1.Instance, error) {
	if e := validation.IsDNS1035Label(service); e != nil {
		return nil, fmt.Errorf("service name %q: %s; %q would do", service, strings.Join(e, ", "), v1alpha1.Slug(service))
	}
	if len(f.ports) == 0 {
		return nil, errors.New("--port is missing: the port that it listens on")
	}
	addr, err := parseAddress(f.place.address)
	if err != nil {
		return nil, err
	}
	in := &v1alpha1.Instance{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: map[string]string{v1alpha1.LabelService: service}},
		Spec: v1alpha1.InstanceSpec{
			Service: service, Address: addr.String(), Zone: f.place.zone, NodeName: f.place.node,
			Hostname: f.place.hostname, Weight: &f.place.weight, Metadata: f.place.meta,
		},
	}
	if in.Spec.NodeName == "" && addr.IsLoopback() {
		in.Spec.NodeName = process.NodeName() // it means nothing anywhere else
	}
	for _, s := range f.ports {
		p, err := process.ParsePort(s)
		if err != nil {
			return nil, fmt.Errorf("--port: %w", err)
		}
		if p.Number == 0 {
			return nil, fmt.Errorf("--port %q: want the number it listens on", s)
		}
		in.Spec.Ports = append(in.Spec.Ports, v1alpha1.InstancePort{Name: p.Name, Port: p.Number, Protocol: p.Protocol})
	}
	if f.servicePort != 0 {
		in.Annotations = map[string]string{v1alpha1.AnnotationServicePort: strconv.Itoa(int(f.servicePort))}
	}
	if in.Spec.Check, err = f.check.server(); err != nil {
		return nil, err
	}
	state := v1alpha1.ClaimState("")
	for _, s := range claimStates() {
		if strings.EqualFold(s, f.state) {
			state = v1alpha1.ClaimState(s)
		}
	}
	if state == "" {
		return nil, fmt.Errorf("--state %q: want one of %s", f.state, strings.Join(claimStates(), ", "))
	}
	if f.ttl == 0 && f.keepAlive {
		f.ttl = keepAliveTTL
	}
	if f.ttl < 0 || f.ttl > 0 && f.ttl < time.Second {
		return nil, fmt.Errorf("--ttl %s: must be at least 1s", f.ttl)
	}
	in.Name = v1alpha1.InstanceName(service, in.Spec.Address, in.Spec.Ports[0].Port)
	if f.id == "" {
		f.id = claimID(service, addr, in.Spec.Ports[0].Port)
	}
	mine := v1alpha1.Claim{Door: doorCLI, ID: f.id, Origin: process.NodeName(), State: state, Reason: f.reason}
	if f.ttl > 0 {
		mine.TTL = &metav1.Duration{Duration: f.ttl}
	}
	in.Spec.Claims = []v1alpha1.Claim{mine}
	return in, nil
}

// claimID is the name of a registration that was given none.
func claimID(service string, addr netip.Addr, port int32) string {
	return service + "/" + net.JoinHostPort(addr.String(), strconv.Itoa(int(port)))
}

// server is the check as the server does it.
func (f *checkFlags) server() (*v1alpha1.Check, error) {
	c, err := f.parse()
	switch {
	case err != nil:
		return nil, fmt.Errorf("--check: %w", err)
	case c.Type == "":
		return nil, nil
	case c.Type == v1alpha1.CheckExec:
		return nil, fmt.Errorf("--check %q: the server runs no commands; 'fingerpost run' does, beside the process", f.check)
	case f.interval < 100*time.Millisecond || f.timeout <= 0 || f.timeout > f.interval:
		return nil, fmt.Errorf("--check-interval %s, --check-timeout %s: the interval must be at least 100ms and not shorter than the timeout", f.interval, f.timeout)
	case f.rise < 1 || f.fall < 1:
		return nil, fmt.Errorf("--check-rise %d, --check-fall %d: must be at least 1", f.rise, f.fall)
	}
	out := &v1alpha1.Check{
		Type: c.Type, Path: c.Path, Service: c.Service, Rise: int32(f.rise), Fall: int32(f.fall),
		Interval: &metav1.Duration{Duration: f.interval}, Timeout: &metav1.Duration{Duration: f.timeout},
	}
	if c.Type == v1alpha1.CheckHTTP {
		out.Scheme = c.Scheme
	}
	if c.Port != "" {
		p := intstr.Parse(c.Port)
		out.Port = &p
	}
	return out, nil
}

func (a *App) register(ctx context.Context, service string, f *registerFlags) error {
	in, err := f.instance(service, a.ns())
	if err != nil {
		return exitWith(ExitUsage, "%w", err)
	}
	conn, err := a.restConfig()
	if err != nil {
		return err
	}
	api, err := instances(conn)
	if err != nil {
		return err
	}
	if f.keepAlive {
		return a.keepAlive(ctx, api, in, f)
	}
	got, err := claim.Put(ctx, api, in, nil)
	if err != nil {
		return apiError("register "+instanceRef(in), err)
	}
	_, err = fmt.Fprintf(a.Out, "%s registered as %s\n", instanceRef(got), got.Name)
	return err
}

// keepAlive holds the registration until ctx ends. The server may come and go.
func (a *App) keepAlive(ctx context.Context, api claim.Client, in *v1alpha1.Instance, f *registerFlags) error {
	log, err := observe.Logger(a.Err, "text", "info")
	if err != nil {
		return err
	}
	k := claim.NewKeeper(api, doorCLI, f.id, f.ttl, log.With(slog.String("endpoint", instanceRef(in))))
	kctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{})
	go func() { k.Run(kctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	select {
	case <-k.Set(in):
		if _, err := fmt.Fprintf(a.Out, "%s registered as %s\n", instanceRef(in), in.Name); err != nil {
			return err
		}
		<-ctx.Done()
	case <-ctx.Done():
	}
	t := time.NewTimer(3 * time.Second)
	defer t.Stop()
	select {
	case <-k.Set(nil):
		return nil
	case <-t.C:
		return exitWith(ExitUnavailable, "deregister %s: the server does not answer; the endpoint goes out after %s", instanceRef(in), f.ttl)
	}
}

// apiError is what a person needs of an error of the API, with the exit code.
func apiError(what string, err error) error {
	code := ExitError
	switch {
	case apierrors.IsNotFound(err):
		code = ExitNotFound
	case claim.Unreachable(err):
		return exitWith(ExitUnavailable, "%s: the server cannot be reached: %w\nIs it running? 'fingerpost dev' starts one.", what, err)
	}
	return exitWith(code, "%s: %w", what, err)
}
