# docker build -t agent-memory .
# docker run -p 127.0.0.1:8000:8000 -e AGENT_MEMORY_API_KEY=... -v agent-memory:/data agent-memory
#
# In a container the server must listen on every address, so it wants a key (or --allow-no-auth, when the published port is loopback's). Without a
# controlling terminal SIGHUP reloads: docker kill -s HUP.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc make pkg-config libc6-dev python3-minimal libjansson-dev libsodium-dev libxxhash-dev \
    libpcre2-dev libutf8proc-dev libevent-dev libyaml-dev libedit-dev libcurl4-openssl-dev && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN make -C /src -j"$(nproc)" build/agent-memory && strip --strip-debug /src/build/agent-memory

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libjansson4 libsodium23 libxxhash0 libpcre2-8-0 libutf8proc2 libevent-core-2.1-7 \
    libevent-extra-2.1-7 libevent-pthreads-2.1-7 libyaml-0-2 libedit2 libcurl4 ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --no-create-home agent-memory && install -d -o agent-memory -m 0700 /data
COPY --from=build /src/build/agent-memory /usr/bin/agent-memory
USER agent-memory
VOLUME /data
EXPOSE 8000
ENV AGENT_MEMORY_HOST=0.0.0.0 AGENT_MEMORY_DATA_DIR=/data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health/live HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *200* ]]"]
ENTRYPOINT ["/usr/bin/agent-memory"]
CMD ["serve"]
