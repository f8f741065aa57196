package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/homedir"
)

// contextName is what our entries in a kubeconfig are called.
const contextName = "fingerpost"

type kubeconfigFlags struct {
	merge  bool
	use    bool
	server string
	token  string
}

func (a *App) kubeconfigCmd() *cobra.Command {
	var f kubeconfigFlags
	c := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the administrator's kubeconfig, or merge it into yours",
		Long: `Print a kubeconfig for the server of this machine: the administrator's, from the
data directory, unless --kubeconfig names another. Certificates and keys are in
it, so it works anywhere the server's address does.

--merge puts it into ~/.kube/config as the context "fingerpost" instead; the file
as it was is kept beside it.`,
		Example: `  fingerpost kubeconfig > admin.kubeconfig
  fingerpost kubeconfig --server https://10.1.2.3:6443 --token "$TOKEN" > colleague.kubeconfig
  fingerpost kubeconfig --merge && kubectl --context fingerpost get services`,
		Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := a.adminConfig(&f)
			if err != nil {
				return err
			}
			if f.merge {
				return a.mergeKubeconfig(cfg, &f)
			}
			b, err := clientcmd.Write(*cfg)
			if err == nil {
				_, err = a.Out.Write(b)
			}
			return err
		},
	}
	c.Flags().BoolVar(&f.merge, "merge", false, "put it into ~/.kube/config")
	c.Flags().BoolVar(&f.use, "use", false, "with --merge: make it the current context")
	c.Flags().StringVar(&f.server, "server", "", "URL of the server to write down instead of the one found")
	c.Flags().StringVar(&f.token, "token", "", "bearer token to write down instead of the credentials found")
	return c
}

// adminConfig is a kubeconfig with one context and everything in it.
func (a *App) adminConfig(f *kubeconfigFlags) (*clientcmdapi.Config, error) {
	if f.server != "" {
		if u, err := url.Parse(f.server); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, exitWith(ExitUsage, "--server %q: want a URL such as https://10.1.2.3:6443", f.server)
		}
	}
	path := a.kubeconfig
	if own := adminKubeconfig(DataDir()); path == "" && fileExists(own) {
		path = own
	}
	var src *clientcmdapi.Config
	if path != "" {
		var err error
		if src, err = clientcmd.LoadFromFile(path); err != nil {
			return nil, exitWith(ExitError, "read kubeconfig %s: %w", path, err)
		}
		if err := clientcmd.ResolveLocalPaths(src); err != nil {
			return nil, exitWith(ExitError, "read kubeconfig %s: %w", path, err)
		}
	} else {
		raw, err := a.clientConfig().RawConfig()
		if err != nil {
			return nil, exitWith(ExitError, "read kubeconfig: %w", err)
		}
		src = &raw
	}
	if a.context != "" {
		src.CurrentContext = a.context
	}
	ctx := src.Contexts[src.CurrentContext]
	if ctx == nil || src.Clusters[ctx.Cluster] == nil {
		return nil, exitWith(ExitUnavailable, "no kubeconfig with a current context found: 'fingerpost dev' or 'fingerpost server' writes %s at its first start; or name one with --kubeconfig", adminKubeconfig(DataDir()))
	}
	if err := clientcmdapi.MinifyConfig(src); err != nil {
		return nil, exitWith(ExitError, "kubeconfig: %w", err)
	}
	if err := clientcmdapi.FlattenConfig(src); err != nil {
		return nil, exitWith(ExitError, "kubeconfig: %w", err)
	}
	cluster, user := src.Clusters[ctx.Cluster], src.AuthInfos[ctx.AuthInfo]
	if f.server != "" {
		cluster.Server = f.server
	}
	if f.token != "" {
		user = &clientcmdapi.AuthInfo{Token: f.token}
	}
	if user == nil {
		user = clientcmdapi.NewAuthInfo()
	}
	out := clientcmdapi.NewConfig()
	out.CurrentContext = contextName
	out.Clusters[contextName] = cluster
	out.AuthInfos[contextName] = user
	out.Contexts[contextName] = &clientcmdapi.Context{Cluster: contextName, AuthInfo: contextName, Namespace: ctx.Namespace}
	return out, nil
}

func (a *App) mergeKubeconfig(cfg *clientcmdapi.Config, f *kubeconfigFlags) error {
	home := homedir.HomeDir()
	if home == "" {
		return exitWith(ExitError, "kubeconfig --merge: no home directory known; set $HOME")
	}
	path := filepath.Join(home, ".kube", "config")
	backup, err := mergeInto(path, cfg, f.use, time.Now())
	if err != nil {
		return exitWith(ExitError, "kubeconfig --merge: %w", err)
	}
	if backup != "" {
		fmt.Fprintf(a.Err, "The file as it was: %s\n", backup)
	}
	if other := os.Getenv("KUBECONFIG"); other != "" {
		fmt.Fprintf(a.Err, "$KUBECONFIG is set (%s): kubectl does not read %s until it is unset.\n", other, path)
	}
	_, err = fmt.Fprintf(a.Out, "context %q is in %s; use it with: kubectl --context %s\n", contextName, path, contextName)
	return err
}

// mergeInto adds the entries of cfg to the file and gives the name of the
// backup, empty if there was nothing to keep. The file is replaced as a whole
// or not at all.
func mergeInto(path string, cfg *clientcmdapi.Config, use bool, now time.Time) (backup string, err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the link stays one
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	// kubectl config takes the same lock.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_EXCL, 0)
	if errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("%s.lock exists: somebody is changing the file; if not, remove the lock", path)
	}
	if err != nil {
		return "", err
	}
	lock.Close()
	defer os.Remove(path + ".lock")

	mode, all := fs.FileMode(0o600), clientcmdapi.NewConfig()
	before, err := os.ReadFile(path)
	switch {
	case err == nil:
		if all, err = clientcmd.Load(before); err != nil {
			return "", fmt.Errorf("%s is no kubeconfig, it stays as it is: %w", path, err)
		}
		if st, err := os.Stat(path); err == nil {
			mode = st.Mode().Perm() &^ 0o077 // there will be an administrator's key in it
		}
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	for k, v := range cfg.Clusters {
		all.Clusters[k] = v
	}
	for k, v := range cfg.AuthInfos {
		all.AuthInfos[k] = v
	}
	for k, v := range cfg.Contexts {
		all.Contexts[k] = v
	}
	if use || all.CurrentContext == "" {
		all.CurrentContext = cfg.CurrentContext
	}
	after, err := clientcmd.Write(*all)
	if err != nil || bytes.Equal(before, after) {
		return "", err
	}
	if len(before) > 0 {
		backup = path + ".before-fingerpost-" + strings.ReplaceAll(now.UTC().Format("20060102T150405.000"), ".", "")
		if err := writeWhole(backup, before, mode); err != nil {
			return "", err
		}
	}
	return backup, writeWhole(path, after, mode)
}

// writeWhole writes a file so that it is there completely, also after a crash,
// or as it was.
func writeWhole(path string, b []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".fingerpost-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
