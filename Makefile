# Everything runs in .venv; `make serve` and `make test` need Python 3.11 to 3.14 and nothing else.
#   make serve TORCH_INDEX=URL   takes PyTorch from another index (a CPU build, another CUDA version)

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PRECISION ?= auto
MINUTES ?= 60
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PROTOC := $(BIN)/python -m grpc_tools.protoc
out = --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1)
TRITON := tests/interoperability/triton_client
KSERVE := tests/interoperability/kserve_client
BUNDLE := build/pranet-bundle
BUNDLED := $(wildcard requirements/*.txt) pyproject.toml README.md CHANGELOG.md SECURITY.md LICENSE $(wildcard docker/*.*) \
	$(shell find docs docker/prometheus docker/grafana docker/proxies model service client weights -type f ! -name '*.pyc' ! -name '*.so')
LOCKED = $(addprefix requirements/,serve.txt image.txt ray.txt dev.txt audit.txt) $(wildcard $(TRITON)/*.txt $(KSERVE)/*.txt) tools/peers/requirements.txt
# Each interface and DICOM in short, without PyTorch: what other versions of packages can break.
LIGHT_TESTS := tests/client/test_requests.py tests/http/test_forms.py $(addprefix tests/dicom/test_,recognition.py video.py) \
	$(addprefix tests/transports/test_,archives.py service.py stream.py stream_rpc.py) \
	tests/batching/test_batcher.py $(addprefix tests/unit/test_,calls.py errors.py settings.py tasks.py temporal.py)
SERVING_TESTS := $(addprefix tests/robustness/test_,process_faults.py reload.py shutdown.py stream_process.py) \
	$(addprefix tests/security/test_,log_privacy.py tls.py) tests/dicom/test_objects.py \
	tests/dicom/test_variants.py tests/interoperability/test_triton_clients.py tests/docs/test_readme.py
UV ?= build/uv/bin/uv
PIP_COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-header -q

.PHONY: serve extras triton-client kserve-client test processes-check check lowest-check light-check machines-check wheels-check path fuzz soak endurance \
	lighthouse peers annotation-check ray-check training-check guards-check long-check format lint types contracts proto \
	proto-check readme lock bundle bundle-check image-programs image-check systemd-check sbom audit clean

serve: $(VENV)/.serve
	@exec $(BIN)/pranet serve

# The optional extras and the tools of development, in the same environment.
extras: $(VENV)/.dev

# Triton's own clients and its perf_analyzer, for their tests, in environments of their own: the clients need an older
# protobuf than the service, and later wheels' perf_analyzer needs a later libc than Debian 12 has.
triton-client: $(TRITON)/.venv/.done $(TRITON)/.perf_analyzer/.done

# KServe's SDK, some 0.5 GB, for its test in `make long-check`; it needs an older protobuf, too.
kserve-client: $(KSERVE)/.venv/.done

# Several processes compute at once: PyTorch's threads must not spin while they wait, on cores that others need.
# Tests wait for servers and timers a third of the time, so two cores are busy with three processes. They start hundreds
# of commands, each of which would compile the source again if it were not kept. Files are taken in their order: the last
# ones, in tests/unit, are short, so that no process waits long for another.
test: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0  # files share a server

# The tests that start a service, again with one of two processes; some minutes.
processes-check: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/pytest -n 3 --dist loadfile --max-worker-restart 0 --processes 2 -m "slow and not long" $(SERVING_TESTS)

check: lint types contracts proto-check test

# How far a reader goes to follow one call: files, functions, and moves between files.
path: $(VENV)/.dev
	$(BIN)/python -m tools.trace_call

# That the lowest versions that pyproject.toml allows pass the fast tests, in an environment of their own; some 20 minutes.
lowest-check:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip --disable-pip-version-check install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements/torch.txt
	build/lowest/bin/python -m pip --disable-pip-version-check install -q uv
	VIRTUAL_ENV=build/lowest build/lowest/bin/uv pip install -q --resolution lowest-direct -e '.[dev]'
	OMP_WAIT_POLICY=passive build/lowest/bin/python -m pytest -m "not slow"

# Some tests that need no PyTorch on another Python, which gets other versions of some packages; a minute. The package is
# installed from a copy: setuptools writes beside its source, where `make serve` may be doing the same.
#   make light-check PYTHON=python3.13
light-check: $(UV)
	$(UV) venv -q --no-config --clear --python $(PYTHON) build/light
	VIRTUAL_ENV=build/light $(UV) pip install -q --no-config --no-deps --require-hashes -r requirements/image.txt
	VIRTUAL_ENV=build/light $(UV) pip install -q --no-config -c requirements/dev.txt hypothesis packaging pytest pytest-asyncio trustme
	mkdir build/light/source
	cp -r model service client weights pyproject.toml README.md LICENSE build/light/source
	$(UV) pip install -q --no-config --no-deps --python build/light build/light/source
	PYTHONPATH="$(CURDIR):$(CURDIR)/client" build/light/bin/python -m pytest -q -m "not slow" $(LIGHT_TESTS)

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check install -q uv

# That each pinned package has a wheel for Linux on arm64, for each Python; nothing is installed.
wheels-check: $(UV)
	for python in 3.11 3.12 3.13 3.14; do for file in torch serve image dev; do \
	    $(UV) pip install -q --no-config --dry-run --no-deps --only-binary :all: --python-version $$python \
	        --python-platform aarch64-manylinux_2_28 --target build/arm64 -r requirements/$$file.txt || exit 1; \
	    echo "Python $$python on arm64: all of requirements/$$file.txt"; \
	done; done

# `make serve` and `make test` on new machines of Debian, by a user without root, as a table; an hour or more. Needs root,
# debootstrap and a network.   make machines-check MACHINES='--only trixie --variants'
machines-check:
	python3 -m tools.machines $(MACHINES)

# 20,000 damaged pictures and messages; some minutes.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tools.fuzz

# Lighthouse's scores of the page and of /docs. Needs Chromium, and npm with a network.
lighthouse: $(VENV)/.dev
	$(BIN)/python -m tools.measure.page

# Ten minutes at 120 % of capacity, on a machine with nothing else to do.
soak: $(VENV)/.dev
	$(BIN)/python -m tools.soak

# An hour of everything at once, under a supervisor of its own; see tools/endurance. Ctrl-C ends it with a report.
#   make endurance MINUTES=10 FLAGS='--input-size 256 --precision int8 --out build/endurance'
endurance: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/python -m tools.endurance --minutes $(MINUTES) $(FLAGS)

# The service beside plain servers of the same network, in turns: minutes, on a machine with nothing else to do.
#   make peers PRECISION=bf16      the precision of the service: auto, bf16, fp32, or int8, in which all of them compute
#   make peers AGAINST=../earlier   also measures the service of another checkout
peers: $(VENV)/.dev tools/peers/.venv/.done
	$(BIN)/python -m tools.measure.peers --precision $(PRECISION) $(if $(AGAINST),--against $(abspath $(AGAINST)))

# The service on Ray Serve, about a minute. Ray listens on every address, so it gets a network of its own. Needs iproute2.
ray-check: $(VENV)/.dev
	unshare --map-root-user --net sh -c 'ip link set lo up && exec $(BIN)/pytest -W ignore tools/check_ray.py'

# A real Label Studio with predictions of the service, in an environment of its own of 0.7 GB; some minutes.
annotation-check: $(VENV)/.dev build/label-studio/.done
	$(BIN)/pytest tools/check_annotation.py

build/label-studio/.done:
	$(PYTHON) -m venv build/label-studio
	build/label-studio/bin/pip --disable-pip-version-check install -q label-studio==1.23.2 label-studio-sdk==2.1.2
	touch $@

# That training learns what its masks say, and only that; some minutes.
training-check: $(VENV)/.dev
	$(BIN)/pytest -s tools/check_training.py

# The tests that `make test` leaves out because they take long and check what others check on other input; ten minutes.
long-check: $(VENV)/.dev
	OMP_WAIT_POLICY=passive $(BIN)/pytest -n 3 -m long

# That tests fail when what prevents the known failures of such servers is taken out; some minutes.
guards-check: $(VENV)/.dev
	$(BIN)/pytest tools/check_guards.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy model service client/pranet_client

contracts: $(VENV)/.dev
	$(BIN)/lint-imports

# The client's own interface into its package, which the service shares; the Open Inference Protocol into the service.
proto: $(VENV)/.dev
	$(PROTOC) -Ipranet_client/pb=proto $(call out,client) proto/pranet/v1/*.proto
	$(PROTOC) -Iservice/pb=proto $(call out,.) proto/inference/*.proto

proto-check: proto
	git diff --exit-code -- service/pb client/pranet_client/pb

# Rewrites the tables in README.md and docs/ from the code.
readme: $(VENV)/.dev
	$(BIN)/python -m tools.readme_tables
	$(BIN)/python -m tools.readme_picture

# Pins every dependency but torch, for all platforms and Pythons, with hashes. Each file is under the ones before it: one
# environment gets several of them.
lock: $(VENV)/.torch
	$(PIP) install -q uv
	$(PIP_COMPILE) pyproject.toml -c requirements/torch.txt -o requirements/serve.txt
	$(PIP_COMPILE) pyproject.toml -c requirements/torch.txt -c requirements/serve.txt --extra dicom --extra gpu --extra otel --extra video -o requirements/image.txt
	$(PIP_COMPILE) pyproject.toml -c requirements/torch.txt -c requirements/image.txt --extra dicom --extra gpu --extra otel --extra video --extra ray -o requirements/ray.txt
	$(PIP_COMPILE) pyproject.toml -c requirements/torch.txt -c requirements/ray.txt --extra dev -o requirements/dev.txt
	printf 'cyclonedx-bom\npip-audit\npip-licenses\n' | $(PIP_COMPILE) - -o requirements/audit.txt
	echo 'tritonclient[grpc,http]' | $(PIP_COMPILE) - -o $(TRITON)/requirements.txt
	echo 'kserve' | $(PIP_COMPILE) - -o $(KSERVE)/requirements.txt
	printf 'fastapi\nlitserve\nnumpy\nopenvino\npillow\npython-multipart\nuvicorn\n' | $(PIP_COMPILE) -c requirements/serve.txt - -o tools/peers/requirements.txt
	printf 'tritonclient==2.47.0\nnvidia-cuda-runtime-cu12\n' | $(PIP_COMPILE) --no-deps - -o $(TRITON)/perf_analyzer.txt
	sed -i "1i # Pinned on $$(date +%F) by make lock." $(LOCKED)

# What serves, as installed in $(VENV): dist/pranet.cdx.json (CycloneDX), and the licences of all of it: dist/licenses.md.
sbom: $(VENV)/.serve build/tools/.done
	docker/sbom.sh build/tools $(BIN)/python dist

# Known vulnerabilities of the pinned packages, by PyPI's own list; needs the network. A package that the list does not
# have is an error: without the list, everything would pass.
audit: build/tools/.done
	build/tools/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/image.txt
	build/tools/bin/pip-audit --strict --disable-pip --no-deps -r requirements/torch.txt

build/tools/.done: requirements/audit.txt
	$(PYTHON) -m venv build/tools
	build/tools/bin/pip --disable-pip-version-check install -q --no-deps --require-hashes -r $<
	touch $@

# Everything that a site without a network needs, for this machine's platform and Python: dist/pranet-bundle.tar
bundle: dist/pranet-bundle.tar

dist/pranet-bundle.tar: $(VENV)/.serve $(BUNDLED)
	rm -rf $(BUNDLE) && mkdir -p $(BUNDLE)/wheels dist
	$(PIP) download -q --only-binary :all: -d $(BUNDLE)/wheels $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements/torch.txt
	$(PIP) download -q --no-deps --require-hashes --only-binary :all: -d $(BUNDLE)/wheels -r requirements/image.txt
	$(PIP) wheel -q --no-deps -w $(BUNDLE)/wheels .
	cp -r requirements docker/install.sh docker/pranet.service docker/pranet-secrets.conf README.md CHANGELOG.md SECURITY.md \
	    docs LICENSE $(BUNDLE)
	mkdir $(BUNDLE)/docker $(BUNDLE)/weights
	cp -r docker/prometheus docker/grafana docker/proxies $(BUNDLE)/docker
	cp weights/README.md $(BUNDLE)/weights
	$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' > $(BUNDLE)/python-version
	cd $(BUNDLE) && find . -type f | sort | xargs sha256sum > ../SHA256SUMS && mv ../SHA256SUMS .
	tar -C build -cf $@ pranet-bundle

# Installs the bundle and serves a frame where there is no network. Needs iproute2.
bundle-check: bundle $(VENV)/.dev
	unshare --map-root-user --net sh -c 'ip link set lo up && exec $(BIN)/pytest tools/check_bundle.py'

# Builds docker/Dockerfile from the bundle's wheels, and serves a frame from it as nobody special on a read-only root.
# Needs root, buildah and debootstrap, and says so before the bundle takes gigabytes.
image-check: image-programs bundle $(VENV)/.dev
	$(BIN)/pytest tools/check_image.py

image-programs:
	@[ "$$(id -u)" = 0 ] && command -v buildah > /dev/null && command -v debootstrap > /dev/null || \
		{ echo 'image-check needs root, buildah and debootstrap; install both and run it as root' >&2; exit 2; }

# Follows the recipe of docs/operations.md under a systemd in namespaces of its own. Needs root, systemd and openssl.
systemd-check: bundle $(VENV)/.dev
	$(BIN)/pytest tools/check_systemd.py

clean:
	rm -rf $(VENV) model/_resize*.so $(TRITON)/.venv $(TRITON)/.perf_analyzer $(KSERVE)/.venv tools/peers/.venv build dist *.egg-info client/build client/*.egg-info

$(VENV)/.torch: requirements/torch.txt
	@command -v $(PYTHON) > /dev/null || { echo 'pranet: there is no $(PYTHON); install Python, or name one: make PYTHON=python3.12' >&2; exit 2; }
	@$(PYTHON) tools/check_python.py $(PYTHON)
	@echo 'fetching PyTorch into $(VENV), once: several GB with CUDA, some minutes; smaller builds: docs/operations.md'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements/torch.txt
	@touch $@

$(VENV)/.serve: $(VENV)/.torch requirements/serve.txt pyproject.toml model/resize.c
	@echo 'fetching what the service needs, some 0.1 GB'
	@$(PIP) install -q --no-deps --require-hashes -r requirements/serve.txt
	@$(PIP) install -q --no-deps -e .
	@touch $@

$(TRITON)/.venv/.done: $(TRITON)/requirements.txt
	$(PYTHON) -m venv $(TRITON)/.venv
	$(TRITON)/.venv/bin/python -m pip install -q --no-deps --require-hashes -r $<
	@touch $@

$(KSERVE)/.venv/.done: $(KSERVE)/requirements.txt
	$(PYTHON) -m venv $(KSERVE)/.venv
	$(KSERVE)/.venv/bin/python -m pip install -q --no-deps --require-hashes -r $<
	@touch $@

$(TRITON)/.perf_analyzer/.done: $(TRITON)/perf_analyzer.txt
	$(PYTHON) -m venv $(TRITON)/.perf_analyzer
	$(TRITON)/.perf_analyzer/bin/python -m pip install -q --no-deps --require-hashes -r $<
	@touch $@

tools/peers/.venv/.done: tools/peers/requirements.txt
	$(PYTHON) -m venv tools/peers/.venv
	tools/peers/.venv/bin/python -m pip install -q --no-deps --require-hashes -r $<
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt
	@echo 'fetching the extras and the tools of development, some minutes'
	@$(PIP) install -q --no-deps --require-hashes -r requirements/dev.txt
	@touch $@
