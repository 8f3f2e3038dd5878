# `make help` lists the targets. Everything needs Go and make; -race needs gcc.
GO       ?= go
FUZZTIME ?= 60s
BIN      := bin
# Packages with assembly: tested without it too, and checked for another processor.
ASSEMBLY := ./internal/prg ./kernels/... ./transform ./verify

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/securenets (trusted host) and bin/securenetsd (cloud daemon)
	$(GO) build -trimpath -o $(BIN)/ ./cmd/securenets ./cmd/securenetsd

.PHONY: run
run: build ## The main job: classify real images on a daemon of our own, every product checked
	$(BIN)/securenets demo

.PHONY: test
test: ## Run all tests, then some again: without assembly, and under the race detector
	@command -v python3 >/dev/null || echo 'python3 is missing: docs/vectors/check.py does not run'
	$(GO) test -count=1 ./...
	$(GO) test -count=1 -short -tags purego $(ASSEMBLY)
	$(GO) test -count=1 -race -short ./daemon/... ./hostclient/... ./internal/wire/... ./internal/padstock/... ./kernels/... ./transform/... ./verify/...

.PHONY: lint
lint: generate-check ## gofmt, go vet, staticcheck, import rules, generated files
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet $(ASSEMBLY)
	$(GO) tool staticcheck ./...
	$(GO) test -count=1 ./internal/importrules
	$(GO) mod verify
	$(GO) mod tidy -diff

.PHONY: generate-check
generate-check: ## Fail where generated files are not what their sources give
	$(GO) generate ./...
	@git diff --exit-code --stat -- '*.pb.go' '*_amd64.s' || { echo "generated files differ: commit what go generate writes"; exit 1; }

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (60s)
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$p; \
	  done; \
	done

.PHONY: bench
bench: ## Run the benchmarks of the kernels and of the host's passes
	$(GO) test -run '^$$' -bench . -benchtime 1s ./internal/prg ./kernels/... ./transform ./verify

.PHONY: data
data: ## Fetch the Fashion-MNIST training set (a Debian package) into data/
	models/fashion-mnist/fetch.sh data/fashion-mnist

.PHONY: clean
clean: ## Remove what was built and written
	rm -rf $(BIN) out
