# The tap alone, for a pipe or an orchestrator; docs/containers.md says how to run it.
FROM python:3.14-slim

# A user without rights, whose ledger lies on the volume.
RUN useradd --uid 10001 --create-home tap \
    && install --directory --owner=tap --group=tap --mode=0700 /var/lib/exports

COPY pyproject.toml README.md LICENSE /src/
COPY tap_analytics_exports /src/tap_analytics_exports
RUN pip install --no-cache-dir --disable-pip-version-check "/src[s3]"

USER tap
# Where platformdirs looks for the user's state folder.
ENV XDG_STATE_HOME=/var/lib/exports
VOLUME /var/lib/exports
WORKDIR /home/tap
# Python itself gets the signals of `docker stop`.
ENTRYPOINT ["tap-analytics-exports"]
