FROM python:3.11-slim AS build
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.lock /opt/
RUN pip install --no-cache-dir --require-hashes -r /opt/requirements.lock
WORKDIR /srv
COPY app app
COPY engine engine
# Compiled here because the root file system is read-only when the service runs.
RUN python -m compileall -q --invalidation-mode unchecked-hash app engine

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
COPY --from=build /srv /srv
WORKDIR /srv
# Registered graphs are kept here: a volume, because the root file system is read-only.
RUN mkdir -p /var/lib/gradwire && chown 10001:10001 /var/lib/gradwire
VOLUME /var/lib/gradwire
# It listens on every address of its container, and so starts only with keys, or with GRADWIRE_OPEN=true, which the
# compose file sets because it publishes to its own machine only.
# One BLAS thread per worker, as eight on two cores are slower than one; and an allocator that keeps the
# memory of large arrays for the next ones (a value that is read only when the process starts).
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPENBLAS_NUM_THREADS=1 \
    MALLOC_MMAP_THRESHOLD_=1073741824 \
    MALLOC_TRIM_THRESHOLD_=2147483648 \
    GRADWIRE_HOST=0.0.0.0 \
    GRADWIRE_PORT=8000 \
    GRADWIRE_LOG_FORMAT=json \
    GRADWIRE_STORE_PATH=/var/lib/gradwire/graphs.sqlite3
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['GRADWIRE_PORT'] + '/healthz', timeout=2)"]
CMD ["python", "-m", "app"]
