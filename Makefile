# Thin over xtask (`cargo xtask help`), which does the work. `make` alone tells what there is.

.PHONY: help up down check test lab-test bench conformance fuzz-api tidy image image-debian clients tools

help:
	@echo "make up            start a cloud on this machine, with a first server (ARCUS_HOME, ARCUS_PORT, ARCUS_UPLINK)"
	@echo "make down          stop it and leave nothing behind (KEEP_DATA=1 keeps its data)"
	@echo "make check         formatting, lints, house rules, documentation, dependencies"
	@echo "make test          make check, then all tests (ONLY=filter for some of them, without make check)"
	@echo "make lab-test      tests with several nodes and real guests, as root"
	@echo "make bench         all benchmarks (ONLY=name for one); a table, and target/bench.json"
	@echo "make conformance   tempest's API tests against a cloud with real guests (ONLY=service, LIST=file of test ids)"
	@echo "make fuzz-api      every route with hostile input (ROUNDS=200 for each policy case, SEED=n repeats a run)"
	@echo "make image         the guest image arcus-tiny, if its inputs changed"
	@echo "make image-debian  a full Debian 12 guest image with cloud-init"
	@echo "make clients       the OpenStack clients that the tests use, in target/clients"
	@echo "make tools         the optional development tools (cargo-nextest, cargo-deny)"

up:
	@./bootstrap run
	@cargo xtask up

down:
	@cargo xtask down $(if $(KEEP_DATA),--keep-data)

check:
	@./bootstrap run
	@cargo xtask check

test:
	@./bootstrap test
	@cargo xtask test $(ONLY)

lab-test:
	@./bootstrap test
	@cargo xtask image
	@cargo nextest run --profile lab -p arcus

bench:
	@./bootstrap test
	@cargo xtask bench $(ONLY)

conformance:
	@./bootstrap test
	@cargo xtask conformance $(if $(ONLY),--only $(ONLY)) $(if $(LIST),--list $(LIST))

fuzz-api:
	@./bootstrap test
	@cargo xtask fuzz-api $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED))

tidy:
	@cargo xtask tidy

image:
	@./bootstrap run
	@cargo xtask image

image-debian:
	@./bootstrap debian
	@cargo xtask image-debian

clients:
	@./bootstrap test
	@cargo xtask clients

tools:
	@cargo xtask tools
