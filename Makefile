# What everybody types. `make help` lists it.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/setup.stamp
PACKAGES := lab/packages.txt
PACKAGING := $(VENV)/packaging.stamp
PACKAGING_PACKAGES := lab/packaging-packages.txt
TESTING := $(VENV)/testing.stamp
TEST_PACKAGES := lab/test-packages.txt
DAILY := not faults or representative

.DEFAULT_GOAL := help
.PHONY: help setup lint test test-unit test-guests image record-memory demo clean packages

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(TESTING) ## install all that is missing, for tests too: distribution packages (apt-get, sudo) and .venv

.PHONY: command
command: $(STAMP) ## .venv/bin/dynmem, for hosts without our packages

# Only what dpkg does not have is installed; the apt lists are fetched only then.
$(STAMP): pyproject.toml requirements.txt $(PACKAGES)
	@lab/install-packages $(PACKAGES)
	@test -x $(PYTHON) || python3 -m venv $(VENV)
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Whoever tries the demo, or wants the command alone, need not wait for packaging tools.
$(PACKAGING): $(STAMP) $(PACKAGING_PACKAGES)
	@lab/install-packages $(PACKAGING_PACKAGES)
	@touch $@

# A browser and Cockpit, which listens: nobody who only builds packages is to get them.
$(TESTING): $(PACKAGING) $(TEST_PACKAGES)
	@lab/install-packages $(TEST_PACKAGES)
	@touch $@

.PHONY: pins
pins: ## write requirements.txt anew: what pyproject.toml asks for, in the versions that are there; UPGRADE=1: in the newest
	python3 -m venv build/pins
	build/pins/bin/pip install --quiet --disable-pip-version-check pip-tools
	build/pins/bin/python -m lab.pins $(if $(UPGRADE),--upgrade)

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Real guests wait for most of their time, and hold beside a machine that is busy. So the stories of
# guests that others may disturb run beside them, and then the unit tests; both are shown at the end. A shell has
# what runs beside it ignore Ctrl-C, and make would end its tests by SIGTERM, which leaves their guests running.
test: $(TESTING) lint ## lint, unit, simulated and real-guest tests; of the faults (`make faults`) a few
	@mkdir -p build
	@env --default-signal=INT $(MAKE) --no-print-directory --keep-going NICE='nice -n 10' test-beside >build/test-beside.log 2>&1 & beside=$$!; \
	trap 'wait $$beside' INT; trap 'kill $$beside' TERM; \
	$(MAKE) --no-print-directory test-guests GUESTS='guests and not beside'; guests=$$?; \
	wait $$beside; beside=$$?; cat build/test-beside.log; \
	test $$guests -eq 0 -a $$beside -eq 0

.PHONY: test-beside
test-beside: test-stories test-unit

test-unit: $(TESTING) ## what boots no guest, a file at a time on each processor
	$(NICE) $(PYTHON) -m pytest -m 'not guests and not fleet and not cockpit' -n logical --dist loadfile

.PHONY: test-cockpit
test-cockpit: $(TESTING) ## the page in a real Cockpit on loopback, in headless Chromium, and as root behind its login; 2 to 4 minutes
	lab/install-packages lab/cockpit-packages.txt
	$(PYTHON) -m pytest -m cockpit

GUESTS := guests

test-guests: $(TESTING) ## real guests under QEMU and a private libvirt, one test at a time
	$(PYTHON) -m pytest -m '$(GUESTS) and ($(DAILY))' --durations=12

.PHONY: test-stories
test-stories: $(TESTING) ## of these the two long stories in which nothing is timed
	$(PYTHON) -m pytest -m 'guests and beside' --durations=3

.PHONY: faults soak-guests
faults: $(TESTING) ## every fault on real guests, with a table, and what takes long of a VM's life; about 45 minutes
	lab/install-packages lab/faults-packages.txt
	$(PYTHON) -m pytest -s -m faults tests/guests/faults tests/guests --faults-table=docs/faults.md

# Two cells at a time: nodes, migrations and guests that boot wait for most of their time.
FLEET := -m fleet -n 2 --dist loadfile --no-loadscope-reorder --durations=12

.PHONY: test-fleet test-fleet-quick
test-fleet: $(TESTING) ## as root: three nodes in namespaces with corosync, pacemaker, libvirtd, dynmem and real guests; 15 minutes
	lab/install-packages lab/fleet-packages.txt
	$(PYTHON) -m pytest $(FLEET) tests/fleet

test-fleet-quick: $(TESTING) ## its quick half: starts by demand, drains refused and done, the scheduler asked; 8 minutes; what cannot be had here is said, and is no failure
	$(PYTHON) -m lab.cluster.quick $(FLEET) tests/fleet/test_cluster.py tests/fleet/test_scheduler.py

soak-guests: $(TESTING) ## three real guests under random work and random faults for 20 minutes
	$(PYTHON) -m tests.guests.faults.soak --table docs/faults.md

image: $(STAMP) ## build the guest image, if it is not in the cache yet
	$(PYTHON) -m lab.image

record-memory: $(STAMP) ## play tests/data/guest_memory.toml to a real guest and record it; three minutes
	$(PYTHON) -m lab.record_memory

demo: $(STAMP) ## three real guests that contend for memory, live
	$(PYTHON) -m lab.demo

.PHONY: vagrant-lab vagrant-end test-vagrant
vagrant-lab: $(PACKAGING) ## three Vagrant guests to try things on (vagrant/README.md); NETNS=1: touching nothing else here
	$(PYTHON) -m vagrant.lab up $(if $(NETNS),--netns)

vagrant-end: $(STAMP) ## remove them again, and all that came with them
	$(PYTHON) -m vagrant.lab end

test-vagrant: $(TESTING) ## that lab for real: up, a growth, a reload, destroy, nothing left; 15 minutes without KVM
	$(PYTHON) -m vagrant.test

clean: ## remove what was built here (the cached guest image stays: `python -m lab.image --remove`)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: bench bench-agents bench-check bench-counted bench-giver bench-growth bench-memory bench-operator
bench: $(TESTING) ## the loop on real guests, the daemon under load, the agent's size; at most 20 minutes
	$(PYTHON) -m bench.real

bench-agents: $(TESTING) ## what the agent executes while its guest grows, and what it did before it was made cheaper; about 5 minutes
	$(PYTHON) -m bench.real --only agents

bench-operator: $(TESTING) ## what an operator waits for: `status`, the API, /metrics, the page; about two minutes
	$(PYTHON) -m bench.real --only operator

bench-counted: $(TESTING) ## jobs that start small, alone and four at once, by what guests execute and not by time; about 25 minutes
	$(PYTHON) -m bench.real --only counted counted_four

bench-giver: $(TESTING) ## what it costs a guest that works to give a GiB, by virtio-mem and by balloon, ours and bare QMP; about 5 minutes
	$(PYTHON) -m bench.real --only giver

bench-growth: $(TESTING) ## five guests from 1 to 16 GiB as fast as it goes, by virtio-mem and by DIMMs; about 30 minutes, 20 GiB free
	$(PYTHON) -m bench.real --only growth

bench-memory: $(TESTING) ## a GiB taken, given back and used again, by virtio-mem and by balloon, ours and bare QMP; about 12 minutes
	$(PYTHON) -m bench.real --only memory

bench-check: $(TESTING) ## the same, compared with the committed figures: fails beyond 25 %
	$(PYTHON) -m bench.real --check

.PHONY: replay-proof bench-against
replay-proof: $(STAMP) ## does the engine decide what it decided at commit BASE? RECORDINGS=DIR are asked, too; 2 minutes
	$(PYTHON) -m bench.replay $(BASE) $(if $(RECORDINGS),--recordings $(RECORDINGS))

bench-against: $(STAMP) ## is an engine step, and `bench-fast`, as quick as at commit BASE? about 5 minutes
	$(PYTHON) -m bench.replay $(BASE) --time

# What only simulates needs no package. PyPy 3.11 plays the same histories two to three times as fast: SIMULATE=pypy3.
SIMULATE := $(PYTHON)

.PHONY: bench-alone bench-density bench-fast bench-fleet bench-grid bench-scale duel soak mutants fuzz
bench-density: $(STAMP) ## VMs per host against every peer, counted in three ways; TRACES=DIR or a generated trace, MONTH=2013-08
	$(PYTHON) -m bench.density $(TRACES) $(if $(MONTH),--month $(MONTH))

bench-alone: $(STAMP) ## what builds cost on a host that has room; about a minute
	$(SIMULATE) -m bench.alone

bench-fast: $(STAMP) ## ramps and bursts second by second, against every peer; about 4 minutes
	$(SIMULATE) -m bench.fast

bench-grid: $(STAMP) ## every law on every kind of host; can be stopped and resumed; hours (PyPy: half), QUICK=1: 10 minutes
	$(SIMULATE) -m bench.grid $(if $(QUICK),--quick)

duel: $(STAMP) ## search the host on which a peer is ahead of us by most; SECONDS=1800 of a core, SEED=0; KEEP=FILE: in turns; LAW=NAME: a peer in our place
	$(SIMULATE) -m bench.duel $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP)) $(if $(LAW),--law $(LAW))

bench-fleet: bench-fleet-publications bench-fleet-places bench-fleet-day bench-fleet-arbiter ## all that is measured of fleets, part by part

.PHONY: bench-fleet-publications bench-fleet-places bench-fleet-day bench-fleet-arbiter
bench-fleet-publications: $(STAMP) ## what Pacemaker's scheduler does because of 1,000 random publications: nothing; 2 to 10 minutes
	lab/install-packages lab/fleet-packages.txt
	$(PYTHON) -m bench.fleet --publications 1000 $(if $(SEED),--first $(SEED)) $(if $(CELL),--cell $(CELL))

bench-fleet-places: $(STAMP) ## VMs that 8 hosts hold when starts go where memory is; TRACES=DIR or a generated trace, ORDERS=10: some minutes each
	lab/install-packages lab/fleet-packages.txt
	$(PYTHON) -m bench.fleet_sampled $(TRACES) $(if $(MONTH),--month $(MONTH))
	-$(PYTHON) -m bench.fleet_places $(TRACES) $(if $(MONTH),--month $(MONTH)) $(if $(ORDERS),--orders $(ORDERS)) --scheduler 100

bench-fleet-day: $(STAMP) ## a day of 1,024 hosts under every law; TRACES=DIR, CELLS=32: a minute each; can be stopped and resumed
	$(PYTHON) -m bench.fleet_day $(TRACES) $(if $(MONTH),--month $(MONTH)) $(if $(CELLS),--cells $(CELLS))

bench-fleet-arbiter: $(STAMP) ## what the arbiter of 32 hosts and 640 VMs costs; two minutes
	lab/install-packages lab/fleet-packages.txt
	$(PYTHON) -m bench.arbiter

bench-scale: $(STAMP) ## what an engine step costs, up to 10,000 VMs
	$(PYTHON) -m bench.scale

soak: $(STAMP) ## a million random engine steps and more, all rules checked; 20 minutes. STEPS=10000000 KEEP=FILE: in many turns
	$(SIMULATE) -m tests.simulated.soak --steps $(or $(STEPS),1000000) --pairs 1000 $(if $(KEEP),--keep $(KEEP)) $(if $(SEED),--seed $(SEED))

mutants: $(STAMP) ## does a test fail for every small error in the core? some minutes; CHANGED=1: in what differs from origin/main
	$(PYTHON) -m tests.mutants $(if $(CHANGED),--changed)

fuzz: $(STAMP) ## coverage-guided fuzzing of all that reads hostile bytes, a million inputs each; about 20 minutes
	$(PYTHON) -m tests.fuzz

packages: $(PACKAGING) ## dist/: the .deb of the agent and of the controller, by dpkg-buildpackage
	$(PYTHON) -m lab.packages

.PHONY: pyz
pyz: $(STAMP) ## dist/dynmem-agent.pyz: the agent as one file, for guests that get no package
	$(PYTHON) -m host_controller.delivery.agent_file dist/dynmem-agent.pyz

.PHONY: test-domains
test-domains: $(STAMP) ## DIR=…: every domain XML in a folder through enable, start, growth, disable under a real libvirt
	$(PYTHON) -m lab.domains $(DIR) $(if $(GROWTH),--growth $(GROWTH))

.PHONY: matrix matrix-guests test-suite
matrix: $(TESTING) ## hosts: Debian 12, its backports, 13 and the next, with their QEMU, libvirt and Python; SUITE=trixie: one, CELL="hot remove"
	$(PYTHON) -m lab.matrix $(SUITE) $(if $(CELL),--cell '$(subst ','\'',$(CELL))')

matrix-guests: $(TESTING) ## guests: Debian 11 to the next with the agent's package, growing in each way; SUITE=bullseye: one, GROWTH=balloon
	$(PYTHON) -m lab.matrix.guests $(SUITE) $(if $(GROWTH),--growth $(GROWTH))

test-suite: $(TESTING) ## one host or guest of the matrix, chosen by the commit's hash; COMMIT=7369792: by that one's
	$(PYTHON) -m lab.matrix.of_commit $(COMMIT)

.PHONY: rpms
rpms: $(PACKAGING) ## dist/: the .rpm of the agent and of the controller, by rpmbuild
	$(PYTHON) -m lab.rpms

.PHONY: release
release: $(TESTING) ## KEY=… (OpenPGP, or the file of an SSH key): check, build twice, sums, signature, tag; TESTED=commit: tests passed there
	$(PYTHON) -m lab.release $(KEY) $(if $(TESTED),--tested $(TESTED))
