# syntax=docker/dockerfile:1
# Build:  docker build --build-arg GIT_COMMIT=$(git rev-parse HEAD) \
#             --build-arg AUTHOR="$(git log -1 --format="%aE")" -t mlops-assets .
# Run:    docker run --rm -v mlops-home:/home/mlops/state mlops-assets
#
# observability/compose.yaml runs it with what watches it.
#
# Two stages: the first fetches and builds, the second has only what runs.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements ./requirements
# TORCH=pypi takes torch with its CUDA packages. The CPU build needs TORCH_INDEX, PyTorch's
# own index, because no registry's main index has it.
ARG TORCH=pypi
ARG TORCH_INDEX=
RUN python -m pip install --require-hashes --no-deps \
        ${TORCH_INDEX:+--extra-index-url ${TORCH_INDEX}} -r requirements/torch-${TORCH}.txt \
 && python -m pip install --require-hashes --no-deps -r requirements/lock.txt
COPY pyproject.toml README.md ./
COPY mlops_assets ./mlops_assets
RUN python -m pip install --no-deps --no-build-isolation -e .

FROM python:3.11.14-slim-bookworm
ARG GIT_COMMIT
ARG AUTHOR
RUN useradd --create-home --uid 10001 mlops
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=root:root /app /app
WORKDIR /app
COPY .dvc ./.dvc
COPY data ./data
COPY profiles ./profiles
COPY prompts ./prompts
COPY workspace.yaml dagster.yaml flags.yaml ./
# The state, the rebuilt data and DVC's cache are what the unprivileged user may write, and where
# observability/compose.yaml mounts the volume of Prometheus's key.
RUN install -d -o mlops -m 0700 /home/mlops/state /home/mlops/state/dagster \
 && install -d -o mlops -m 0755 /run/metrics-key \
 && install -o mlops -m 0600 dagster.yaml /home/mlops/state/dagster/dagster.yaml \
 && chown -R mlops data .dvc
USER mlops
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MLOPS_HOME=/home/mlops/state \
    DAGSTER_HOME=/home/mlops/state/dagster \
    MLOPS_GIT_COMMIT=${GIT_COMMIT} \
    MLOPS_AUTHOR=${AUTHOR} \
    HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1
VOLUME /home/mlops/state
CMD ["dagster", "job", "execute", "-m", "mlops_assets.definitions", "-j", "lineage"]
