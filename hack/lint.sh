#!/bin/bash
# gofmt, go vet and staticcheck, as errors.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { [ -z "$2" ] || { printf 'lint: %s\n%s\n' "$1" "$2" >&2; exit 1; }; }

say 'not formatted; run gofmt -s -w on' "$(gofmt -l -s .)"
go vet ./...
status=0
found=$(go tool -modfile=hack/tools/go.mod staticcheck ./...) || status=$?
[ "$status" = 0 ] || [ -n "$found" ] || exit "$status" # it did not run
# Legacy Endpoints are deprecated, and served on purpose.
say 'staticcheck found' "$(grep -vE 'k8s.io/api/core/v1\.(Endpoints|EndpointSubset|EndpointAddress|EndpointPort) is deprecated' <<<"$found" || true)"
echo 'lint: ok'
