package rig

import (
	"context"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
)

// Bare starts 'PROGRAM -bare ADDRESS' in a directory with serving.crt and .key.
func Bare(ctx context.Context, dir, program string) (*Server, error) {
	if err := writePKI(dir); err != nil {
		return nil, err
	}
	addrs, err := ports(1)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := run(dir, program, "-bare", addrs[0])
	if err != nil {
		return nil, err
	}
	s := &Server{Name: "bare", procs: []*process{p}, Rest: &rest.Config{
		Host: "https://" + addrs[0], TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
	}}
	if err := s.waitReady(ctx, began); err != nil {
		_ = s.Stop()
		return nil, err
	}
	return s, nil
}
