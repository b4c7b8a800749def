#!/usr/bin/env bash
# Fails if the committed stubs are not what the given .proto files generate.
set -euo pipefail
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
PATH="$PROTO_VENV/bin:$PATH" python -m grpc_tools.protoc -I proto --python_out="$fresh" \
    --pyi_out="$fresh" --grpc_python_out="$fresh" --mypy_grpc_out="quiet:$fresh" "$@"
(cd "$fresh" && find . -type f) | while read -r file; do
    diff -u "$file" "$fresh/$file" || { echo "$file is stale: run make proto" >&2; exit 1; }
done
