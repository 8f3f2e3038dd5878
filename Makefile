# `make help` lists the targets. Everything needs Go and make; -race needs gcc.
GO       ?= go
FUZZTIME ?= 60s
BENCHFLAGS ?= $(if $(QUICK),--quick)
BIN      := bin
PREFIX   ?= /usr/local
# The CUDA backend is built on linux/amd64 where there is gcc. It needs no CUDA to be
# installed: its own headers, and archives with nothing in them for the linker.
CUDA     := $(CURDIR)/kernels/cuda/internal/driver
# The folder goes in by CPATH and LIBRARY_PATH: as a flag it would have go rebuild all C code, the
# standard library's included, in every checkout. go does not see changes of headers found that way,
# so their checksum is a flag.
GPU_ENV  := CGO_ENABLED=1 CPATH=$(CUDA)/include LIBRARY_PATH=$(CUDA)/lib CGO_CFLAGS="-O2 -g -Wno-deprecated-declarations -DCUDA_HEADERS=$(shell cat $(CUDA)/include/*.h $(CUDA)/lib/*.a | cksum | cut -d ' ' -f 1)"
HAS_GCC  := $(shell test "$$($(GO) env GOOS)/$$($(GO) env GOARCH)" = linux/amd64 && command -v gcc)
CLANG    ?= clang-19
# Packages with assembly: tested without it too, and checked for another processor.
ASSEMBLY := ./internal/graph ./internal/prg ./internal/wire ./kernels/... ./transform ./verify

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-21s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/securenets (trusted host) and bin/securenetsd (cloud daemon), with CUDA where gcc is there
ifeq ($(HAS_GCC),)
	@echo 'no gcc, or not linux/amd64: the programs are built without CUDA'
	$(MAKE) build-cpu
else
	$(GPU_ENV) $(GO) build -tags gpu -trimpath -o $(BIN)/ ./cmd/securenets ./cmd/securenetsd
endif

.PHONY: build-cpu
build-cpu: ## Build both without CUDA and without C
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/securenets ./cmd/securenetsd

# It builds nothing: under sudo there may be no go.
.PHONY: install
install: SHARE := $(DESTDIR)$(PREFIX)/share
install: ## Install what was built, manual pages, completions and the service under DESTDIR and PREFIX (/usr/local)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BIN)/securenets $(BIN)/securenetsd
	umask 022 && mkdir -p $(addprefix $(SHARE)/,bash-completion/completions zsh/site-functions fish/vendor_completions.d) $(DESTDIR)$(PREFIX)/lib/systemd/system && \
	  for program in securenets securenetsd; do \
	    $(BIN)/$$program man $(SHARE)/man/man1 && \
	    $(BIN)/$$program completion bash > $(SHARE)/bash-completion/completions/$$program && \
	    $(BIN)/$$program completion zsh > $(SHARE)/zsh/site-functions/_$$program && \
	    $(BIN)/$$program completion fish > $(SHARE)/fish/vendor_completions.d/$$program.fish || exit; \
	  done && \
	  sed 's|/usr/bin/|$(PREFIX)/bin/|' deploy/securenetsd.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/securenetsd.service
	install -D -m 0644 deploy/securenets.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/securenets.conf
	test -e $(DESTDIR)/etc/securenets/config.toml || install -D -m 0644 config.toml $(DESTDIR)/etc/securenets/config.toml

.PHONY: run
run: build ## The main job: classify real images on a daemon of our own, every product checked
	$(BIN)/securenets demo

# -vet=off: `make lint` vets.
.PHONY: test
test: test-gpu ## Run all tests, then some again: without assembly, and under the race detector
	@command -v python3 >/dev/null || echo 'python3 is missing: docs/vectors/check.py and the client of the spec do not run'
	$(GO) test -vet=off -count=1 ./...
	$(GO) test -count=1 -short -tags purego $(ASSEMBLY)
	cd bench/peers && $(GO) test -vet=off -count=1 .
	$(GO) test -vet=off -count=1 -race -short ./cmd/securenets/internal/gateway ./daemon/... ./hostclient/... ./internal/lane/... ./internal/wire/... ./internal/padstock/... ./kernels/... ./transform/... ./verify/...

.PHONY: test-gpu
test-gpu: ## Test the CUDA backend on a fake driver, plain, under the race detector and with the address sanitizer
ifeq ($(HAS_GCC),)
	@echo 'no gcc, or not linux/amd64: THE CUDA BACKEND IS NOT TESTED'
else
	$(GPU_ENV) $(GO) test -vet=off -count=1 -tags gpu ./kernels/cuda/... ./cmd/securenetsd
	$(GPU_ENV) $(GO) test -vet=off -count=1 -tags gpu -run Device ./cmd/securenets/internal/bench ./cmd/securenets/internal/bench/throughput
	$(GPU_ENV) $(GO) test -vet=off -count=1 -tags gpu -race -short ./kernels/cuda/...
	$(GPU_ENV) $(GO) test -vet=off -count=1 -tags gpu -asan -short ./kernels/cuda/...
endif

.PHONY: check-clients
check-clients: ## Ask the gateway by Triton's own clients, from PyPI
	python3 -m venv .cache/clients-venv
	.cache/clients-venv/bin/pip install -q --disable-pip-version-check -r cmd/securenets/internal/gateway/testdata/requirements.txt
	PYTHON_CLIENTS=$(CURDIR)/.cache/clients-venv/bin/python $(GO) test -count=1 -v -run '^TestClients$$' ./cmd/securenets/internal/gateway

# bochs 2.7 gets wrong what Go's newer garbage collector does in AVX-512. Left out is what
# takes long there and has nothing to do with AVX-512.
AVX512 := internal/prg kernels/cpu transform verify
AVX512_ARGS ?= -test.short -test.skip '^Test(Adjoint|Choose|Draws|FalseAcceptRate|Open|PairBounds|Rekey|SpotCheck.*)$$|^TestConformance$$/^(avx2|portable)|^TestMaskFloats$$/^none|^TestOpenFloats$$/^conv_of_many_channels$$'
.PHONY: check-avx512
check-avx512: ## Test the AVX-512 code on an emulated processor (Debian 12 on amd64, 20 minutes)
	mkdir -p .cache/avx512
	for p in $(AVX512); do \
	  GOEXPERIMENT=nogreenteagc CGO_ENABLED=0 $(GO) test -c -trimpath -ldflags '-s -w' -o .cache/avx512/$${p##*/}.test ./$$p || exit 1; \
	done
	internal/cpuid/avx512-check.sh .cache/avx512 7200 "$(AVX512_ARGS)" $(notdir $(AVX512))

.PHONY: check-avx512-packages
check-avx512-packages: ## Install what check-avx512 needs (Debian 12, as root)
	apt-get install -y --no-install-recommends bochs=2.7+dfsg-4+deb12u1 bochs-term=2.7+dfsg-4+deb12u1 busybox-static isolinux syslinux-common xorriso

.PHONY: gpu-check
gpu-check: gpu-build ## On a machine with a GPU: check the CUDA backend on it, then measure it
	$(BIN)/gpu/gpu-check.sh out/gpu

.PHONY: gpu-build
gpu-build: ## Build bin/gpu, to be copied to a machine with a GPU: gpu-check.sh there needs no Go
	$(GPU_ENV) $(GO) test -c -tags gpu -trimpath -ldflags '-s -w' -o $(BIN)/gpu/cuda.test ./kernels/cuda
	$(GPU_ENV) $(GO) build -tags gpu -trimpath -buildvcs=true -ldflags '-s -w' -o $(BIN)/gpu/ ./cmd/securenets ./cmd/securenetsd
	cp bench/gpu-check.sh $(BIN)/gpu/

.PHONY: lint
lint: generate-check ## gofmt, go vet, staticcheck, import rules, generated files
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet $(ASSEMBLY)
	$(GO) tool staticcheck ./...
ifneq ($(HAS_GCC),)
	$(GPU_ENV) $(GO) vet -tags gpu ./kernels/cuda/... ./cmd/...
	$(GPU_ENV) $(GO) tool staticcheck -tags gpu ./kernels/cuda/...
endif
	$(GO) test -count=1 ./internal/importrules
	$(GO) mod verify
	$(GO) mod tidy -diff
	cd bench/peers && $(GO) vet . && $(GO) mod tidy -diff

.PHONY: generate-check
generate-check: ## Fail where generated files are not what their sources give
	$(GO) generate ./...
	@if command -v $(CLANG) >/dev/null; then $(MAKE) --no-print-directory ptx; \
	else echo '$(CLANG) is missing: the PTX of kernels/cuda is not compared with its source'; fi
	@git diff --exit-code --stat -- '*.pb.go' '*_amd64.s' '*_amd64.S' kernels/cuda/internal/driver '*.ptx' || { echo "generated files differ: commit what go generate writes"; exit 1; }

# clang-19 has no attribute for clusters: sed adds the directives to the PTX.
.PHONY: ptx
ptx: ## Compile the CUDA kernels to PTX (Debian package clang-19)
	cd kernels/cuda && for k in kernels:sm_70 hopper:sm_90a; do \
	  $(CLANG) -x cuda --cuda-device-only --cuda-path=/nonexistent -nocudainc -nocudalib --cuda-gpu-arch=$${k#*:} -O3 -std=c++17 -Wall -Wextra \
	    -S $${k%:*}.cu -o $${k%:*}.ptx || exit 1; \
	done
	sed -i -e '/^\.visible \.entry fused/,/^{/s/^\.minnctapersm.*/&\n.explicitcluster\n.reqnctapercluster 2, 1, 1/' \
	  -e '/^\.visible \.entry parallel/,/^{/s/^\.minnctapersm.*/&\n.explicitcluster\n.reqnctapercluster 4, 1, 1/' kernels/cuda/hopper.ptx

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (60s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$p; \
	  done; \
	done

.PHONY: bench
bench: build ## Measure this machine and write out/report/report.md; QUICK=1 takes a few minutes
	@test -n "$(QUICK)" || bench/peers/venv.sh || echo 'onnxruntime and TenSEAL are left out: python3 -m venv or pip could not install bench/peers/requirements.txt'
	bench/report.sh $(BIN) out/report $(BENCHFLAGS)

.PHONY: bench-go
bench-go: ## Run the Go benchmarks of the kernels and of the host's passes
	$(GO) test -run '^$$' -bench . -benchtime 1s ./internal/prg ./kernels/... ./transform ./verify

.PHONY: bench-peers
bench-peers: build ## Compare products and networks with those of others, see bench/peers
	GO=$(GO) bench/peers/run.sh

.PHONY: bench-peers-packages
bench-peers-packages: ## Install what bench-peers compares with (Debian, as root)
	apt-get install -y --no-install-recommends g++ python3-venv libopenblas-dev fflas-ffpack libdnnl-dev

.PHONY: data
data: ## Fetch the Fashion-MNIST training set (a Debian package) into data/
	models/fashion-mnist/fetch.sh data/fashion-mnist

.PHONY: clean
clean: ## Remove what was built and written
	rm -rf $(BIN) out
