# Short names for scripts and tools; `make help` lists them. Nothing here is needed to install, run or test gale.
.PHONY: help install demo test check unit rpc raft sim packet e2e faults kernel-e2e e2e-monitoring deb e2e-package e2e-containers bench bench-control bench-packet bench-peers fuzz docs proto lock

help: ## this list
	@sed -n 's/^\([a-z0-9 -]*\):.*## \(.*\)/\1: \2/p' Makefile

install: ## everything a fresh Debian 12 or Ubuntu 24.04 needs, and the four commands
	scripts/install

demo: ## a cluster of namespaces under real traffic, shown live
	scripts/demo

test: ## every test; what CI runs
	scripts/test

check unit rpc raft packet e2e: ## one layer of the tests
	scripts/test $@

faults: ## what gale must survive, on real processes under traffic, with every figure beside its bound
	.venv/bin/python -m pytest e2e/plane e2e/faults --faults long --faults-results bench/results

kernel-e2e: ## packet tests and every mode on Debian's stock kernel, under qemu
	scripts/kernel-e2e

e2e-monitoring: ## a real Prometheus, the alerts, the dashboard and the page in a browser, on a lab
	scripts/monitoring-e2e

deb: ## a Debian package in build/deb
	scripts/deb

e2e-package: ## the package of `make deb` and its units, on containers that boot Debian
	.venv/bin/python -m pytest e2e/containers/test_package.py --containers

e2e-containers: ## three load balancers and three nodes as containers: the playbooks, then the tests of e2e/hosts
	.venv/bin/python -m pytest e2e/containers/test_fleet.py --containers

sim: ## the control plane on a seeded network, clock and disk: make sim SEED=1 RUNS=100
	.venv/bin/python -m tests.sim --seed $(or $(SEED),1) --runs $(or $(RUNS),100)

bench-packet: ## nanoseconds per packet: every mode, IP version, protocol and case
	.venv/bin/python -m bench packet

fuzz: ## frames against the model of the packet path: make fuzz SEED=1 INPUTS=10000000
	.venv/bin/python -m tests.packet.fuzz --seed $(or $(SEED),1) --inputs $(or $(INPUTS),10000000)

bench-peers: ## beside HAProxy, nginx, nftables and no load balancer: packets, requests, bulk, changes
	.venv/bin/python -m bench traffic change

bench-control: ## deciding and checking: up to seven load balancers and ten thousand nodes
	.venv/bin/python -m bench control scale

bench: ## every number, table and plot; make bench QUICK=1 is a try
	.venv/bin/python -m bench $(if $(QUICK),--quick)

docs: ## the documentation as a site: build/site/index.html
	scripts/docs

proto: ## gale/rpc/v1/ from proto/
	scripts/proto

lock: ## requirements*.lock from pyproject.toml
	scripts/lock
