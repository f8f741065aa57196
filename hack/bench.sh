#!/bin/bash
# Benchmarks: first those beside the code, then the whole system's in bench/,
# which print the table of bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
for dir in bench bench/*/; do
	compgen -G "${dir%/}/*.go" >/dev/null || continue
	if grep -qs '^package main' "${dir%/}"/*.go; then
		echo "== go run ./${dir%/}"
		go run "./${dir%/}" "$@"
	fi
	if compgen -G "${dir%/}/*_test.go" >/dev/null; then
		echo "== go test -bench ./${dir%/}"
		go test -run '^$' -bench . -benchmem -timeout 60m "./${dir%/}"
	fi
done
