#!/bin/bash
# Runs the ring's tests as aarch64 under qemu-user, in a Debian arm64 root built by debootstrap (kept in $SHMCAM_ARM or
# /var/tmp/shmcam-arm; 600 MB, some minutes the first time, then ten for the tests). Arguments replace pytest's.
#
# What it proves: the code runs on aarch64: futex call 98, struct sizes and alignment, libatomic's fences really called
# (a machine without libatomic1 is refused by name), OFD locks, memory protection, the C reader compiled for ARM, takeover
# and kills, Python 3.11 of Raspberry Pi OS bookworm.
# What it does not prove: that the fences are the right ones. qemu translates to this machine's ordered loads and
# stores, so a missing fence does not show. For that there are the argument in layout.py and the model ring.pml.
set -euo pipefail
cd "$(dirname "$0")/../.."
home=${SHMCAM_ARM:-/var/tmp/shmcam-arm}
root=$home/root
skip() { echo "SKIPPED: $1"; exit 0; }

for tool in debootstrap qemu-aarch64-static unshare dpkg-deb; do
  command -v $tool >/dev/null || skip "no $tool: apt install debootstrap qemu-user-static util-linux"
done
[ "$(uname -m)" != aarch64 ] || exec .venv/bin/python -m pytest tests/shm_ring "$@"
magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
qemu=$(command -v qemu-aarch64-static)
# A binfmt_misc of its own (Linux 6.7): children are emulated too, and the machine's settings stay as they are.
inside='mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && echo ":arm:M::$1:$2:$3:F" > /proc/sys/fs/binfmt_misc/register'
unshare -Urm bash -c "$inside" - "$magic" "$mask" "$qemu" 2>/dev/null || skip "no binfmt_misc in user namespaces here"

mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ ! -e "$home/ready" ]; then
  rm -rf "$root"
  packages=python3,python3-pytest,python3-pytest-timeout,python3-psutil,libatomic1,gcc,libc6-dev
  debootstrap --arch=arm64 --foreign --variant=minbase --include=$packages bookworm "$root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$home/debootstrap.log" 2>&1 ||
    { tail -3 "$home/debootstrap.log"; skip "debootstrap could not fetch Debian arm64"; }
  for package in "$root"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done  # no second stage needed
  .venv/bin/pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$home/wheels" \
    --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 \
    numpy opencv-python-headless posix_ipc || skip "no aarch64 wheels from PyPI"
  for wheel in "$home"/wheels/*.whl; do .venv/bin/python -m zipfile -e "$wheel" "$root/opt/wheels"; done
  touch "$home/ready"
fi

# The spin model knows no CPU, user namespaces do not nest under qemu, and colours and formats are numpy's and PyAV's
# arithmetic, which the root does not have: all run natively in `make test`.
run='set -e
mount --rbind /proc "$4/proc"; mount --rbind /dev "$4/dev"; mount --rbind /sys "$4/sys"
mkdir -p "$4/work"; mount --bind "$PWD" "$4/work"; mount -t tmpfs tmpfs "$4/tmp"
repository=$4; shift 4
exec chroot "$repository" /usr/bin/env -i PATH=/usr/bin:/bin PYTHONPATH=/opt/wheels:/work PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 \
  /usr/bin/python3 -c "
import os, platform, sys
assert platform.machine() == \"aarch64\"
os.chdir(\"/work\")
from shm_ring.machine.sync import fences
print(\"fences on\", platform.machine(), fences())
import pytest
sys.exit(pytest.main([\"-p\", \"no:cacheprovider\", *sys.argv[1:]]))" "$@"'
[ "$#" -gt 0 ] || set -- tests/shm_ring -m "not slow" -rs --ignore tests/shm_ring/test_model.py \
  --ignore tests/shm_ring/test_color.py --ignore tests/shm_ring/test_formats.py
set -- --timeout 600 "$@"
exec unshare -Urm bash -c "$inside && $run" - "$magic" "$mask" "$qemu" "$root" "$@"
