package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	nodejoin "github.com/fingerpost/fingerpost/node/join"
)

// tokenPrefix begins the names of the Secrets that hold joining tokens, as
// Kubernetes has them.
const tokenPrefix = "bootstrap-token-"

type tokenFlags struct {
	ttl         time.Duration
	description string
	server      string
	quiet       bool
}

func (a *App) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make, list and delete the tokens with which nodes join"}
	var f tokenFlags
	create := &cobra.Command{
		Use:   "create",
		Short: "Make a token and print the command that makes another machine a node",
		Long: `Make a token, and print the command line that makes another machine a node of
this server. With the token a machine gets credentials of its own, once for each
name of a node; whoever has it can do that until it ends, so pass it on with care.
The hash in the line is that of the server's CA: the machine does not send the
token to any other server.`,
		Example: `  fingerpost token create
  ssh other-machine "$(fingerpost token create --ttl 10m)"`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.createToken(cmd.Context(), &f) },
	}
	create.Flags().DurationVar(&f.ttl, "ttl", 24*time.Hour, "how long the token is good; 0 for ever")
	create.Flags().StringVar(&f.description, "description", "", "what it is for; shown by 'token list'")
	create.Flags().StringVar(&f.server, "server", "", "URL at which the other machine reaches the server (default the address it advertises)")
	create.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print the token only")

	var out format
	list := &cobra.Command{
		Use: "list", Short: "List the tokens; their secret part is not shown", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listTokens(cmd.Context(), out) },
	}
	formatFlag(list, &out, formatTable, formatName)
	del := &cobra.Command{
		Use: "delete ID...", Short: "Delete tokens; nodes that joined with them stay", Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.deleteTokens(cmd.Context(), args) },
	}
	cmd.AddCommand(create, list, del)
	return cmd
}

func (a *App) kube() (*kubernetes.Clientset, *rest.Config, error) {
	cfg, err := a.restConfig()
	if err != nil {
		return nil, nil, err
	}
	c, err := kubernetes.NewForConfig(cfg)
	return c, cfg, err
}

func (a *App) createToken(ctx context.Context, f *tokenFlags) error {
	if f.ttl < 0 {
		return exitWith(ExitUsage, "--ttl %s: want a time to come, or 0", f.ttl)
	}
	client, cfg, err := a.kube()
	if err != nil {
		return err
	}
	var hash string
	if !f.quiet {
		if hash, err = caHash(cfg); err != nil {
			return err
		}
	}
	id, secret := randomText(6), randomText(16)
	data := map[string]string{
		"token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true", "auth-extra-groups": nodejoin.Group, "description": f.description,
	}
	if f.ttl > 0 {
		data["expiration"] = time.Now().Add(f.ttl).UTC().Format(time.RFC3339)
	}
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: tokenPrefix + id}, Type: corev1.SecretTypeBootstrapToken, StringData: data,
	}, metav1.CreateOptions{}); err != nil {
		return apiError("make a token", err)
	}
	token := id + "." + secret
	if f.quiet {
		_, err = fmt.Fprintln(a.Out, token)
		return err
	}
	server := f.server
	if server == "" {
		server = reachable(ctx, client, cfg.Host)
	}
	if u, err := url.Parse(server); err == nil && isLoopback(u.Hostname()) {
		fmt.Fprintf(a.Err, "The server listens on this machine only. For other machines, start it with --listen 0.0.0.0:6443, or say with --server where they reach it.\n")
	}
	_, err = fmt.Fprintf(a.Out, "fingerpost node --server %s --token %s --ca-hash %s\n", server, token, hash)
	return err
}

// caHash is the hash of the CA of a kubeconfig.
func caHash(cfg *rest.Config) (string, error) {
	ca := cfg.CAData
	if len(ca) == 0 && cfg.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(cfg.CAFile); err != nil {
			return "", fmt.Errorf("read the CA of the kubeconfig: %w", err)
		}
	}
	if len(ca) == 0 {
		return "", errors.New("the kubeconfig names no CA, so that nobody could know the server; use the administrator's kubeconfig (see 'fingerpost kubeconfig')")
	}
	return nodejoin.HashOf(ca)
}

// reachable is the URL at which others reach the server: what it advertises as
// the endpoint of default/kubernetes when the kubeconfig has a loopback address.
func reachable(ctx context.Context, c kubernetes.Interface, host string) string {
	u, err := url.Parse(host)
	if err != nil || !isLoopback(u.Hostname()) {
		return host
	}
	list, err := c.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
	if err != nil {
		return host
	}
	for i := range list.Items {
		s := &list.Items[i]
		for _, e := range s.Endpoints {
			for _, p := range s.Ports {
				if p.Port != nil && len(e.Addresses) > 0 && !isLoopback(e.Addresses[0]) {
					return "https://" + net.JoinHostPort(e.Addresses[0], fmt.Sprint(*p.Port))
				}
			}
		}
	}
	return host
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// randomText is of the letters that a token may have.
func randomText(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, n)
	b := make([]byte, 1)
	for len(out) < n {
		if _, err := rand.Read(b); err != nil {
			panic(err) // crypto/rand does not fail on the systems Go supports
		}
		if int(b[0]) < 256/len(letters)*len(letters) { // no letter more often than others
			out = append(out, letters[int(b[0])%len(letters)])
		}
	}
	return string(out)
}

func (a *App) listTokens(ctx context.Context, out format) error {
	client, _, err := a.kube()
	if err != nil {
		return err
	}
	list, err := client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return apiError("list the tokens", err)
	}
	slices.SortFunc(list.Items, func(x, y corev1.Secret) int { return strings.Compare(x.Name, y.Name) })
	t := table{head: []string{"ID", "ENDS", "GROUPS", "DESCRIPTION"}}
	for i := range list.Items {
		s := &list.Items[i]
		id := strings.TrimPrefix(s.Name, tokenPrefix)
		if out == formatName {
			fmt.Fprintln(a.Out, id)
			continue
		}
		t.row(id, ends(string(s.Data["expiration"]), time.Now()), string(s.Data["auth-extra-groups"]), string(s.Data["description"]))
	}
	if out == formatName {
		return nil
	}
	if len(t.rows) == 0 {
		fmt.Fprintln(a.Err, "There are no tokens. Make one with 'fingerpost token create'.")
		return nil
	}
	return t.write(a.Out)
}

func ends(expiration string, now time.Time) string {
	at, err := time.Parse(time.RFC3339, expiration)
	switch {
	case expiration == "":
		return "never"
	case err != nil:
		return "unreadable"
	case now.After(at):
		return "ended"
	}
	return "in " + age(now, at)
}

func (a *App) deleteTokens(ctx context.Context, ids []string) error {
	client, _, err := a.kube()
	if err != nil {
		return err
	}
	for _, id := range ids {
		id, _, _ = strings.Cut(id, ".") // the whole token is understood too
		err := client.CoreV1().Secrets(metav1.NamespaceSystem).Delete(ctx, tokenPrefix+id, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return exitWith(ExitNotFound, "there is no token %q", id)
		}
		if err != nil {
			return apiError("delete token "+id, err)
		}
		fmt.Fprintf(a.Out, "token %s deleted\n", id)
	}
	return nil
}
