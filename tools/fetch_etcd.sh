#!/bin/sh
# Fetch an etcd >= 3.5.28 from Debian's newest suite into .tools/etcd, without root and without installing anything:
# apt-get with lists and cache of its own, which checks Debian's signature, then dpkg -x. The mirror is the
# machine's own (from /etc/apt), else deb.debian.org; proxies and the like come from apt's configuration.
#
#     tools/fetch_etcd.sh [--force]     exit 0: there is a sound etcd; 1: there is none, and stderr says why
set -eu

SUITE=${STRONGBOX_ETCD_SUITE:-sid}
KEYRING=${STRONGBOX_ETCD_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.tools
target=$tools/etcd/usr/bin/etcd
work=$tools/apt

give_up() {
    echo "etcd is not fetched: $1; the wheel's 3.5.1 remains, for trying out only" >&2
    exit 1
}

version_of() {
    "$1" --version 2>/dev/null | sed -n 's/^etcd Version: //p'
}

is_sound() {
    [ -x "$1" ] && version_of "$1" | awk -F. '{ exit !($1 > 3 || $1 == 3 && ($2 > 5 || $2 == 5 && $3 + 0 >= 28)) }' \
        && [ -n "$(version_of "$1")" ]
}

# The first Debian archive that apt knows (deb822 files and one-line files); security archives are others.
mirror() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n -e 's/^URIs:[[:space:]]*//p' -e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}//p' |
        awk '{ print $1 }' | grep -E '^(https?|mirror[^:]*)://.*/debian/?$' | head -n 1
}

if [ "${1:-}" != "--force" ] && is_sound "$target"; then
    echo "etcd $(version_of "$target") is there: $target"
    exit 0
fi
for program in apt-get dpkg; do
    command -v "$program" >/dev/null 2>&1 || give_up "there is no $program here"
done
[ -r "$KEYRING" ] || give_up "there is no keyring of Debian's ($KEYRING)"

uri=$(mirror)
uri=${uri:-http://deb.debian.org/debian}
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/download"
echo "deb [signed-by=$KEYRING] $uri $SUITE main" >"$work/sources.list"

apt() {
    apt-get -qq \
        -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=2 \
        -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 \
        "$@"
}

apt update >"$work/log" 2>&1 || give_up "the package lists of $SUITE cannot be had (see $work/log)"
rm -f "$work"/download/*.deb
(cd "$work/download" && apt download etcd-server >>"$work/log" 2>&1) ||
    give_up "etcd-server cannot be downloaded (see $work/log)"
rm -rf "$tools/etcd.new"
mkdir -p "$tools/etcd.new"
for package in "$work"/download/etcd-server_*.deb; do
    dpkg -x "$package" "$tools/etcd.new"
done
is_sound "$tools/etcd.new/usr/bin/etcd" ||
    give_up "$SUITE has etcd $(version_of "$tools/etcd.new/usr/bin/etcd"), or it does not run here"
rm -rf "$tools/etcd"
mv "$tools/etcd.new" "$tools/etcd"
rm -rf "$work"
echo "etcd $(version_of "$target") fetched: $target"
