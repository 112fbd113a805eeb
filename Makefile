# Everything a person or a CI job does with buoy; "make help" lists it.
# Targets that need something of the machine call scripts/setup first: it
# looks, and only where something is missing it installs it or says its name.

VERSION := $(or $(VERSION),$(shell git describe --tags --always --dirty 2>/dev/null),dev)
GO      ?= go
PREFIX  ?= /usr/local
LIBEXEC ?= $(if $(filter /usr,$(PREFIX)),/usr/libexec/buoy,$(PREFIX)/bin)

# Where "make run" puts its system; a second one beside it needs others.
PORT       ?= 8080
HELLO_PORT ?= 8081
APPS_PORT  ?= 8088
DATA       ?= .cache/run/data
RUN_DIR    ?= .cache/run/run
BRIDGE     ?=
CIDR       ?=

# The private Ed25519 key, in PEM, that signs bundles.
KEY  ?=

# Whom packages are for: amd64 or arm64; empty: such machines as this one.
ARCH ?=

# What to test, and how: make test PKGS=./images/... TESTFLAGS='-run Pull'
PKGS      ?= ./...
TESTFLAGS ?=
BENCH     ?=

BIN        := bin
LDFLAGS    := -s -w -X github.com/buoy-edge/buoy/internal/version.Version=$(VERSION)
SHIM_TAGS  := netgo,osusergo,seccomp,runc_nocriu
SHIM_LD    := $(LDFLAGS) -linkmode external -extldflags -static
# Functions that an installed NVIDIA library lacks are missed when they are called.
GPU_LD     := $(LDFLAGS) -linkmode external -extldflags -Wl,-z,lazy
C_FLAGS    := -Os -static -s -Wall -Wextra -Werror
# buoy-init has no C library, and what a compiler or linker adds for one stays out.
INIT_FLAGS := $(C_FLAGS) -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-pie -no-pie -Wl,--build-id=none,-z,noseparate-code,-z,norelro,-z,noexecstack

# The version comes from git describe; Go's own stamp would fail in a checkout
# that belongs to another user.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
# go-nvml wraps what NVIDIA's header calls deprecated.
export CGO_CFLAGS := -g -O2 -Wno-deprecated-declarations
export GO PORT HELLO_PORT APPS_PORT DATA RUN_DIR BRIDGE CIDR SHIM_TAGS PKGS FUZZTIME TESTFLAGS VERSION ARCH KEY

build: ## build the programs into bin/
	@scripts/setup build
	@$(MAKE) --no-print-directory programs

programs: $(BIN)/buoy-reaper $(BIN)/buoy-init
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/buoyd ./cmd/buoy ./cmd/buoy-flist
	CGO_ENABLED=1 $(GO) build -trimpath -tags $(SHIM_TAGS) -ldflags '$(SHIM_LD)' -o $(BIN)/ ./cmd/buoy-shim
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(GPU_LD)' -o $(BIN)/ ./cmd/buoy-gpu

$(BIN)/buoy-reaper: $(wildcard container/reaper/*.[ch]) Makefile
	@mkdir -p $(BIN)
	$(CC) $(C_FLAGS) -o $@ $(filter %.c,$^)

$(BIN)/buoy-init: $(wildcard container/init/*.[ch]) Makefile
	@mkdir -p $(BIN)
	$(CC) $(INIT_FLAGS) -o $@ $(filter %.c,$^)

run: ## start a one-machine system with a container in it, until Ctrl-C
	@scripts/run --check
	@scripts/setup run
	@$(MAKE) --no-print-directory programs
	@scripts/run

test: ## run all tests; those that need root run when root can be had
	@scripts/setup test
	@$(MAKE) --no-print-directory programs
	@scripts/test

test-unit: ## run the tests that change nothing on this machine
	@scripts/setup test
	@scripts/test --unit

test-vm: export BUOY_TEST_VM = 1
test-vm: PKGS = ./test/vm/...
test-vm: ## run the tests that start virtual machines; no root, no KVM
	@scripts/setup test-vm
	@$(MAKE) --no-print-directory programs
	@scripts/test --unit

test-gpu: ## on a machine with an NVIDIA GPU, hold what we say of it against nvidia-smi
	@scripts/setup test
	@$(MAKE) --no-print-directory programs
	@scripts/test-gpu

fuzz: ## run every fuzzer of PKGS for FUZZTIME (60s), one after the other
	@scripts/setup build
	@scripts/fuzz

check: ## look at formatting and lint
	@scripts/setup build
	@scripts/lint

boot: ## make kernel and initramfs of machines without a system, into dist/boot; FIRMWARE: directory of firmware for them
	@scripts/setup boot
	@$(MAKE) --no-print-directory programs
	@FIRMWARE='$(FIRMWARE)' scripts/boot dist/boot

ipxe: ## put iPXE, which "buoy boot serve" gives to firmware, into dist/boot/ipxe
	@scripts/ipxe dist/boot/ipxe

boot-image: ## make a disk of dist/boot/amd64, for USB sticks; PARAMS: its kernel's parameters
	@scripts/bootimage dist/boot/amd64 dist/boot/buoy-amd64.img $(PARAMS)

bench: ## measure starts, memory and idle cost beside other runtimes, as root
	@scripts/setup test
	@$(MAKE) --no-print-directory programs
	@scripts/bench $(BENCH)

install: build ## copy programs and systemd units below PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBEXEC)
	install -m 755 bin/buoyd bin/buoy $(DESTDIR)$(PREFIX)/bin/
	install -m 755 bin/buoy-shim bin/buoy-reaper bin/buoy-init bin/buoy-flist bin/buoy-gpu $(DESTDIR)$(LIBEXEC)/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in buoyd buoy-halt; do \
		sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/systemd/$$unit.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service || exit; \
	done

deb: ## build a package for Debian and Ubuntu into dist/, for ARCH
rpm: ## build one for Fedora, openSUSE and the like
tarball: ## build one for other systems
deb rpm tarball:
	@scripts/package $@

bundle: ## build a signed bundle for upgrades over the air; KEY=FILE signs it
	@scripts/package bundle

packages: ## build all three
	@scripts/package deb rpm tarball

reproducible: ## build the programs of this commit twice, the second time from nothing, and compare their bytes
	@scripts/reproducible

vulnerabilities: ## ask Go's list of vulnerabilities, on the network, about what the programs call
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./cmd/buoyd ./cmd/buoy ./cmd/buoy-flist
	CGO_ENABLED=1 $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -tags $(SHIM_TAGS) ./cmd/buoy-shim ./cmd/buoy-gpu

clean: ## remove bin/, dist/ and what a killed "make run" left behind
	@scripts/run --reset
	rm -rf bin dist

setup: ## install what building, running and testing need
	@scripts/setup test

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-10s %s\n", $$1, $$2}'

.DEFAULT_GOAL := build
.PHONY: build programs run test test-unit test-vm test-gpu fuzz check boot ipxe boot-image bench install deb rpm tarball bundle packages reproducible vulnerabilities clean setup help
