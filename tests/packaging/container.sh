#!/bin/bash
# packaging/Containerfile without a container engine: its RUN and COPY lines in the trixie root of `make test-install`, then its
# ENTRYPOINT as its user, with /dev/shm of 512 MB and a network of its own, until its HEALTHCHECK is content.
#   container.sh      needs root and that root (make test-install ARGS=trixie); else it says `SKIPPED: reason` and exits 0
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
base=${SHMCAM_INSTALL_ROOT:-/var/tmp/shmcam-install}/trixie/base
cannot() { echo "SKIPPED: $*"; exit 0; }
if [ "${INSIDE:-}" = "" ]; then
    [ "$(id -u)" = 0 ] || cannot "needs root (chroot and mount)"
    [ -e "$base/../base.done" ] || cannot "no $base; make it with: make test-install ARGS=trixie"
    unshare --mount --net true 2>/dev/null || cannot "namespaces are not permitted here"
    INSIDE=1 exec unshare --mount --propagation private -- bash "$0"
fi
file=$repo/packaging/Containerfile
top=$(mktemp -d)
trap 'umount -R "$top" 2>/dev/null; rmdir "$top"' EXIT
mount -t tmpfs -o size=8G tmpfs "$top"   # more than library.free_reserve_mb must stay free
mkdir "$top/changes" "$top/work" "$top/root"
root=$top/root
mount -t overlay -o "lowerdir=$base,upperdir=$top/changes,workdir=$top/work" overlay "$root"
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o size=512M tmpfs "$root/dev/shm"
chmod 1777 "$root/dev/shm" "$root/tmp"
for place in ${PIP_FIND_LINKS:-}; do
    if [ -d "$place" ]; then mkdir -p "$root$place" && mount --bind -o ro "$place" "$root$place"; fi
done
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive ${PIP_FIND_LINKS:+PIP_FIND_LINKS="$PIP_FIND_LINKS"} "$@"; }
mkdir -p "$root/usr/src/shmcam"
git -C "$repo" ls-files -z -- $(sed -n 's/^!//p' "$repo/.dockerignore") | tar -C "$repo" --null -T - -c | tar -C "$root/usr/src/shmcam" -x
sed -n 's/^RUN //p' "$file" | while read -r line; do echo "== RUN ${line:0:90}"; in_root sh -ec "$line" </dev/null >"$top/log" 2>&1 || { tail -n 20 "$top/log"; exit 1; }; done
check=$(sed -n 's/^HEALTHCHECK .* CMD //p' "$file")
environment=$(sed -n 's/^ENV //p' "$file")
echo "== ENTRYPOINT, HEALTHCHECK"
cat >"$root/try.sh" <<END_OF_TRY
ip link set lo up
cd /data
export SHMCAM_HTTP__TOKEN=sixteen-or-more-characters
setpriv --reuid=shmcam --regid=shmcam --init-groups env $environment HOME=/data shmcam run >/tmp/out 2>&1 &
service=\$!
trap "kill \$service 2>/dev/null || true; wait" EXIT
for _ in \$(seq 240); do if $check 2>/dev/null; then well=1; break; fi; sleep 0.5; done
[ "\${well:-}" ] || { curl -s http://127.0.0.1:8080/healthz; cat /tmp/out /data/logs/*.log; exit 1; }
echo healthy; ls /data
curl -sf -o /tmp/first.jpg -H 'Authorization: Bearer sixteen-or-more-characters' http://127.0.0.1:8080/snapshot.jpg && head -c 2 /tmp/first.jpg | od -An -tx1
kill -TERM \$service
wait \$service || true
sleep 1
[ -z "\$(ls /dev/shm)" ]
END_OF_TRY
in_root unshare --net -- sh -e /try.sh
echo "built, ran and stopped"
