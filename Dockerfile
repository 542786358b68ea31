# Tags, embeds and serves on the CPU. The steps of the first stage are commands of docs/install.md.
#   docker build -t earmark .
#   docker run --rm -v "$PWD:/data" earmark tag street.wav
#   docker build --target server -t earmark:server .
FROM python:3.11-slim AS build
WORKDIR /opt/earmark
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[serve]' && .venv/bin/earmark tag examples/farm.ogg

FROM python:3.11-slim AS cli
COPY --from=build /opt/earmark/.venv /opt/earmark/.venv
RUN useradd --create-home --uid 1000 earmark && install --directory --mode 1777 /cache /data
USER earmark
ENV PATH=/opt/earmark/.venv/bin:$PATH EARMARK_CACHE=/cache
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["earmark"]

# Others can reach a container, so the server wants a token: -e EARMARK_TOKEN=...
FROM cli AS server
EXPOSE 8000
HEALTHCHECK --start-period=30s --timeout=5s \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["serve", "--host", "0.0.0.0"]

# The last stage is what is built without --target.
FROM cli
