package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// profiled runs f, and with -profile writes a CPU profile of the server during
// the first seconds of it to NAME.pb in that directory. The numbers of such a
// run are not to be compared with those of others.
func (b *bench) profiled(ctx context.Context, s *rig.Server, name string, f func() error) error {
	if b.profiles == "" || s.Name != "fingerpost" && s.Name != "kube-apiserver + etcd" {
		return f()
	}
	result := make(chan error, 1)
	go func() { result <- b.profile(ctx, s, fmt.Sprintf("profile?seconds=%.0f", profileTime.Seconds()), name) }()
	err := f()
	if perr := <-result; err == nil {
		err = perr
	}
	return err
}

const profileTime = 4 * time.Second

// profile writes what /debug/pprof/ says of a server to NAME.pb.
func (b *bench) profile(ctx context.Context, s *rig.Server, what, name string) error {
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	base := s.Rest.Host
	if s.Metrics != "" {
		base = "http://" + s.Metrics
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile %s: %s", s.Name, resp.Status)
	}
	f, err := os.Create(filepath.Join(b.profiles, strings.NewReplacer("/", "", " ", "-", ",", "").Replace(name)+".pb"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, resp.Body)
	return err
}
