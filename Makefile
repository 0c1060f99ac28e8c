# Drives the build for people; CI calls the same targets.
# ARGS reaches the program that a target runs: make serve ARGS="--port 9000".
MAKEFLAGS += --no-print-directory
VENV := build/venv
ARGS :=
JOBS := $(shell nproc)
SOURCES = $$(git ls-files '*.h' '*.cc')

.PHONY: help serve test asan tsan fuzz format check tidy bench clean packages fuzz-packages test-packages
.SECONDARY:

help:  ## list these targets
	@sed -nE 's/^([a-z ]+):.*  ## (.*)/  make \1\t\2/p' Makefile | expand -t 16

serve: build/release/build.ninja $(VENV)/serve.stamp  ## install what is missing, build, serve the default model
	cmake --build build/release --target bullpen
	build/release/bullpen serve $(ARGS)

test: test-packages build/release/build.ninja $(VENV)/tests.stamp  ## install what is missing, build, run all tests
	cmake --build build/release
	ctest --test-dir build/release --output-on-failure --parallel $(JOBS) $(ARGS)

# The unit and engine tests; clients in other languages add nothing here.
asan tsan: %: test-packages build/%/build.ninja $(VENV)/tests.stamp  ## run the unit tests under AddressSanitizer and UBSan, or ThreadSanitizer
	cmake --build build/$@
	ctest --test-dir build/$@ --output-on-failure --parallel $(JOBS) --label-regex unit $(ARGS)

fuzz: fuzz-packages build/fuzz/build.ninja  ## run each fuzz target under libFuzzer for ten minutes (ARGS: other seconds)
	cmake --build build/fuzz --target fuzz
	tests/fuzz/run.sh build/fuzz $(ARGS)

check: test-packages  ## check the format, the include arrows and the style rules
	tools/check_format.sh
	python3 tools/check_layers.py
	python3 tools/tidy.py

format: test-packages  ## format all C++ sources
	clang-format-19 -i $(SOURCES)

tidy: build/dev/build.ninja  ## run clang-tidy (minutes; not part of CI)
	cmake --build build/dev --target bullpen_proto
	run-clang-tidy-19 -quiet -p build/dev $(ARGS) '$(CURDIR)/(base|kernels|engine|tools|server|clients|bench)/'

bench: build/release/build.ninja $(VENV)/serve.stamp  ## measure the server and decoding on this machine
	cmake --build build/release
	bench/serve/run.sh build/release $(ARGS)

clean:  ## remove everything that was built
	rm -rf build

packages:
	@tools/install_packages.sh build

test-packages:
	@tools/install_packages.sh build test

fuzz-packages:
	@tools/install_packages.sh build fuzz

build/%/build.ninja: | packages
	cmake --preset $*

$(VENV)/bin/python: | packages
	python3 -m venv $(VENV)

$(VENV)/serve.stamp: tools/requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(VENV)/tests.stamp: tests/requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
