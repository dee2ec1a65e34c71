# The workbench with its bundled teachers. On a CPU:
#   docker build -t dit-workbench .
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/workspace:/workspace" dit-workbench
# On NVIDIA GPUs (the container toolkit must be installed; see docs/install.md for other CUDA versions):
#   docker build -t dit-workbench:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm --gpus all -p 127.0.0.1:7860:7860 -v "$PWD/workspace:/workspace" dit-workbench:cuda
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch==2.13.0 --index-url ${TORCH_INDEX}

COPY pyproject.toml README.md LICENSE /tmp/dit-workbench/
COPY workbench /tmp/dit-workbench/workbench
RUN pip install --no-cache-dir /tmp/dit-workbench && rm -r /tmp/dit-workbench

RUN useradd --create-home --uid 1000 user && install -d -o user /workspace
USER user
ENV WORKBENCH_WORKSPACE=/workspace
WORKDIR /workspace
VOLUME /workspace
EXPOSE 7860

ENTRYPOINT ["workbench"]
CMD ["app", "--host", "0.0.0.0"]
