package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fingerpost/fingerpost/node/agent/volume"
	"github.com/fingerpost/fingerpost/node/runtime"
)

// removeFiles removes the volumes of a pod and, if all is set, its logs too.
func (a *Agent) removeFiles(uid string, all bool) error {
	dir := a.cfg.podDir(uid)
	err := errors.Join(volume.Remove(filepath.Join(dir, "volumes")), volume.Remove(a.cfg.volatilePod(uid)))
	if all && err == nil {
		err = volume.Remove(dir)
	}
	return err
}

// sweepRest removes addresses and directories that belong to no pod. Pods of
// the runtime in found have somebody who cares for them.
func (a *Agent) sweepRest(ctx context.Context, found []runtime.Pod) error {
	kept := map[string]bool{}
	for _, r := range found {
		kept[r.Config.UID] = true
	}
	// First what is there, then whether it has a pod: a pod is known before
	// anything of it is made.
	stray := func(uid string) bool { return !kept[uid] && a.byUID(uid) == nil }
	var errs []error
	if a.network != nil {
		list, err := a.network.List()
		errs = append(errs, err)
		for _, at := range list {
			if stray(at.PodUID) {
				errs = append(errs, a.network.SetHostPorts(at.PodUID, nil), a.network.Detach(ctx, at.PodUID))
			}
		}
	}
	for _, dir := range []string{a.cfg.podsDir(), a.cfg.volatileDir()} {
		entries, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, e := range entries {
			if stray(e.Name()) && !(dir == a.cfg.volatileDir() && e.Name() == objectsDir) {
				errs = append(errs, volume.Remove(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// sweepAgain looks for leftovers from time to time: an error may have kept the
// first sweep from all of them.
func (a *Agent) sweepAgain(ctx context.Context) {
	tick := time.NewTicker(5 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		list, err := a.rt.List(ctx)
		if err != nil {
			continue
		}
		a.sweep(ctx, list)
		if err := a.objects.Sweep(); err != nil {
			a.cfg.Log.Error("forget ConfigMaps and Secrets that no pod uses", "error", err)
		}
	}
}

// Reset stops all pods of a node and removes everything of them, of their
// network and of the agent from the machine. The agent must not run. What
// cannot be removed is in the error; the rest is removed all the same.
func Reset(ctx context.Context, cfg Config) error {
	var errs []error
	if cfg.Runtime != nil {
		list, err := cfg.Runtime.List(ctx)
		errs = append(errs, err)
		for _, p := range list {
			errs = append(errs, cfg.Runtime.RemovePod(ctx, p.Config.UID))
		}
	}
	if cfg.Network != nil {
		n, err := cfg.Network(cfg.clusterCIDRs())
		errs = append(errs, err)
		if err == nil {
			errs = append(errs, n.Teardown())
		}
	}
	if cfg.Dir != "" {
		for _, d := range []string{cfg.podsDir(), cfg.volatileDir(), cfg.keptNode()} {
			errs = append(errs, volume.Remove(d))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("agent: reset: %w", err)
	}
	return nil
}
