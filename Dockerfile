# The program as an image. Three targets say what it runs, the default leaves that to the arguments:
#
#   docker build --target collector -t cluster-info-collector:latest .
#   docker build --target consumer  -t cluster-info-consumer:latest .
#   docker build --target sandbox   -t cluster-info-sandbox:latest .
#
# What is installed is pinned, with hashes, in requirements/; `make lock` writes those files. Only wheels are taken: nothing
# is compiled, and the image that runs has neither a compiler nor what the program was built with.
#
# Python 3.12, though 3.13 would do: from 3.13 on ssl verifies with VERIFY_X509_STRICT, which refuses many a private
# certificate authority that Kafka and PostgreSQL are run with.
#
# A tag is what its registry makes of it; a digest stays what it is. Ask your registry for today's, and give it:
#
#   docker buildx imagetools inspect python:3.12-slim --format '{{.Manifest.Digest}}'
#   docker build --build-arg PYTHON=python:3.12-slim@sha256:... --target collector -t cluster-info-collector:latest .

ARG PYTHON=python:3.12-slim

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/src
# The program's environment has no pip of its own: it holds what is locked, and the program.
RUN python -m venv /opt/build && python -m venv --without-pip /opt/clusterinfo
COPY requirements requirements
RUN /opt/build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/clusterinfo/bin/python install --require-hashes --only-binary :all: \
      -r requirements/program.txt
# .dockerignore admits only what the wheel is made of.
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /opt/wheel . \
 && /opt/build/bin/pip --python /opt/clusterinfo/bin/python install --no-deps --no-index /opt/wheel/*.whl

# Embedded PostgreSQL and the broker are no part of what runs beside a cluster.
FROM build AS build-sandbox
RUN /opt/build/bin/pip --python /opt/clusterinfo/bin/python install --require-hashes --only-binary :all: \
      -r requirements/sandbox.txt

FROM ${PYTHON} AS runtime
ENV PATH=/opt/clusterinfo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Kubernetes proves runAsNonRoot only for a number; initdb, in the sandbox, asks for the number's name. The volume shared in
# compose/ takes its owner from /run/clusterinfo.
RUN echo 'clusterinfo:x:65532:65532::/tmp:/usr/sbin/nologin' >>/etc/passwd \
 && install -d -o 65532 -g 65532 /run/clusterinfo
USER 65532:65532
WORKDIR /tmp
# What it is, for whoever finds it in a registry; the commit by --build-arg REVISION="$(git rev-parse HEAD)".
ARG PYTHON
ARG REVISION=""
LABEL org.opencontainers.image.title="clusterinfo" \
      org.opencontainers.image.description="Turns Kubernetes clusters into one PostgreSQL database that can be trusted." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="${PYTHON}"
EXPOSE 8080
ENTRYPOINT ["clusterinfo"]

FROM runtime AS sandbox
COPY --from=build-sandbox /opt/clusterinfo /opt/clusterinfo
CMD ["demo"]

FROM runtime AS program
COPY --from=build /opt/clusterinfo /opt/clusterinfo
# The program's own endpoint, at the default of METRICS_ADDRESS; the image has no curl. Kubernetes has its own probes.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=3)"]

FROM program AS collector
CMD ["collect"]

FROM program AS consumer
CMD ["consume"]

# The last stage is what `docker build` makes without --target: one image for both names, told `collect` or `consume`.
FROM program
CMD ["--help"]
