# keyturn's images: the last stage is the worker, with the starter beside it;
# --target simulator is the simulated Ops Manager of the tests.

FROM golang:1.26.8-bookworm AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ENV CGO_ENABLED=0
# All is compiled here, once; what another version changes is linked below.
RUN go build -trimpath ./worker ./starter ./testsuite/simulator/opsmanager-simulator

FROM source AS simulator-build
RUN go build -trimpath -ldflags="-s -w" -o /out/ ./testsuite/simulator/opsmanager-simulator

FROM gcr.io/distroless/static-debian12:nonroot AS simulator
LABEL org.opencontainers.image.title="keyturn-simulator" \
      org.opencontainers.image.description="A simulated MongoDB Ops Manager, to try keyturn with"
COPY --from=simulator-build /out/ /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/opsmanager-simulator"]

FROM source AS build
ARG VERSION
RUN go build -trimpath -ldflags="-s -w -X keyturn/internal/version.linked=$VERSION" -o /out/ ./worker ./starter

FROM gcr.io/distroless/static-debian12:nonroot AS worker
ARG VERSION
LABEL org.opencontainers.image.title="keyturn" \
      org.opencontainers.image.description="Rotates the KMIP master keys of MongoDB Ops Manager backups" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/ /usr/local/bin/
CMD ["/usr/local/bin/worker"]
