package main

import (
	_ "github.com/miekg/dns"
	_ "github.com/spf13/cobra"
	_ "go.etcd.io/etcd/client/v3"
	_ "go.etcd.io/etcd/server/v3/embed"
	_ "go.etcd.io/etcd/etcdutl/v3/snapshot"
	_ "k8s.io/apiextensions-apiserver/pkg/apiserver"
	_ "k8s.io/kubectl/pkg/cmd"
	_ "k8s.io/kubernetes/pkg/controlplane"
	_ "k8s.io/kubernetes/pkg/controlplane/apiserver"
	_ "k8s.io/kubernetes/pkg/generated/openapi"
)

func main() {}
