# The tap as an image, with the extra `s3`:
#   docker build -t tap-analytics-exports .
#   docker run --rm -v tap-ledger:/var/lib/tap -v "$PWD/config.json:/config.json:ro" tap-analytics-exports --config /config.json --test
# docs/containers.md says what has to outlive a container, and how much memory it needs.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY tap_analytics_exports tap_analytics_exports
RUN python -m venv /opt/tap && /opt/tap/bin/pip install --no-cache-dir '.[s3]'

FROM python:3.13-slim
COPY --from=build /opt/tap /opt/tap
RUN useradd --create-home --uid 10001 tap && install -d -o tap -g tap -m 0700 /var/lib/tap
USER tap
WORKDIR /home/tap
# Where the ledger lies unless the setting `ledger` says otherwise: $XDG_STATE_HOME/tap-analytics-exports.
ENV XDG_STATE_HOME=/var/lib/tap PATH=/opt/tap/bin:$PATH
VOLUME /var/lib/tap
ENTRYPOINT ["tap-analytics-exports"]
