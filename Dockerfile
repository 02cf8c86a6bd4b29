# One process per container, nothing to write to, any user id. Glibc, because the wheels are manylinux.
FROM python:3.13-slim AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY deploy/locks/uv.txt deploy/locks/runtime.txt deploy/locks/
RUN pip install --no-cache-dir --require-hashes -r deploy/locks/uv.txt \
    && uv venv /app/.venv \
    && uv pip install --python /app/.venv --require-hashes -r deploy/locks/runtime.txt
# Dependencies above change rarely, the source below often. The lock of the developers pins what builds the wheel.
COPY pyproject.toml README.md LICENSE deploy/locks/dev.txt ./
COPY stream stream
RUN uv pip install --python /app/.venv --no-deps --build-constraints dev.txt .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="driftstream" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["drift", "health"]
# Exec form: SIGTERM reaches the worker, which then commits and leaves.
ENTRYPOINT ["drift"]
CMD ["run"]
