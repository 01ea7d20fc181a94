# liboptimize: build, demo, tests, installation. `make help` lists the targets.
#
# cargo, tools/deps.sh and tests/run.sh do the work.

PREFIX     ?= /usr/local
DESTDIR    ?=
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MAJOR   := $(firstword $(subst ., ,$(VERSION)))
# Until 1.0 a minor version may break programs: the loader must tell them apart.
ABI     := $(if $(filter 0,$(MAJOR)),$(basename $(VERSION)),$(MAJOR))

INSTALL = install
CMAKEDIR = $(LIBDIR)/cmake/optimize
FILL = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' \
           -e 's|@VERSION@|$(VERSION)|g' -e 's|@ABI@|$(ABI)|g' \
           -e "s|@INCLUDE_FROM_LIB@|$$(realpath -m --relative-to='$(LIBDIR)' '$(INCLUDEDIR)')|g"

# Scripts and tests expect cargo's output in target/, whatever the user's cargo configuration is.
export CARGO_TARGET_DIR := $(CURDIR)/target

LIBRARY = target/release/liboptimize.so
COMMAND = target/release/optimize
MODEL  ?= target/deps/models/paraphrase-MiniLM-L3-v2/model.onnx

.DEFAULT_GOAL := all
.PHONY: all deps demo test test-gpu lint fuzz fuzz-long bench install uninstall clean help

all: ## build the library and the command
	cargo build --release

deps: ## fetch ONNX Runtime, and the models and data of the tests
	tools/deps.sh test

demo: ## quantize a real model to int8 and compare it with the original (MODEL=file.onnx for your own)
	tools/deps.sh $(if $(filter file,$(origin MODEL)),demo,runtime)
	cargo build --release
	@mkdir -p target/demo
	$(COMMAND) quantize --model $(MODEL) --type dynamic --bits 8 --output target/demo/minilm-int8 --benchmark

test: deps all ## run all tests: style, Rust, C, C++, Go, C#, header, symbols, installation
	tests/run.sh

test-gpu: deps all ## run the tests that need an NVIDIA GPU: see docs/tensorrt.md
	tests/gpu.sh

lint: ## check the style only
	tests/run.sh lint

fuzz: ## fuzz each reader for a minute (OPTIMIZE_FUZZ_SECONDS=60, OPTIMIZE_FUZZ_SEED)
	OPTIMIZE_FUZZ_SECONDS=$${OPTIMIZE_FUZZ_SECONDS:-60} cargo test --release --test fuzz -- --nocapture --test-threads 1

fuzz-long: deps all ## coverage-guided fuzzing of every reader and of the C interface: hours (OPTIMIZE_FUZZ_RUNS=10000000)
	tools/fuzz.sh

bench: deps ## run the benchmarks
	cargo bench

# Does not depend on `all`: users who may write to PREFIX often have no cargo.
install: ## install under PREFIX (/usr/local), staged in DESTDIR
	@test -f $(LIBRARY) && test -f $(COMMAND) || { echo 'Nothing is built yet: run make first.' >&2; exit 1; }
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(CMAKEDIR)' '$(DESTDIR)$(INCLUDEDIR)/optimize' '$(DESTDIR)$(BINDIR)'
	$(INSTALL) -m 755 $(LIBRARY) '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(VERSION)'
	ln -sfn liboptimize.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(ABI)'
	ln -sfn liboptimize.so.$(ABI) '$(DESTDIR)$(LIBDIR)/liboptimize.so'
	$(INSTALL) -m 644 include/optimize.h include/optimize.hpp '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 644 include/optimize/*.hpp '$(DESTDIR)$(INCLUDEDIR)/optimize'
	$(INSTALL) -m 755 $(COMMAND) '$(DESTDIR)$(BINDIR)/optimize'
	$(FILL) tools/install/optimize.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/optimize.pc'
	$(FILL) tools/install/optimizeConfig.cmake.in >'$(DESTDIR)$(CMAKEDIR)/optimizeConfig.cmake'
	$(FILL) tools/install/optimizeConfigVersion.cmake.in >'$(DESTDIR)$(CMAKEDIR)/optimizeConfigVersion.cmake'

uninstall: ## remove what install put there
	rm -f '$(DESTDIR)$(LIBDIR)/liboptimize.so' '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(ABI)' \
	      '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/pkgconfig/optimize.pc' \
	      '$(DESTDIR)$(INCLUDEDIR)/optimize.h' '$(DESTDIR)$(INCLUDEDIR)/optimize.hpp' '$(DESTDIR)$(BINDIR)/optimize'
	rm -rf '$(DESTDIR)$(CMAKEDIR)' '$(DESTDIR)$(INCLUDEDIR)/optimize'

clean: ## remove target/ (the cache of fetched packages stays)
	rm -rf target

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 12
