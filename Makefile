# Needs GNU make, Git, Python 3.9 or later with its venv module, and a network to install Python packages from.
# To use another Python: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
# More workers than processors, because tests wait for silent remotes and for processes to end. Idle workers take tests
# from busy ones; otherwise a single worker would still be at work in the last minute.
PYTEST_ARGS ?= -n $(shell expr $$(nproc) + 2) --dist worksteal --timeout 300

PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
CHECKED = jens tests setup.py $(wildcard bin/jens-* wsgi/*.wsgi benchmarks)

# The Python for the tests during the build of the RPM, where the system's Python lacks modules that they need.
CHECK_PYTHON ?= $(CURDIR)/$(VENV)/bin/python
RPM_TOP = $(CURDIR)/build/rpm
RPMBUILD = rpmbuild --define "_topdir $(RPM_TOP)" $(RPMBUILD_ARGS)
# Debian's rpmbuild lacks macros that the spec needs.
ifeq ($(shell rpm --eval '%{?py3_build:yes}' 2>/dev/null),)
RPMBUILD += --load packaging/macros.debian --define "jens_test_python $(CHECK_PYTHON)" --nodeps
endif

# Made once, which takes a minute and a half; a changed script makes a new one.
HOST_ROOT ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/jens/debian-root-$(firstword $(shell cksum <packaging/debian-root))

.PHONY: help demo quick test soak lint bench format clean rpm check-rpm
.DELETE_ON_ERROR:

help:
	@echo 'make demo     make an example instance in ./demo, run jens-update, show the environments'
	@echo 'make quick    linters, type checks, unit tests and the tutorial: under a minute'
	@echo 'make test     linters, type checks and all tests: about a quarter of an hour on two processors'
	@echo 'make soak     kill runs two thousand times at random instants (KILLS=, SEED=), read thousands of hostile texts'
	@echo 'make rpm      build packages in build/rpm, and test them'
	@echo 'make check-rpm  install that on a small host of its own, upgrade and remove it; needs root, debootstrap, rpmlint'
	@echo 'make bench    measure a large site beside what bare Git needs, POLLs of real servers, pushes until visible, the producer, jens-compare, a year of history, going back, the status page'
	@echo 'make lint     linters and type checks alone'
	@echo 'make format   put the code into its standard form'
	@echo 'make .venv    install Jens from this directory into ./.venv, commands in .venv/bin'
	@echo 'make clean    remove what these have made, ./demo and ./.venv included'

demo: $(VENV)/.installed
	@test -e demo/main.conf || $(VENV)/bin/jens-init demo --example
	@$(VENV)/bin/jens-update -c demo/main.conf
	@echo
	@echo 'demo/environments'
	@cd demo/environments && find * | LC_ALL=C sort | while read -r path; do \
	    printf '    %s' "$$path" | sed 's|[^/ ][^/]*/|    |g'; \
	    if [ -L "$$path" ]; then echo " -> $$(readlink "$$path")"; else echo; fi; \
	done
	@echo
	@echo 'Look next at'
	@echo '    demo/environments/production  what Puppet would read'
	@echo '    demo/log/jens-update.log      what the run did'
	@echo '    demo/main.conf                what this instance uses'
	@echo '    demo/example-repositories     the remotes, a Git repository each'
	@echo 'and see a change arrive'
	@echo '    echo "# mine" >>demo/example-repositories/module-dummy/code/manifests/init.pp'
	@echo '    git -C demo/example-repositories/module-dummy -c user.name=Me -c user.email=me@example.org commit --all --message=Mine'
	@echo '    $(VENV)/bin/jens-update -c demo/main.conf'
	@echo '    tail -1 demo/environments/production/modules/dummy/manifests/init.pp'

# Tests start Python hundreds of times; they must not compile Jens each time, whatever the caller's environment says.
quick test soak: export PYTHONDONTWRITEBYTECODE =
quick: lint
	$(VENV)/bin/python -m pytest -q $(PYTEST_ARGS) tests/unit tests/test_architecture.py tests/test_docs.py \
	    tests/stories/test_tutorial.py

test: lint
	@echo 'All tests take about a quarter of an hour on two processors; make quick is over in one.'
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

KILLS ?= 2000
soak: $(VENV)/.installed-test
	JENS_SOAK=1 $(VENV)/bin/python -m pytest $(PYTEST_ARGS) --ignore=tests/faults/test_kills.py \
	    tests/faults tests/system/test_versions_server.py
	$(VENV)/bin/python -m tests.faults.soak --kills $(KILLS) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check $(CHECKED)
	$(VENV)/bin/ruff format --check $(CHECKED)
	$(VENV)/bin/mypy $(CHECKED)

# A site of 412 repositories, one of a third of that size and one of three times: 5 GB, a quarter of an hour.
BENCH_ARGS ?= --growth
bench: $(VENV)/.installed-test
	$(VENV)/bin/python benchmarks/site_scale.py --json build/benchmarks.json $(BENCH_ARGS)
	$(VENV)/bin/python benchmarks/poll_servers.py
	$(VENV)/bin/python benchmarks/producer_load.py
	$(VENV)/bin/python benchmarks/push_to_visible.py
	$(VENV)/bin/python benchmarks/compare_instances.py
	$(VENV)/bin/python benchmarks/history_year.py
	$(VENV)/bin/python benchmarks/hold.py
	$(VENV)/bin/python benchmarks/status_page.py

# The system's Python makes the archive, as it builds the package; it needs only setuptools.
rpm:
	rm -rf $(RPM_TOP)
	mkdir -p $(RPM_TOP)/SOURCES
	/usr/bin/python3 setup.py --quiet sdist --dist-dir $(RPM_TOP)/SOURCES
	$(RPMBUILD) -ba puppet-jens.spec
	@find $(RPM_TOP) -name '*.rpm'

check-rpm: $(VENV)/.installed-test
	@test -d $(HOST_ROOT) || { mkdir -p $(dir $(HOST_ROOT)) && \
	    PYTHON=$(VENV)/bin/python packaging/debian-root $(HOST_ROOT); }
	JENS_RPM_TOP=$(RPM_TOP) JENS_HOST_ROOT=$(HOST_ROOT) \
	    $(VENV)/bin/python -m pytest --timeout 300 tests/packaging/test_rpm.py tests/packaging/test_rpm_life.py

format: $(VENV)/.installed-test
	$(VENV)/bin/ruff check --fix-only $(CHECKED)
	$(VENV)/bin/ruff format $(CHECKED)

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find bin conf examples jens tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: $(VENV)
$(VENV): $(VENV)/.installed

# Each .installed file is made last, so make repeats an interrupted installation. It depends on the scripts because the
# installation copies them; changes in jens/ need no installation.
$(VENV)/.installed: setup.py $(wildcard bin/jens-*)
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || { $(require-python) && $(PYTHON) -m venv --clear $(VENV); }
	@# It has only a setup.py, of which several releases of pip complain unless they are told to build a wheel.
	$(PIP) --use-pep517 dirq
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

define require-python
{ command -v git >/dev/null || \
    { echo 'Git is not installed; Jens needs Git 2.39 or later.' >&2; exit 1; }; } && \
{ command -v $(PYTHON) >/dev/null || \
    { echo '$(PYTHON) is not installed; Jens needs Python 3.9 or later (make PYTHON=... names another).' >&2; exit 1; }; } && \
{ $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
    { echo '$(PYTHON) is too old; Jens needs Python 3.9 or later (make PYTHON=... names another).' >&2; exit 1; }; } && \
{ $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
    { echo '$(PYTHON) cannot make virtual environments; on Debian install python3-venv.' >&2; exit 1; }; }
endef
