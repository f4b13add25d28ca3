# The training image: what `python -m training_image` needs, and nothing of the launcher.
#
#   ftlaunch image build                       the usual way: named by its content (docs/docker.md)
#   docker build --build-arg TORCH=cuda .      works as well; make a folder wheels/ first, empty or not
#
# Build arguments:
#   BASE    any image with Python 3.11 and its venv module
#   TORCH   cpu or cuda: the build of torch; the CUDA libraries come as wheels, the base needs none
#   EXTRA   without, or with: adds the hashed requirements in extra.txt as a layer of their own
# An index of your own is given as a build secret: --secret id=pip.conf,src=FILE

ARG BASE=python:3.11-slim-bookworm
ARG TORCH=cpu
ARG EXTRA=without

FROM ${BASE} AS base
ENV PATH=/opt/venv/bin:$PATH

# pip works from a stage of its own, so that the image does not carry it.
FROM base AS pip
RUN python3 -m venv /pip
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Triton compiles the launchers of its kernels at run time with a C compiler; torch's CPU build has no Triton.
FROM base AS compiler-cpu
FROM base AS compiler-cuda
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    header="$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
    && rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
       gcc libc6-dev $([ -e "$header" ] || echo libpython3-dev) \
    && rm -rf /var/log/apt /var/log/dpkg.log /usr/share/doc /usr/share/man

# torch makes a layer of its own, which seldom changes. Every file must have its hash in the lock. What only torch's own
# tests and the compiling of extensions read is left out.
FROM pip AS torch-cpu
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=bind,source=training_image/requirements.lock,target=/requirements.lock \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/venv && sed -n '/^torch==/,/[^\\]$/p' /requirements.lock >/tmp/torch.lock \
    && if ls /wheels/torch-*+cpu-*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; \
       else from="--index-url https://download.pytorch.org/whl/cpu"; fi \
    && /pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --require-hashes $from -r /tmp/torch.lock \
    && cd /opt/venv/lib/python3*/site-packages/torch && rm -rf test include bin/test_* bin/*Test bin/protoc*

FROM pip AS torch-cuda
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=training_image/requirements.lock,target=/requirements.lock \
    --mount=type=bind,source=training_image/requirements.cuda.lock,target=/requirements.cuda.lock \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/venv && sed -n '/^torch==/,/[^\\]$/p' /requirements.lock >/tmp/torch.lock \
    && /pip/bin/pip --python /opt/venv/bin/python install --quiet --no-deps --require-hashes \
       -r /tmp/torch.lock -r /requirements.cuda.lock \
    && cd /opt/venv/lib/python3*/site-packages/torch && rm -rf test include bin/test_* bin/*Test bin/protoc*

FROM torch-${TORCH} AS torch

# Left out: the packages' own tests, and bitsandbytes' libraries for other accelerators than torch's.
FROM compiler-${TORCH} AS packages
ARG TORCH
COPY --from=torch /opt/venv /opt/venv
RUN --mount=type=bind,from=pip,source=/pip,target=/pip --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=bind,source=training_image/requirements.lock,target=/requirements.lock \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    && /pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --find-links /wheels -r /requirements.lock \
    && /pip/bin/pip --python /opt/venv/bin/python check \
    && cd /opt/venv/lib/python3*/site-packages && find . -type d -name tests -prune -exec rm -rf {} + \
    && case $TORCH in cpu) keep=cpu;; cuda) keep=cuda$(python -c 'import torch; print(torch.version.cuda.replace(".", ""))');; esac \
    && ls "bitsandbytes/libbitsandbytes_$keep.so" \
    && find bitsandbytes -name 'libbitsandbytes_*' ! -name "*_cpu.so" ! -name "*_$keep.so" -delete

FROM packages AS extra-without
FROM packages AS extra-with
RUN --mount=type=bind,from=pip,source=/pip,target=/pip --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,source=wheels,target=/wheels --mount=type=bind,source=extra.txt,target=/extra.txt \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    export PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    && /pip/bin/pip --python /opt/venv/bin/python install --quiet --require-hashes --find-links /wheels -r /extra.txt \
    && /pip/bin/pip --python /opt/venv/bin/python check

FROM extra-${EXTRA}
# Any user may run it: the home is a folder everybody can write, and a user without a name has one.
ENV FTLAUNCH_IN_IMAGE=1 PYTHONPATH=/opt/ftlaunch PYTHONUNBUFFERED=1 HOME=/tmp USER=ftlaunch LOGNAME=ftlaunch
COPY training_image /opt/ftlaunch/training_image
RUN /opt/venv/bin/python -m compileall -q /opt/ftlaunch
WORKDIR /opt/ftlaunch
# SageMaker runs IMAGE train, and wants the exec form. Python is process 1 and takes SIGTERM itself.
ENTRYPOINT ["/opt/venv/bin/python", "-m", "training_image"]
CMD ["train"]
ARG VERSION=unknown
ARG LOCK_SHA256=unknown
ARG CONTENT_SHA256=unknown
ARG TORCH
# Every result names the image that made it.
ENV FTLAUNCH_IMAGE_DIGEST=sha256:$CONTENT_SHA256
LABEL org.opencontainers.image.title="ftlaunch training image" org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      ftlaunch.lock.sha256="$LOCK_SHA256" ftlaunch.content.sha256="$CONTENT_SHA256" ftlaunch.torch="$TORCH"
