# syntax=docker/dockerfile:1
# The gate:    docker build -t utility-gate .
# Training:    docker build -t utility-gate-train --target train .

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Before the sources, so that changing those does not fetch everything again. The lock holds what
# builds the project (setuptools) too, so that nothing unlocked is fetched afterwards.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY utility_gate ./utility_gate
COPY labelers ./labelers
COPY serving ./serving
COPY pipelines ./pipelines
COPY server ./server
COPY cli ./cli
RUN pip install --no-deps --no-build-isolation .

FROM build AS build-train
RUN pip install -c constraints.txt '.[label,train,ray,report]'

FROM python:3.11-slim-bookworm AS base
RUN useradd --system --uid 10001 --no-create-home gate
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /

FROM base AS train
COPY --from=build-train /opt/venv /opt/venv
USER 10001
ENTRYPOINT ["utility-gate"]
CMD ["train", "--help"]

FROM base AS gate
COPY --from=build /opt/venv /opt/venv
USER 10001
# Inside a container the gate listens on all addresses, unencrypted unless it is given
# UTILITY_GATE_TLS_CERTIFICATE and UTILITY_GATE_TLS_KEY: publish its ports to trusted networks only.
ENV UTILITY_GATE_HOST=0.0.0.0 UTILITY_GATE_ALLOW_PLAINTEXT=true
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=15s --retries=3 \
    CMD ["utility-gate", "health"]
ENTRYPOINT ["utility-gate"]
CMD ["serve"]
