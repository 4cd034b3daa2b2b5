# SPDX-License-Identifier: GPL-2.0-only
# KERNELS="6.18 7.2" chooses kernels for the VM; without it the default one of scripts/fetch-kernel.sh.
# make suite SUITE_CPUS=8 SUITE_LLCS=4 SUITE_NODES=2 SUITE_SMT=--smt SUITE_ARGS='--rounds 3 --workloads compile' SUITE_DIR=...
SUITE_CPUS := 4
SUITE_LLCS := 2
SUITE_NODES := 1
SUITE_SMT :=
SUITE_MEMORY := 6G
SUITE_TIMEOUT := 21600
SUITE_DIR := target/suite
SUITE_ARGS :=
TEST_KERNELS := 6.17 6.16 6.18 7.2

export PATH := $(HOME)/.cargo/bin:$(PATH)
# The guest has another HOME, and finds the published schedulers by this.
export SCX_RL_CACHE := $(or $(SCX_RL_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/scx_rl)
.DEFAULT_GOAL := help
SCX_RL := target/release/scx_rl
step := @scripts/step.sh
c_sources := $(wildcard src/bpf/*.[ch] src/sim/shim/*.[ch] src/sim/shim/scx/*.h)
# All integration tests but those that boot VMs: files, and folders with a main.rs.
host_tests := $(patsubst tests/%.rs,--test %,$(filter-out tests/vm%.rs tests/storm.rs,$(wildcard tests/*.rs))) \
	$(patsubst tests/%/main.rs,--test %,$(wildcard tests/*/main.rs))

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: setup
setup: ## install what building and testing need (Debian 12; may be run again at any time)
	$(step) "set-up" scripts/setup.sh

.PHONY: kernels
kernels: ## unpack kernels with sched_ext into the cache folder, for the VM
	$(step) "kernels" scripts/fetch-kernel.sh $(KERNELS)

.PHONY: test-kernels
test-kernels: ## the kernels that the tests boot
	$(step) "kernels" scripts/fetch-kernel.sh $(TEST_KERNELS)

.PHONY: build
build: ## the release build
	$(step) "build" cargo build --release

.PHONY: demo
demo: setup kernels build ## learn and compare in a VM; the result is target/demo.json
	@mkdir -p target/demo
	$(step) "demo" $(SCX_RL) vm --cpus 4 --llcs 2 --timeout 900 --rwdir target/demo -- \
		$(SCX_RL) demo --out-dir target/demo
	@cp target/demo/demo.json target/demo.json

.PHONY: peers
peers: setup ## install the published schedulers of the suite into the cache folder
	$(step) "peers" scripts/peers.sh

.PHONY: deb
deb: setup build ## the Debian package: target/debian/scx_rl.deb
	$(step) "Debian package" scripts/deb.sh

.PHONY: suite-setup
suite-setup: ## as setup, and the programs of the suite's workloads
	$(step) "suite set-up" scripts/setup.sh suite

.PHONY: suite
suite: suite-setup kernels build peers ## compare schedulers on real programs in a VM; the result is target/suite/summary.json
	@mkdir -p $(SUITE_DIR)
	$(step) "suite" $(SCX_RL) vm --cpus $(SUITE_CPUS) --llcs $(SUITE_LLCS) --nodes $(SUITE_NODES) $(SUITE_SMT) \
		--memory $(SUITE_MEMORY) --timeout $(SUITE_TIMEOUT) --rwdir $(SUITE_DIR) -- \
		$(SCX_RL) suite --out-dir $(SUITE_DIR) $(SUITE_ARGS)

.PHONY: test
test: setup test-kernels check deb ## everything: formats, lints, tests here, tests in VMs
	$(step) "tests" cargo test --release --no-fail-fast --lib --bins $(host_tests)
	$(step) "examples in the documentation" cargo test --release --doc
	$(step) "tests in VMs" cargo test --release --no-fail-fast --test 'vm*' -- --test-threads=1
	$(step) "storms, short form" cargo test --release --test storm -- --short

# STORM=NAME chooses cases (those whose name contains it); EEVDF=1 runs them without scx_rl, for comparison.
.PHONY: storm
storm: setup test-kernels build ## the reliability suite: kernels x topologies, storms, fairness
	$(step) "storms" cargo test --release --test storm -- --full $(if $(EEVDF),--eevdf) $(STORM)

.PHONY: storm-short
storm-short: setup test-kernels build ## its short form, which is in make test
	$(step) "storms, short form" cargo test --release --test storm -- --short $(STORM)

# In a VM for each kernel, because loading needs sched_ext.
.PHONY: verifier-record
verifier-record: setup test-kernels build ## write anew what the BPF programs cost to verify
	@mkdir -p target/verifier && rm -f target/verifier/record.json
	@for kernel in $(TEST_KERNELS); do $(SCX_RL) vm --kernel $$kernel --cpus 2 --llcs 1 --timeout 120 \
		--rwdir target/verifier -- $(SCX_RL) verifier --record target/verifier/record.json || exit 1; done
	cp target/verifier/record.json tests/verifier/record.json

.PHONY: bless
bless: build ## train the checkpoint that is built into scx_rl anew, and measure it, in the simulator
	$(step) "training" scripts/bless.sh

.PHONY: check
check: ## formats and lints only
	$(step) "rustfmt" cargo fmt --check
	$(step) "clang-format" clang-format-19 --dry-run -Werror $(c_sources)
	$(step) "shellcheck" shellcheck $(wildcard scripts/*.sh experiments/*.sh experiments/*/*.sh) .ci/run src/vm/guest.sh
	$(step) "clippy" cargo clippy --release --all-targets -- -D warnings

.PHONY: bench
bench: build ## what one decision costs
	$(step) "bench" $(SCX_RL) bench --json target/bench.json

.PHONY: fmt
fmt: ## bring all sources into shape
	cargo fmt
	clang-format-19 -i $(c_sources)

.PHONY: vm-shell
vm-shell: build ## a shell in a VM with 4 CPUs in 2 LLCs
	$(SCX_RL) vm --cpus 4 --llcs 2

.PHONY: clean
clean: ## remove what was built here (the cache folder is shared and stays)
	cargo clean
