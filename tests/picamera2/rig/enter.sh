#!/bin/bash
# Runs a command inside the rig, in a private mount namespace: nothing stays mounted on this machine.
#   enter.sh DIR COMMAND [ARG ...]      a folder given as BIND=/path appears inside at /bind (writable)
rig=$1; shift
exec unshare --mount --propagation private -- bash -c '
set -e
root=$1/root; shift
mount -t proc proc "$root/proc"; mount -t sysfs -o ro sysfs "$root/sys"
mkdir -p "$root/dev/shm"; mount -t tmpfs tmpfs "$root/dev/shm"
if [ -n "${BIND:-}" ]; then mkdir -p "$root/bind"; mount --bind "$BIND" "$root/bind"; fi
cd "$root"
exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
  ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} "$@"
' enter "$rig" "$@"
