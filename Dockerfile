# The last stage is keyturn's image: the worker (keyturn-worker) and the command
# line (keyturn). --target simulator builds the simulated Ops Manager and the
# simulated KMIP server.

FROM golang:1.26.8-bookworm AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ENV CGO_ENABLED=0
# Compile once here. A new version only links again, in the stages below.
RUN go build -trimpath ./worker ./starter ./testsuite/simulator/opsmanager-simulator ./testsuite/simulator/kmip-simulator

FROM source AS simulator-build
RUN go build -trimpath -ldflags="-s -w" -o /out/ ./testsuite/simulator/opsmanager-simulator ./testsuite/simulator/kmip-simulator

FROM gcr.io/distroless/static-debian12:nonroot AS simulator
LABEL org.opencontainers.image.title="keyturn-simulator" \
      org.opencontainers.image.description="A simulated MongoDB Ops Manager and KMIP server for trying out keyturn"
COPY --from=simulator-build /out/ /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/opsmanager-simulator"]

FROM source AS build
ARG VERSION
RUN go build -trimpath -ldflags="-s -w -X keyturn/internal/version.linked=$VERSION" -o /out/keyturn-worker ./worker && \
    go build -trimpath -ldflags="-s -w -X keyturn/internal/version.linked=$VERSION" -o /out/keyturn ./starter

FROM gcr.io/distroless/static-debian12:nonroot AS worker
ARG VERSION
LABEL org.opencontainers.image.title="keyturn" \
      org.opencontainers.image.description="Rotates the KMIP master keys of MongoDB deployments and backups under Ops Manager" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /usr/local/bin/
CMD ["/usr/local/bin/keyturn-worker"]
