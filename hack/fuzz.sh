#!/bin/bash
# Runs every fuzz target for $FUZZTIME: fuzz.sh [PACKAGE…]
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ./...
failed=0 ran=0
# Only packages with a target are built: a package list would build them all.
for dir in $(go list -f '{{.Dir}}' "$@"); do
	grep -lqs '^func Fuzz' "$dir"/*_test.go || continue
	for target in $(go test -vet=off -list '^Fuzz' "$dir" | grep '^Fuzz'); do
		echo "== $dir $target (${FUZZTIME:=30s})"
		go test -vet=off -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 10x "$dir" || failed=1
		ran=$((ran + 1))
	done
done
echo "$ran fuzz targets ran"
exit $failed
