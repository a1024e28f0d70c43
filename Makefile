# Godwit's words of command. `make help` lists them; `make check` is the one
# before each commit. Tools are pinned in tools.mod; the first lint builds the
# linter (about two minutes of CPU), later ones find it in the build cache.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO        ?= go
TOOL      := $(GO) tool -modfile=tools.mod
PACKAGES  ?= ./...
SEEDS     ?= 1000
SEED      ?=
ROUNDS    ?= 10
FUZZTIME  ?= 30s
STAGE     ?= 0
DIR       ?= /tmp/godwit-torture
CUTS      ?= 1000
BENCH     ?= .
BENCHTIME ?= 5s
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

export GOTOOLCHAIN ?= local

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# ---- before each commit ----

check: fmt-check vet lint test sim rows ## all that must be green before a commit (tests, transcripts, fuzz seeds, examples included)

ci: check race crash interop ## check, and the race detector, kill -9 rounds and stock clients

night: ## what takes hours: long simulation, mutants, fuzzing, many crash rounds
	$(MAKE) sim SEEDS=100000
	$(MAKE) mutants
	$(MAKE) fuzz FUZZTIME=10m
	$(MAKE) crash ROUNDS=200
	$(MAKE) power-cut CUTS=10000
	$(MAKE) interop

fmt: ## format
	$(TOOL) gofumpt -extra=group_params -w .

fmt-check: ## fails if a file is not formatted
	@out=$$($(TOOL) gofumpt -extra=group_params -l .); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi

vet: ## go vet
	$(GO) vet -tags invariants $(PACKAGES)

lint: ## golangci-lint: few linters, and the walls between the rooms
	$(TOOL) golangci-lint run $(PACKAGES)

test: ## every quick test: units, properties, transcripts, fuzz seeds, examples (long ones have targets of their own)
	$(GO) test -short -tags invariants -timeout 5m $(PACKAGES)

race: ## the same under the race detector
	CGO_ENABLED=1 $(GO) test -short -race -tags invariants -timeout 10m $(PACKAGES)

cover: ## coverage by room, to look at
	$(GO) test -cover $(PACKAGES)

# ---- one kind of test ----

transcripts: ## the transcripts alone
	$(GO) test -count=1 -run 'Transcript|Contract|Pairs|Pending' ./protocols/... ./cmd/...

sim: ## the simulator: seeded histories, power cuts (SEEDS=1000, SEED=n repeats one)
	$(GO) test -count=1 -tags invariants -timeout 0 -run 'TestSimulate' ./core -seeds $(SEEDS) $(if $(SEED),-seed $(SEED))

fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -h '^func Fuzz' $$dir/*_test.go | sed 's/func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do \
			echo "== $$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

crash: ## the broker killed with kill -9, ROUNDS times (10): confirmed and missing must be 0
	$(GO) run ./internal/crash -rounds $(ROUNDS)

torture: ## the store killed ROUNDS times on the disk of DIR
	$(GO) run ./cmd/godwit torture --data $(DIR) --rounds $(ROUNDS)

power-cut: ## CUTS simulated power cuts (1000) of the whole store, and 100,000 of the journal alone
	$(GO) test -count=1 -timeout 30m -run 'TestPowerCut' ./persistence/badger -cuts $(CUTS)
	$(GO) test -count=1 -timeout 30m -run 'PowerCut' ./persistence/journal -cuts 100000

store-bench: ## the store in process, and with a backlog of a million, edge and server
	$(GO) test -run '^$$' -bench 'InFlight|Shared|Commit' -benchtime 2s ./persistence/badger
	$(GO) run ./internal/storebench -profile edge
	$(GO) run ./internal/storebench -profile server
	$(GO) run ./internal/storebench -profile server -sessions 10000

disk-full: ## the broker on small disks that somebody fills (root, loop mounts)
	$(GO) test -count=1 -timeout 5m -run TestDiskFull ./internal/diskfull -mount
	$(GO) test -count=1 -timeout 5m -run TestDiskFull ./internal/diskfull -mount -disk 200

mutants: ## planted bugs: the simulator must see each of them
	$(GO) run ./core/coretest/mutants

interop: ## stock clients, unchanged, as Debian packages them: a missing one fails
	GODWIT_INTEROP=1 $(GO) test -count=1 -v -timeout 10m ./internal/interop
	GODWIT_INTEROP=1 $(GO) test -count=1 -v -timeout 10m -run TestTryLines ./cmd/godwit

examples: ## runs each example's test
	$(GO) test -count=1 ./examples/...

bench: ## benchmarks into bench/<commit>.txt, then CPU a message of the whole broker beside Mosquitto
	@mkdir -p bench
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./core/... ./protocols/... ./persistence/... | tee bench/$(VERSION).txt
	$(GO) run ./internal/bench -time $(BENCHTIME)

bench-diff: ## benchstat of two files: make bench-diff OLD=bench/a.txt NEW=bench/b.txt
	$(TOOL) benchstat $(OLD) $(NEW)

rows: ## promises that no test names (STAGE=n: fail if one up to stage n is bare)
	@$(GO) run ./docs/rows -stage $(STAGE)

vuln: ## known vulnerabilities in what we link (asks an online database)
	$(TOOL) govulncheck ./cmd/...

# ---- build and run ----

build: ## static bin/godwit
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/godwit ./cmd/godwit

run: ## serve with examples/config/dev.yaml
	$(GO) run ./cmd/godwit serve --config examples/config/dev.yaml

clean: ## removes bin; never a data directory
	rm -rf bin

.PHONY: help check ci night torture disk-full power-cut store-bench fmt fmt-check vet lint test race cover transcripts sim fuzz crash mutants interop examples bench bench-diff rows vuln build run clean
