# PraNet service on an NVIDIA GPU. Build from the project's folder:
#   docker build -f docker/cuda.Dockerfile -t pranet:cuda .
# PyTorch brings the CUDA libraries, and NVIDIA's container toolkit the driver: the base needs neither.
# --build-arg TORCH_INDEX=URL takes PyTorch, and with it CUDA, in another version.
# --build-arg COMPILER= installs no C compiler to build with: Pillow resizes pictures then, in four times the time.
# --build-arg REQUIREMENTS=ray adds Ray, for docker/kuberay.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=
ARG REQUIREMENTS=image
ARG COMPILER="gcc libc6-dev"
WORKDIR /build
# hadolint ignore=DL3008,SC2086
RUN if [ "$COMPILER" ]; then \
      apt-get update && apt-get install --no-install-recommends --yes $COMPILER && rm -rf /var/lib/apt/lists/*; \
    fi
RUN python -m venv /opt/pranet
ENV PATH=/opt/pranet/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements requirements
RUN pip install ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} -r requirements/torch.txt
# A layer of its own, so that a new pin leaves PyTorch alone.
# hadolint ignore=DL3059
RUN pip install --no-deps --require-hashes -r requirements/${REQUIREMENTS}.txt
COPY pyproject.toml README.md LICENSE ./
COPY model model
COPY service service
COPY client client
COPY weights weights
RUN pip install --no-deps . && if [ "$COMPILER" ]; then ls /opt/pranet/lib/python3*/site-packages/model/_resize*.so; fi \
    && pip uninstall --yes pip

# What the image holds, and under which licences. The tools that find out stay outside.
FROM build AS sbom
COPY docker/sbom.sh .
RUN python -m venv /tools && /tools/bin/pip install --no-deps --require-hashes -r requirements/audit.txt \
    && ./sbom.sh /tools /opt/pranet/bin/python /sbom

FROM ${BASE}
COPY --from=build /opt/pranet /opt/pranet
COPY --from=sbom /sbom /opt/pranet/share/doc/pranet
ENV PATH=/opt/pranet/bin:$PATH PYTHONUNBUFFERED=1 PRANET_HOST=0.0.0.0 PRANET_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["pranet", "health"]
ENTRYPOINT ["pranet"]
CMD ["serve"]
