# The commands of a working day. `make demo` needs no root; `make test` runs more as root on Debian.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What the tests marked `root` drive for real, and what the lab is made with.
TEST_PACKAGES := openssh-server openssh-client nftables iproute2 prometheus lvm2 thin-provisioning-tools \
	xfsprogs util-linux libvirt-clients libxml2-utils zstd tar curl pdsh systemd \
	qemu-system-x86 qemu-utils mmdebstrap apt-utils e2fsprogs tcpdump procps \
	ipmitool openipmi busybox dnsmasq-base ipxe ipxe-qemu nginx-light xz-utils gzip fdisk ovmf chromium
# Four workers on two cores: most tests wait for something most of the time.
PYTEST_FLAGS ?= -n 4 --dist loadfile
SCHEDULES ?= 100000

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-bare-metal soak test-packages check format bench pictures lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

venv: $(VENV)/.stamp ## make .venv with vcrecon and the pinned tools in it

$(VENV)/.stamp: requirements.lock pyproject.toml .ci/venv
	PYTHON=$(PYTHON) .ci/venv

demo: venv ## run the tutorial site, simulated, from spec to self-healing (about two minutes)
	$(BIN)/vcrecon demo

# The lab's emulated hosts leave processor time: installs on the bench and the simulation run beside it.
test: venv test-packages check ## everything that must pass before a change lands
	$(BIN)/pytest $(PYTEST_FLAGS) -m "not lab and not bare_metal and not simulation and not soak"
	.ci/beside '$(BIN)/pytest -m "bare_metal and not lab" --durations=0 && \
		$(BIN)/pytest -n 2 --dist load -m "simulation and not soak" --durations=10' \
		sh -c '$(BIN)/pytest -m "lab and not bare_metal" --durations=40 && \
		$(BIN)/pytest -m "lab and bare_metal" --durations=20'

test-bare-metal: venv test-packages ## all installs: also captured machines, images built twice, the whole story over PXE
	VCRECON_TEST_BOOT=all $(BIN)/pytest -m "bare_metal and not lab"
	VCRECON_TEST_BOOT=all $(BIN)/pytest -m "bare_metal and lab"
	VCRECON_TEST_BOOT=all $(BIN)/pytest -m "by_hand and not bare_metal"

soak: venv test-packages ## fresh seeds for hours: the simulation, its sweeps and models, specs, real processes, the service, seeded bugs
	$(BIN)/python -m tests.simulation --schedules $(SCHEDULES) --jobs $$(nproc) --json
	$(BIN)/python -m tests.simulation.sweep --all --jobs $$(nproc) --json
	$(BIN)/python -m tests.simulation.sweep --views --jobs $$(nproc) --json
	$(BIN)/pytest -m soak
	$(BIN)/python -m tests.fuzz --inputs 200000
	$(BIN)/python -m tests.faults --runs 200
	$(BIN)/python -m tests.soak --containers 200 --guests 1000 --minutes 30 --json
	$(BIN)/python -m tests.seeded_bugs

test-packages:
	@if [ "$$(id -u)" -eq 0 ] && [ -e /etc/debian_version ]; then \
		.ci/debian-packages $(TEST_PACKAGES); \
	else \
		echo "test: not root on Debian, so tests marked 'root' are skipped; pytest lists them at the end."; \
		echo "test: they need these packages: $(TEST_PACKAGES)"; \
	fi

check: venv ## lint, format, types, import layers, generated files current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src dashboards
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q -p no:cacheprovider -m generated

format: venv ## let ruff format and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## measure, print a table, write JSON (see benchmarks/)
	$(BIN)/python -m benchmarks

pictures: venv ## take the pictures in docs/images anew (needs Debian's chromium; a few minutes)
	$(BIN)/python -m tests.support.pictures

lock: ## rewrite requirements.lock (UPGRADE=--upgrade takes newer versions)
	PYTHON=$(PYTHON) UPGRADE=$(UPGRADE) .ci/lock

clean: ## remove what make and the tools made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
