#!/bin/bash
# gofmt, go vet and staticcheck, as errors.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { [ -z "$2" ] || { printf 'lint: %s\n%s\n' "$1" "$2" >&2; exit 1; }; }

say 'not formatted; run gofmt -s -w on' "$(gofmt -l -s .)"
go vet ./...
# Legacy Endpoints are deprecated, and served on purpose.
found=$(go tool -modfile=hack/tools/go.mod staticcheck ./... || true)
say 'staticcheck found' "$(grep -vE 'k8s.io/api/core/v1\.(Endpoints|EndpointSubset|EndpointAddress|EndpointPort) is deprecated' <<<"$found" || true)"
echo 'lint: ok'
