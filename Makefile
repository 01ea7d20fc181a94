# liboptimize: build, demo, tests, installation. `make help` lists the targets.
#
# cargo, tools/deps.sh and tests/run.sh do the work.

PREFIX     ?= /usr/local
DESTDIR    ?=
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR     ?= $(PREFIX)/bin
DATADIR    ?= $(PREFIX)/share
# If this is not empty, the installed folder may be moved: optimize.pc refers to its own folder.
RELOCATABLE ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
MAJOR   := $(firstword $(subst ., ,$(VERSION)))
# Before 1.0, a minor version may break programs, so the soname contains it.
ABI     := $(if $(filter 0,$(MAJOR)),$(basename $(VERSION)),$(MAJOR))

INSTALL = install
CMAKEDIR = $(LIBDIR)/cmake/optimize
relative = $$(realpath -m --relative-to='$(1)' '$(2)')
# With RELOCATABLE, paths in optimize.pc are relative to its own folder.
PC_PREFIX     = $(if $(RELOCATABLE),\$${pcfiledir}/$(call relative,$(LIBDIR)/pkgconfig,$(PREFIX)),$(PREFIX))
PC_LIBDIR     = $(if $(RELOCATABLE),\$${prefix}/$(call relative,$(PREFIX),$(LIBDIR)),$(LIBDIR))
PC_INCLUDEDIR = $(if $(RELOCATABLE),\$${prefix}/$(call relative,$(PREFIX),$(INCLUDEDIR)),$(INCLUDEDIR))
MANDIR = $(DATADIR)/man/man1
BASHDIR = $(DATADIR)/bash-completion/completions
ZSHDIR = $(DATADIR)/zsh/site-functions
FISHDIR = $(DATADIR)/fish/vendor_completions.d
FILL = sed -e "s|@PC_PREFIX@|$(PC_PREFIX)|g" -e "s|@PC_LIBDIR@|$(PC_LIBDIR)|g" -e "s|@PC_INCLUDEDIR@|$(PC_INCLUDEDIR)|g" \
           -e 's|@VERSION@|$(VERSION)|g' -e 's|@ABI@|$(ABI)|g' \
           -e "s|@INCLUDE_FROM_LIB@|$(call relative,$(LIBDIR),$(INCLUDEDIR))|g"

# Scripts and tests expect cargo's output in target/, whatever the user's cargo configuration is.
export CARGO_TARGET_DIR := $(CURDIR)/target

LIBRARY = target/release/liboptimize.so
# The path of the static library, which is installed if this is not empty. Only `make dist` builds it.
STATIC  =
COMMAND = target/release/optimize
MODEL  ?= target/deps/models/paraphrase-MiniLM-L3-v2/model.onnx

.DEFAULT_GOAL := all
.PHONY: all table deps demo test test-gpu lint fuzz fuzz-long reference bench dist nupkg install uninstall clean help

all: ## build the library and the command
	cargo build --release

deps: ## fetch ONNX Runtime, and the models, data and tools of the tests
	tools/deps.sh test

demo: ## quantize a real model to int8 and compare it with the original (MODEL=file.onnx for your own)
	tools/deps.sh $(if $(filter file,$(origin MODEL)),demo,runtime)
	cargo build --release
	@mkdir -p target/demo
	$(COMMAND) quantize --model $(MODEL) --type dynamic --bits 8 --output target/demo/minilm-int8 --benchmark

.PHONY: readme
readme: deps all ## run the demo and write its output into README.md
	tools/readme.sh

table: deps all ## measure every technique on two models: up to 45 minutes; writes the table of README.md
	tools/table.sh

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

reference: ## write the HTML reference of the C interface into target/reference, with doxygen
	tools/reference.sh

bench: deps ## run the benchmarks
	cargo bench

dist: ## build a release for glibc 2.28 and pack it into target/dist: see RELEASING.md
	tools/deps.sh runtime
	tools/dist.sh build
	tools/dist.sh pack target/dist

nupkg: ## make the NuGet package of target/release, with Mono's compiler: see bindings/csharp/README.md
	tools/deps.sh runtime
	tools/nupkg.sh target/release target/dist

# This target does not depend on `all`, because users who may write to PREFIX often have no cargo.
install: ## install under PREFIX (/usr/local), staged in DESTDIR
	@test -f $(LIBRARY) && test -f $(COMMAND) || { echo 'Nothing is built yet: run make first.' >&2; exit 1; }
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(CMAKEDIR)' '$(DESTDIR)$(INCLUDEDIR)/optimize' '$(DESTDIR)$(BINDIR)'
	$(INSTALL) -m 755 $(LIBRARY) '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(VERSION)'
	ln -sfn liboptimize.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(ABI)'
	ln -sfn liboptimize.so.$(ABI) '$(DESTDIR)$(LIBDIR)/liboptimize.so'
	$(INSTALL) -m 644 include/optimize.h include/optimize.hpp '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 644 include/optimize/*.hpp '$(DESTDIR)$(INCLUDEDIR)/optimize'
	$(if $(STATIC),$(INSTALL) -m 644 $(STATIC) '$(DESTDIR)$(LIBDIR)/liboptimize.a')
	$(INSTALL) -m 755 $(COMMAND) '$(DESTDIR)$(BINDIR)/optimize'
	$(INSTALL) -d '$(DESTDIR)$(MANDIR)' '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	$(COMMAND) man --output '$(DESTDIR)$(MANDIR)'
	$(COMMAND) completions bash >'$(DESTDIR)$(BASHDIR)/optimize'
	$(COMMAND) completions zsh >'$(DESTDIR)$(ZSHDIR)/_optimize'
	$(COMMAND) completions fish >'$(DESTDIR)$(FISHDIR)/optimize.fish'
	$(FILL) tools/install/optimize.pc.in >'$(DESTDIR)$(LIBDIR)/pkgconfig/optimize.pc'
	$(FILL) tools/install/optimizeConfig.cmake.in >'$(DESTDIR)$(CMAKEDIR)/optimizeConfig.cmake'
	$(FILL) tools/install/optimizeConfigVersion.cmake.in >'$(DESTDIR)$(CMAKEDIR)/optimizeConfigVersion.cmake'

uninstall: ## remove what install put there
	rm -f '$(DESTDIR)$(LIBDIR)/liboptimize.so' '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(ABI)' \
	      '$(DESTDIR)$(LIBDIR)/liboptimize.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/pkgconfig/optimize.pc' \
	      '$(DESTDIR)$(INCLUDEDIR)/optimize.h' '$(DESTDIR)$(INCLUDEDIR)/optimize.hpp' '$(DESTDIR)$(BINDIR)/optimize' \
	      '$(DESTDIR)$(LIBDIR)/liboptimize.a' '$(DESTDIR)$(MANDIR)'/optimize.1 '$(DESTDIR)$(MANDIR)'/optimize-*.1 \
	      '$(DESTDIR)$(BASHDIR)/optimize' '$(DESTDIR)$(ZSHDIR)/_optimize' '$(DESTDIR)$(FISHDIR)/optimize.fish'
	rm -rf '$(DESTDIR)$(CMAKEDIR)' '$(DESTDIR)$(INCLUDEDIR)/optimize'

clean: ## remove target/ (the cache of fetched packages stays)
	rm -rf target

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' $(MAKEFILE_LIST) | expand -t 12
