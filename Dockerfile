# The program as an image. Three targets say what it runs, the default leaves that to the arguments:
#
#   docker build --target collector -t cluster-info-collector:latest .
#   docker build --target consumer  -t cluster-info-consumer:latest .
#   docker build --target sandbox   -t cluster-info-sandbox:latest .
#
# Python 3.12, though 3.13 would do: from 3.13 on ssl verifies with VERIFY_X509_STRICT, which refuses many a private
# certificate authority that Kafka and PostgreSQL are run with.

FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# .dockerignore admits only what the wheel is made of.
COPY . .
RUN pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv /opt/clusterinfo \
 && /opt/clusterinfo/bin/pip install /wheels/*.whl

# Embedded PostgreSQL and the broker are no part of what runs beside a cluster.
FROM build AS build-sandbox
RUN /opt/clusterinfo/bin/pip install "$(echo /wheels/*.whl)[sandbox]"

FROM python:3.12-slim AS runtime
ENV PATH=/opt/clusterinfo/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Kubernetes proves runAsNonRoot only for a number. The volume shared in compose/ takes its owner from /run/clusterinfo.
RUN install -d -o 65532 -g 65532 /run/clusterinfo
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
ENTRYPOINT ["clusterinfo"]

FROM runtime AS sandbox
COPY --from=build-sandbox /opt/clusterinfo /opt/clusterinfo
CMD ["demo"]

FROM runtime AS program
COPY --from=build /opt/clusterinfo /opt/clusterinfo

FROM program AS collector
CMD ["collect"]

FROM program AS consumer
CMD ["consume"]

# The last stage is what `docker build` makes without --target: one image for both names, told `collect` or `consume`.
FROM program
CMD ["--help"]
