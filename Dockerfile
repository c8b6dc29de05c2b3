# The service as an image. Targets: `cpu` (1.1 GB of packages; preview, a draft voice) and `gpu` (about 6.7 GB; f5 too).
#
#   docker build --target cpu --tag speech:cpu .
#   docker build --target gpu --tag speech:gpu .
#
# How to run it: docs/deploy/. tests/integration/test_dockerfile.py lints this file and runs its commands.
# To pin the base by content as well, give its digest: --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# No CUDA image: torch's wheels bring CUDA's libraries, the host brings the driver. No Debian package either.
FROM ${PYTHON_IMAGE} AS base

# The same uv as the Makefile's. The cache mounts keep downloads out of the layers and for the next build.
ARG UV_VERSION=0.13.9
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --disable-pip-version-check --root-user-action=ignore "uv==${UV_VERSION}"

# A uid that Kubernetes can check; volumes take their first owner from these directories.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin speech \
    && install --directory --owner=speech --group=speech /data /weights

# The system Python, no venv: Ray would copy a whole venv for every runtime environment that is built over one.
# uv checks each file against the hash in the lock. Locks come before code: a change of code installs nothing again.
WORKDIR /app
COPY env_setup/locks/base.lock env_setup/locks/base.lock
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --system --no-deps --compile-bytecode -r env_setup/locks/base.lock

# Ray's own variables (loopback, token) are the launcher's to set: on KubeRay the operator decides, not the image. But
# wherever it runs, three replicas killed during an update must not end a deployment for good.
ENV PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT=1000 \
    RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=20 \
    RAY_worker_niceness=0 \
    DATA_DIR=/data \
    WEIGHTS_DIR=/weights

VOLUME ["/data", "/weights"]
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=8)"]

# A container's loopback is its own, so the service listens on all of its addresses. There are no API keys yet:
# publish the port on the host's loopback (docs/deploy/docker.md). No ENTRYPOINT, so that
# `docker run speech:gpu python -m env_setup check` runs what it says.
CMD ["python", "-m", "serve_app.launcher", "deploy.yaml", "--host", "0.0.0.0", "--port", "8000", "--allow-anonymous"]


FROM base AS gpu

COPY env_setup/locks/f5.lock env_setup/locks/f5.lock
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --system --no-deps --compile-bytecode -r env_setup/locks/f5.lock

# The pinned flash_attn wheel, or the one at this URL. The weights are not in the image: they are CC-BY-NC 4.0 (no
# commercial use) and 1.4 GB; the first replica fetches them into /weights.
ARG FLASH_ATTN_WHEEL=""
ENV FLASH_ATTN_WHEEL=${FLASH_ATTN_WHEEL}
COPY env_setup env_setup
RUN --mount=type=cache,target=/root/.cache/uv \
    python -m env_setup install --for-gpu --no-weights

# What a container may use of the driver; which GPUs it gets is said when it is started.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

COPY deploy.yaml LICENSE ./
COPY serve_app serve_app
USER 10001:10001


# The last stage is what `docker build` without --target makes.
FROM base AS cpu

COPY deploy.yaml LICENSE ./
COPY env_setup env_setup
COPY serve_app serve_app
USER 10001:10001
