#!/usr/bin/env bash
# Generates the TypeScript client from openapi.json and packs it: build.sh VERSION OUT, with `make .venv/node/installed` done.
set -euo pipefail
version=$1 out=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
tools=$(cd "$here/../.." && pwd)/.venv/node/node_modules
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/*.json "$here"/*.mjs "$here/../../openapi.json" "$work"
ln -s "$tools" "$work/node_modules"
cd "$work"
mkdir package
node_modules/.bin/openapi-ts --file openapi-ts.config.mjs --silent
sed "s/\"version\": \"0.0.0\"/\"version\": \"$version\"/" package.json > package/package.json
# The registry holds the package against the repository that it was built in.
[ -z "${GITHUB_REPOSITORY:-}" ] ||
    npm --prefix package pkg set "repository.type=git" "repository.url=git+https://github.com/$GITHUB_REPOSITORY.git"
# The compiler looks in here for the kind of module that it makes.
node_modules/.bin/tsc
cp "$here/../../docs/howto/call-it-from-typescript.md" package/README.md
cp "$here/../../LICENSE" package
npm pack --silent --pack-destination "$out" ./package
