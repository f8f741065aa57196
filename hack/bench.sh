#!/bin/bash
# Measures the whole system beside kube-apiserver and etcd, and prints the table
# of bench/README.md. Arguments go to bench/apibench, for example
#   hack/bench.sh -parts create,latency -o result.json
# Benchmarks beside the code are run where they are: go test -bench . ./catalog
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/.cache/bin
etcd=$tools/etcd
if [[ ! -x $etcd || go.mod -nt $etcd ]]; then
	mkdir -p "$tools"
	go build -o "$etcd" go.etcd.io/etcd/server/v3
	touch "$etcd"
fi
go build -o "$tools/apibench" ./bench/apibench
# The servers are children of apibench, which ends them; so it must be told
# itself when this is interrupted.
exec "$tools/apibench" \
	-fingerpost "${FINGERPOST_BIN:-bin/fingerpost}" \
	-kube-apiserver "${KUBE_APISERVER-$tools/kube-apiserver}" \
	-etcd "$etcd" "$@"
