package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/door/kube"
)

// loadTimeout is how long a command waits for the server's first answer.
const loadTimeout = 10 * time.Second

// load reads everything there is, in one namespace or (empty) all, once.
func (a *App) load(ctx context.Context, namespace string) (*catalog.Snapshot, error) {
	c, stop, err := a.follow(ctx, namespace, loadTimeout)
	if err != nil {
		return nil, err
	}
	defer stop()
	return c.Snapshot(), nil
}

// follow gives a catalog that is complete and kept up to date until stop is
// called. Nothing that goes wrong later ends it: the catalog turns stale. Pods
// are read for the reasons they give, but not all of a cluster.
func (a *App) follow(ctx context.Context, namespace string, timeout time.Duration) (c *catalog.Catalog, stop func(), err error) {
	cfg, err := a.restConfig()
	if err != nil {
		return nil, nil, err
	}
	c = catalog.New(nil)
	door, err := kube.New(kube.Config{Rest: cfg, Catalog: c, Namespace: namespace, Pods: namespace != ""})
	if err != nil {
		return nil, nil, exitWith(ExitError, "%w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = door.Run(ctx) // it ends with ctx only
	}()
	stop = func() { cancel(); <-done }
	if err := a.awaitSync(ctx, door, cfg.Host, timeout); err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

func (a *App) awaitSync(ctx context.Context, door *kube.Door, host string, timeout time.Duration) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	began, told := time.Now(), false
	for {
		select {
		case <-door.Synced():
			return nil
		case <-ctx.Done():
			return exitWith(ExitError, "stopped before the server answered")
		case <-look.C:
			err := door.Trouble()
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				return exitWith(ExitError, "%s refuses: %w\nUse the kubeconfig of somebody who may list and watch services, endpointslices and namespaces.", host, rootCause(err))
			}
			if err != nil && !told && time.Since(began) > time.Second {
				told = true
				fmt.Fprintf(a.Err, "waiting for %s: %v\n", host, rootCause(err))
			}
		case <-deadline.C:
			err := rootCause(door.Trouble())
			if err == nil {
				err = errors.New("no answer")
			}
			return exitWith(ExitUnavailable, "%s cannot be read within %v: %w\nIs the server running? Start one with 'fingerpost dev', or point --kubeconfig at one.", host, timeout, err)
		}
	}
}

// rootCause leaves out where in this program an error came up.
func rootCause(err error) error {
	var status *apierrors.StatusError
	if errors.As(err, &status) {
		return status
	}
	if next := errors.Unwrap(err); next != nil {
		return next
	}
	return err
}
