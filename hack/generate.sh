#!/bin/sh
# Makes the generated code of our own API kinds anew.
set -eu
cd "$(dirname "$0")/.."
go tool -modfile=hack/tools/go.mod deepcopy-gen --output-file zz_generated.deepcopy.go --go-header-file hack/boilerplate.txt ./api/v1alpha1
go tool -modfile=hack/tools/go.mod openapi-gen --output-dir api/v1alpha1 --output-pkg github.com/fingerpost/fingerpost/api/v1alpha1 \
	--output-file zz_generated.openapi.go --output-model-name-file zz_generated.model_name.go \
	--go-header-file hack/boilerplate.txt --report-filename /dev/null ./api/v1alpha1
