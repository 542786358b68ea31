#!/bin/sh
# Renews what the page has from npm: earmark/serve/page/static/vendor. Needs npm and its registry.
# A version is changed here; the checksums are those of vendor/SHA256SUMS.
set -eu

package=wavesurfer.js
version=8.0.1
vendor="$(cd "$(dirname "$0")/.." && pwd)/earmark/serve/page/static/vendor"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

cd "$work"
npm pack --silent "$package@$version" > /dev/null
tar -xzf "$package-$version.tgz"
cp package/dist/wavesurfer.esm.js package/dist/fft.js package/LICENSE "$vendor/"
cd "$vendor"
if [ "${1:-}" = --renew ]; then
    sha256sum LICENSE fft.js wavesurfer.esm.js > SHA256SUMS
fi
sha256sum --check SHA256SUMS
