# The image of a sidecar, of the gateway and of the injector: one binary, for a user that is not root.
#
#   docker build --tag cloakroom:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
# The dependencies alone: a layer that lasts until one of them changes. Tests and benches are no part of it.
COPY Cargo.toml Cargo.lock ./
RUN sed -i '/^\[\[test\]\]$/,/^$/d; /^\[\[bench\]\]$/,/^$/d' Cargo.toml \
    && mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --locked --release --bin cloakroom
COPY src src
# Files come with the times that they have outside, which may be before the layer above.
RUN touch src/lib.rs src/main.rs \
    && cargo build --locked --release --bin cloakroom

# glibc, libgcc and the roots that the web trusts; no shell, nothing to install with.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cloakroom" \
      org.opencontainers.image.description="A reverse-proxy sidecar that injects session context into requests to LLM and agent backends" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /src/target/release/cloakroom /cloakroom
# By number, so that runAsNonRoot can be told.
USER 65532:65532
ENV CLOAKROOM_CONFIG=/etc/cloakroom/cloakroom.yaml
EXPOSE 8080 9901
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/cloakroom", "health"]
ENTRYPOINT ["/cloakroom"]
CMD ["run"]
