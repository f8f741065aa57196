#!/bin/bash
# Benchmarks: the whole system beside Kubernetes' own server (bench/), then the
# benchmarks beside the code. Arguments go to bench/apibench.
#
#   KUBE_APISERVER, ETCD   the peers; without them Fingerpost is measured alone
#   BENCHTIME              of each benchmark beside the code (200ms)
set -euo pipefail
cd "$(dirname "$0")/.."

go run ./bench/apibench -fingerpost "${FINGERPOST_BIN:-bin/fingerpost}" \
	-kube-apiserver "${KUBE_APISERVER:-}" -etcd "${ETCD:-}" "$@"

grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u | while read -r dir; do
	go test -vet=off -run '^$' -bench . -benchmem -benchtime "${BENCHTIME:-200ms}" -timeout 20m "$dir" </dev/null
done
