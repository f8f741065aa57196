# Fingerpost. 'make' alone says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

GO ?= go
# The binary is static, so that it runs on any Linux. Everything is built with
# the same setting: another one means another copy of Kubernetes' 2,000 packages
# to compile.
export CGO_ENABLED := 0

# What tests may take at most: one package, and all of them with compiling.
TESTTIMEOUT ?= 10m
TESTTOTAL ?= 45m
TESTFLAGS ?=
PKG ?= ./...
FUZZTIME ?= 30s
BENCHFLAGS ?=

TOOLS := $(CURDIR)/.cache/bin
# What tests run: the binary, and kubectl as Kubernetes releases it.
export FINGERPOST_BIN := $(CURDIR)/bin/fingerpost
export KUBECTL := $(TOOLS)/kubectl
# What our DNS is held against.
export COREDNS := $(TOOLS)/coredns

# The version of the Kubernetes API: that of the libraries we are built from.
KUBE_VERSION := $(shell sed -n 's,^.*k8s.io/kubernetes \(v[0-9.]*\).*,\1,p' go.mod | head -n 1)
KUBE_MAJOR := $(word 1,$(subst ., ,$(KUBE_VERSION:v%=%)))
KUBE_MINOR := $(word 2,$(subst ., ,$(KUBE_VERSION:v%=%)))
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
# The date of the commit, not of the build: the same source gives the same binary.
DATE := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null || echo 1970-01-01T00:00:00Z)

kube_x = -X $(1).gitVersion=$(KUBE_VERSION) -X $(1).gitMajor=$(KUBE_MAJOR) -X $(1).gitMinor=$(KUBE_MINOR)
# kubectl version and the API's /version read component-base; client-go has a
# copy of its own for the user agent.
KUBE_LDFLAGS := -s -w $(call kube_x,k8s.io/component-base/version) $(call kube_x,k8s.io/client-go/pkg/version)
stamp_x = -X $(1).gitCommit=$(COMMIT) -X $(1).buildDate=$(DATE) -X $(1).gitTreeState=$(if $(findstring dirty,$(VERSION)),dirty,clean)
LDFLAGS := $(KUBE_LDFLAGS) $(call stamp_x,k8s.io/component-base/version) $(call stamp_x,k8s.io/client-go/pkg/version) \
	-X github.com/fingerpost/fingerpost/cli.Version=$(VERSION)

.PHONY: help
help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(MAKEFILE_LIST)

.PHONY: run
run: build ## build, and run the whole system in one process
	@exec $(FINGERPOST_BIN) dev $(RUNFLAGS)

.PHONY: build
build: ## build bin/fingerpost
	$(GO) build -ldflags '$(LDFLAGS)' -o $(FINGERPOST_BIN) ./cmd/fingerpost

# lint has run all of go vet; the part of it in go test would be the same again.
.PHONY: test
test: deps lint build $(KUBECTL) $(COREDNS) ## install what tests need, lint, build, and run every test
	timeout --foreground -k 10 $(TESTTOTAL) $(GO) test -vet=off -timeout $(TESTTIMEOUT) $(TESTFLAGS) $(PKG)

.PHONY: test-vm
test-vm: ## run the tests that need another kernel (IPVS) in a virtual machine
	@GO=$(GO) hack/vm/run.sh ./view/vip/ipvs

.PHONY: deps
deps: ## install the programs that tests use, if they are missing
	@hack/deps.sh

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@hack/lint.sh

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@FUZZTIME=$(FUZZTIME) hack/fuzz.sh $(PKG)

.PHONY: bench
bench: build $(TOOLS)/kube-apiserver $(TOOLS)/etcd ## measure, side by side with Kubernetes' own server; see bench/README.md
	@KUBE_APISERVER=$(TOOLS)/kube-apiserver ETCD=$(TOOLS)/etcd hack/bench.sh $(BENCHFLAGS)

.PHONY: bench-dns
bench-dns: build $(COREDNS) ## measure the DNS beside CoreDNS, knotd, nsd and an echo
	@hack/deps.sh bench
	$(GO) build -o $(TOOLS)/dnsbench ./bench/dnsbench
	$(TOOLS)/dnsbench -fingerpost $(FINGERPOST_BIN) -coredns $(COREDNS) $(BENCHFLAGS)

.PHONY: bench-vip
bench-vip: build $(TOOLS)/kube-proxy ## measure the service proxy beside kube-proxy
	@hack/deps.sh bench
	$(GO) build -o $(TOOLS)/vipbench ./bench/vipbench
	$(TOOLS)/vipbench -fingerpost $(FINGERPOST_BIN) -kube-proxy $(TOOLS)/kube-proxy $(BENCHFLAGS)

.PHONY: bench-node
bench-node: deps build ## measure a node that runs pods
	$(GO) build -o $(TOOLS)/nodebench ./bench/nodebench
	$(TOOLS)/nodebench -fingerpost $(FINGERPOST_BIN) $(BENCHFLAGS)

.PHONY: bench-gateway
bench-gateway: ## measure the gateway beside nginx and haproxy
	@hack/deps.sh bench
	$(GO) build -o $(TOOLS)/gatewaybench ./bench/gatewaybench
	$(TOOLS)/gatewaybench $(BENCHFLAGS)

.PHONY: generate
generate: ## make the generated code anew
	hack/generate.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache

$(TOOLS)/etcd: go.mod
	@mkdir -p $(TOOLS)
	$(GO) build -ldflags '-s -w' -o $@ go.etcd.io/etcd/server/v3
	@touch $@

$(TOOLS)/kube-proxy: hack/peers/kube-proxy/go.mod
	@mkdir -p $(TOOLS)
	cd hack/peers/kube-proxy && $(GO) build -ldflags '$(KUBE_LDFLAGS)' -o $@ .
	@touch $@

$(TOOLS)/coredns: hack/peers/go.mod
	@mkdir -p $(TOOLS)
	cd hack/peers && $(GO) build -ldflags '-s -w' -o $@ github.com/coredns/coredns
	@touch $@

# Programs of Kubernetes, unmodified, from the module that we import.
$(TOOLS)/%: go.mod
	@mkdir -p $(TOOLS)
	$(GO) build -ldflags '$(KUBE_LDFLAGS)' -o $@ k8s.io/kubernetes/cmd/$*
	@touch $@
