#!/usr/bin/env bash
# Makes the stubs below gen/ from proto/ alone, with grpcio-tools' protoc and Go's two plugins.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
export GOBIN="$PWD/gen/bin"
go install google.golang.org/protobuf/cmd/protoc-gen-go@latest
go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest
PATH="$GOBIN:$PATH" "$python" -m grpc_tools.protoc -I ../../../proto \
    --go_out=. --go_opt=module=larder.dev --go-grpc_out=. --go-grpc_opt=module=larder.dev \
    larder/v1/types.proto larder/v1/cache.proto
[ -f go.mod ] || go mod init larder.dev
go get google.golang.org/grpc@latest github.com/redis/go-redis/v9@latest
go mod tidy
