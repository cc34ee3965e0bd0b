#!/bin/bash
# Builds a Debian trixie root in which the real Picamera2 sees simulated Raspberry Pi cameras, and in it a virtual
# environment with everything pyproject.toml asks for. Needs root, debootstrap and the package registries; 2 GB and
# about 90 s from nothing, a second when it is there. Four steps, each done again only when what it depends on changed.
#   setup.sh [DIR]      DIR defaults to $SHMCAM_RIG or /var/tmp/shmcam-rig
# Exit codes: 0 ready, 75 it cannot be built on this machine (the last line says why), others: it should have worked.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../../.." && pwd)
rig=${1:-${SHMCAM_RIG:-/var/tmp/shmcam-rig}}
root=$rig/root
inside() { "$here/enter.sh" "$rig" "$@"; }
cannot() { echo "$1"; exit 75; }
stamp() { cat "$@" | sha256sum | cut -c1-16; }
is_done() { [ "$(cat "$rig/$1.done" 2>/dev/null)" = "$2" ]; }

[ "$(uname -s)" = Linux ] || cannot "needs Linux"
[ "$(id -u)" = 0 ] || cannot "needs root (chroot and mount)"
mkdir -p "$rig" 2>/dev/null || cannot "$rig cannot be written"
unshare --mount true 2>/dev/null || cannot "mount namespaces are not permitted here"

# 1. Debian, libcamera, Picamera2
base=$(sed -n '/^# 1\./,/^# 2\./p' "$here/setup.sh" | sha256sum | cut -c1-16)
if ! is_done base "$base"; then
  command -v debootstrap >/dev/null || { apt-get update -qq && apt-get install -y -qq debootstrap; } >"$rig/host-apt.log" 2>&1 ||
    cannot "debootstrap is missing and cannot be installed (see $rig/host-apt.log)"
  rm -rf "$rig"/*.done
  if ! grep -q '^I: Base system installed successfully' "$rig/debootstrap.log" 2>/dev/null; then
    rm -rf "$root"
    debootstrap --variant=minbase trixie "$root" >"$rig/debootstrap.log" 2>&1 ||
      cannot "debootstrap failed, no Debian mirror? (see $rig/debootstrap.log): $(tail -n1 "$rig/debootstrap.log")"
  fi
  # this machine's names and certificates, so that apt and pip reach what they reach here
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"; cp -L /etc/hosts "$root/etc/hosts"
  mirror=$(awk '$1 == "deb" { print $2; exit }' "$root/etc/apt/sources.list")
  cat >"$root/etc/apt/sources.list" <<EOF
deb $mirror trixie main
deb $mirror trixie-backports main
deb-src $mirror trixie-backports main
deb-src [check-valid-until=no] $mirror sid main
EOF
  # no fsync after each file, nothing that nobody reads here: half of the time
  printf '%s\n' force-unsafe-io 'path-exclude /usr/share/doc/*' 'path-exclude /usr/share/man/*' 'path-exclude /usr/share/locale/*' \
    >"$root/etc/dpkg/dpkg.cfg.d/rig"
  echo 'APT::Install-Recommends "false";' >"$root/etc/apt/apt.conf.d/rig"
  inside apt-get -qq update >"$rig/apt.log" 2>&1 || cannot "apt-get update failed in the root (see $rig/apt.log)"
  inside apt-get -y -qq install -t trixie-backports python3-libcamera libcamera-ipa libcamera-dev ca-certificates dpkg-dev \
    g++ libc6-dev xz-utils procps socat python3-dev python3-pip python3-venv python3-numpy python3-pil python3-av \
    python3-piexif python3-prctl python3-jsonschema python3-libarchive-c python3-tqdm >>"$rig/apt.log" 2>&1 ||
    cannot "apt-get cannot install libcamera in the root (see $rig/apt.log): $(tail -n1 "$rig/apt.log")"
  [ -s /etc/ssl/certs/ca-certificates.crt ] && cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  inside python3 -m pip install -q --break-system-packages --root-user-action=ignore \
    --cert /etc/ssl/certs/ca-certificates.crt picamera2==0.3.38 >"$rig/pip.log" 2>&1 ||
    cannot "pip cannot install picamera2 (see $rig/pip.log)"
  # The pipeline handler needs libcamera's internal headers, from Debian's source package: of the installed version, or
  # where that one is not served, of another release of the same series (its public headers are the installed ones).
  version=$(inside dpkg-query -W -f '${Version}' libcamera-dev)
  inside sh -ec "
    rm -rf /opt/rig/src && mkdir -p /opt/rig/src/tree && cd /opt/rig/src
    for v in $version \$(apt-cache showsrc libcamera | sed -n 's/^Version: //p' | grep '^${version%.*-*}\.' | sort -rV); do
      apt-get -qq source --download-only libcamera=\$v >/dev/null 2>&1 && break
    done
    tar -xf libcamera_*.orig.tar.* -C tree --strip-components=1 --wildcards '*/include/*'
  " >>"$rig/apt.log" 2>&1 || cannot "no source of libcamera ${version%.*-*} can be had (see $rig/apt.log)"
  inside apt-get clean
  echo "$base" >"$rig/base.done"
fi

# 2. the simulated cameras
sources=("$here"/{shim.c,rigcam.cpp,exposure.hpp,pykms.py})
cameras=$(stamp "${sources[@]}")-$base
if ! is_done cameras "$cameras"; then
  cp "${sources[@]}" "$root/opt/rig/"
  inside sh -ec '
    cd /opt/rig
    gcc -O2 -Wall -fPIC -shared -o shim.so shim.c -ldl
    g++ -std=c++20 -O2 -Wall -Wno-missing-field-initializers -fPIC -shared -DLIBCAMERA_BASE_PRIVATE \
      -I/usr/include/libcamera -Isrc/tree/include -o rigcam.so rigcam.cpp -lcamera -lcamera-base
  '
  inside /usr/bin/env LD_PRELOAD='/opt/rig/shim.so /opt/rig/rigcam.so' RIG_CAMERAS=imx708 PYTHONPATH=/opt/rig \
    LIBCAMERA_LOG_LEVELS='*:ERROR' python3 -c 'from picamera2 import Picamera2; assert Picamera2.global_camera_info()'
  echo "$cameras" >"$rig/cameras.done"
fi

# 3. shmcam's dependencies, on the root's own Python
packages=$(stamp "$repo/pyproject.toml" "$repo/packaging/lock.txt")-$base
if ! is_done packages "$packages"; then
  inside python3 -m venv --system-site-packages --clear /opt/venv
  cp "$repo/pyproject.toml" "$repo/packaging/lock.txt" "$root/opt/"
  inside python3 -c '
import tomllib
wanted = tomllib.load(open("/opt/pyproject.toml", "rb"))["project"]["dependencies"] + ["pytest>=8", "pytest-timeout>=2.3", "setuptools>=70.1"]
open("/opt/requirements.txt", "w").write("\n".join(wanted))'
  inside /opt/venv/bin/pip install -q --cert /etc/ssl/certs/ca-certificates.crt -c /opt/lock.txt -r /opt/requirements.txt \
    >"$rig/venv.log" 2>&1 || cannot "pip cannot install shmcam's dependencies (see $rig/venv.log): $(tail -n1 "$rig/venv.log")"
fi

# 4. this working tree, as a copy: nothing the tests write lands in it
rm -rf "$root/opt/shmcam" && mkdir -p "$root/opt/shmcam"
tar -C "$repo" --exclude=./.venv --exclude=./.git --exclude='*cache*' --exclude='*.egg-info' --exclude='./bench/results' \
  --exclude='./recordings' --exclude='./captures' --exclude='./logs' --exclude='./run' -c . | tar -C "$root/opt/shmcam" -x
if ! is_done packages "$packages" || ! inside test -e /opt/venv/bin/shmcam; then
  inside /opt/venv/bin/pip install -q --no-deps --no-build-isolation -e /opt/shmcam >>"$rig/venv.log" 2>&1 || exit
  echo "$packages" >"$rig/packages.done"
fi
