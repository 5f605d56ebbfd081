#!/bin/sh
# Build the image from a base made here and start every service of it: needs root, buildah, debootstrap and Debian's
# and Python's packages. Without a container runtime: buildah in chroot isolation. About three minutes.
#
#     tests/image/build.sh [FOLDER with an unpacked base]
set -eu
cd "$(dirname "$0")/../.."
for program in buildah debootstrap; do
    command -v "$program" >/dev/null || { echo "there is no $program here" >&2; exit 2; }
done
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
base=${1:-$room/base}
[ -d "$base/usr" ] || debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$base" >&2
run() { buildah --root "$room/storage" --runroot "$room/run" --storage-driver vfs "$@"; }

container=$(run from scratch)
run add --quiet "$container" "$base" / >/dev/null
run commit --quiet --rm "$container" localhost/base:dev >/dev/null
# The packages are fetched outside, with this machine's settings, and mounted: by the lock's hashes in both places.
make -s install >/dev/null
.venv/bin/python tools/runtime_lock.py pyproject.toml requirements.lock >"$room/runtime.txt"
.venv/bin/python -m pip download --quiet --require-hashes --no-deps -r "$room/runtime.txt" -d "$room/wheels" >&2
run bud --quiet --isolation chroot --network host --build-arg BASE=localhost/base:dev \
    --volume "$room/wheels:/wheels:ro" --build-arg PIP_OPTIONS="--no-index --find-links=/wheels" -t localhost/strongbox:dev . >/dev/null
container=$(run from localhost/strongbox:dev)
inside() { run run --isolation chroot --network host "$@"; }

echo "who runs it: $(inside "$container" -- /usr/bin/id -u)"
[ "$(inside "$container" -- /usr/bin/id -u)" = 10001 ]
inside "$container" -- /usr/lib/strongbox/venv/bin/python -m strongbox.setup --help
for service in seal kv auth lease audit; do
    # Without settings it says which are needed and exits 2: so all of it could be imported.
    status=0
    said=$(inside "$container" -- /usr/lib/strongbox/venv/bin/python -m "services.$service" 2>&1) || status=$?
    echo "$service: $status $(echo "$said" | head -c 120)"
    echo "$said" | grep -q STRONGBOX_NODE_ID
done
# And one really serves: seal answers its probe with no etcd there.
certs=$(.venv/bin/python -m tests.image.serving "$room")
inside --volume "$certs:/etc/strongbox/tls:ro" \
    --env STRONGBOX_NODE_ID=strongbox-seal-0 --env STRONGBOX_LISTEN=127.0.0.1:0 --env STRONGBOX_ETCD_ENDPOINTS=127.0.0.1:1 \
    --env STRONGBOX_PROBE_LISTEN=127.0.0.1:28390 --env STRONGBOX_TLS_CA=/etc/strongbox/tls/ca.crt \
    --env STRONGBOX_TLS_CERT=/etc/strongbox/tls/tls.crt --env STRONGBOX_TLS_KEY=/etc/strongbox/tls/tls.key \
    "$container" -- /usr/bin/timeout 20 /usr/lib/strongbox/venv/bin/python -m services.seal >"$room/seal.log" 2>&1 &
.venv/bin/python -m tests.image.serving --ask 127.0.0.1:28390 || { tail -5 "$room/seal.log" >&2; exit 1; }
wait
echo "image: all passed"
