# Tags and embeds on the CPU. The only step is the first command of README.md, which .ci/run runs.
#   docker build -t earmark .
#   docker run --rm -v "$PWD:/data" earmark tag street.wav
FROM python:3.11-slim
WORKDIR /opt/earmark
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/earmark tag examples/farm.ogg
ENV PATH=/opt/earmark/.venv/bin:$PATH EARMARK_CACHE=/cache
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["earmark"]
