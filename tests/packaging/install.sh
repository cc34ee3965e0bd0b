#!/bin/bash
# A new user's first hour, tried in fresh roots: clone, make setup, make run, a picture over socat, a clip, doctor, Ctrl-C; then
# make install, the service as its own user, an upgrade that keeps config.toml, uninstall, purge.
#   make test-install ARGS="bookworm trixie"      needs root and a mirror; about 4 minutes each from nothing, 2 when it is there
# trixie: Debian, with apt's own (older) supervisor. bookworm: as Raspberry Pi OS has it, with numpy 1, a simplejpeg built for it
# and Picamera2 among the system's packages. noble: Ubuntu 24.04.
# The roots are kept in $SHMCAM_INSTALL_ROOT (/var/tmp/shmcam-install); each run sees its own through an overlay and leaves it as
# it was. Where one cannot be built it says `SKIPPED: reason` and goes on.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
place=${SHMCAM_INSTALL_ROOT:-/var/tmp/shmcam-install}
cannot() { echo "SKIPPED: $suite: $*"; exit 0; }
in_base() { chroot "$base" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 "$@"; }

# What docs/install.md tells a new user to install; curl, iproute2 and procps are for this test.
user_packages="git make python3 python3-venv socat ca-certificates curl iproute2 procps"

build_base() {
    rm -rf "$base"
    mirror=()
    if [ "$suite" = noble ]; then mirror=(http://archive.ubuntu.com/ubuntu /usr/share/debootstrap/scripts/gutsy); fi
    components=$([ "$suite" = noble ] && echo --no-check-gpg --components=main,universe || true)
    # shellcheck disable=SC2086 - options or nothing
    debootstrap --variant=minbase $components "$suite" "$base" "${mirror[@]}" >"$kept/debootstrap.log" 2>&1 ||
        cannot "no mirror: $(tail -n1 "$kept/debootstrap.log")"
    cp -L /etc/resolv.conf /etc/hosts "$base/etc/"
    cp -L /etc/pip.conf "$base/etc/pip.conf" 2>/dev/null || true
    mount -t proc proc "$base/proc"
    # shellcheck disable=SC2086 - a list of packages
    { in_base apt-get -qq update && in_base apt-get -y -qq install --no-install-recommends $user_packages; } \
        >"$kept/apt.log" 2>&1 || cannot "apt-get failed: $(tail -n1 "$kept/apt.log")"
    cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
    case $suite in
        trixie) in_base apt-get -y -qq install --no-install-recommends supervisor >>"$kept/apt.log" 2>&1 ;;
        bookworm) add_picamera2 >>"$kept/apt.log" 2>&1 || cannot "no Picamera2: $(tail -n1 "$kept/apt.log")" ;;
    esac
    umount "$base/proc"
    touch "$kept/base.done"
}

# Debian has no python3-picamera2; Raspberry Pi OS has it in dist-packages, beside simplejpeg 1.8.1 built for numpy 1.24. PyPI's
# 1.7.2 is built for numpy 1, too, and takes that number here. libcamera is a stand-in without cameras.
add_picamera2() {
    in_base apt-get -y -qq install --no-install-recommends python3-numpy python3-pil python3-piexif python3-jsonschema python3-av \
        python3-libarchive-c python3-prctl python3-tqdm python3-pip python3-dev gcc libc6-dev
    dist=/usr/lib/python3/dist-packages
    in_base python3 -m pip install -q --no-deps --target "$dist" simplejpeg==1.7.2 picamera2==0.3.27 PiDNG==4.0.9 v4l2-python3
    mv "$base$dist/simplejpeg-1.7.2.dist-info" "$base$dist/simplejpeg-1.8.1.dist-info"
    sed -i 's/^Version: 1.7.2/Version: 1.8.1/' "$base$dist/simplejpeg-1.8.1.dist-info/METADATA"
    mkdir "$base$dist/libcamera"
    cp "$repo/tests/packaging/libcamera_standin.py" "$base$dist/libcamera/__init__.py"
    cp "$repo/tests/picamera2/rig/pykms.py" "$base$dist/"
    in_base python3 -c 'import numpy, simplejpeg, picamera2; assert numpy.__version__ < "2"'
}

if [ "${INSIDE:-}" = "" ]; then
    [ "$#" -gt 0 ] || set -- bookworm trixie
    failed=0
    for suite in "$@"; do
        [ "$(id -u)" = 0 ] || cannot "needs root (chroot and mount)"
        command -v debootstrap >/dev/null || cannot "debootstrap is not installed"
        unshare --mount --net true 2>/dev/null || cannot "namespaces are not permitted here"
        mkdir -p "$place/$suite"
        exec 9>"$place/$suite/lock"
        flock -w 1200 9 || { echo "another run holds $place/$suite/lock"; exit 1; }
        INSIDE=1 unshare --mount --propagation private -- bash "$0" "$suite" || { echo "FAILED: $suite"; failed=1; }
    done
    exit $failed
fi

# ---- in a private mount namespace: nothing stays mounted on this machine
suite=$1
kept=$place/$suite
base=$kept/base
[ -e "$kept/base.done" ] || build_base
top=$kept/top
mkdir -p "$top"
mount -t tmpfs -o size=3G tmpfs "$top"
mkdir -p "$top/changes" "$top/work" "$top/root"
mount -t overlay -o "lowerdir=$base,upperdir=$top/changes,workdir=$top/work" overlay "$top/root"
root=$top/root
mount -t proc proc "$root/proc"
mkdir -p "$root/dev/shm"
mount -t tmpfs -o size=1G tmpfs "$root/dev/shm"
mount -t tmpfs -o size=16M tmpfs "$root/tmp" # memory, as /tmp is on Raspberry Pi OS trixie, and smaller than what pip fetches
chmod 1777 "$root/dev/shm" "$root/tmp"
# this machine's way to the package index
for place in ${PIP_FIND_LINKS:-}; do
    if [ -d "$place" ]; then mkdir -p "$root$place" && mount --bind -o ro "$place" "$root$place"; fi
done
index=(${PIP_FIND_LINKS:+PIP_FIND_LINKS="$PIP_FIND_LINKS"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"})
git clone -q --bare "$repo" "$root/srv/shmcam.git"
in_root() { chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root PIP_DEFAULT_TIMEOUT=180 "${index[@]}" "$@"; }
as_ada() { in_root runuser -u ada -- env HOME=/home/ada sh -ec "umask 077; cd ~ && $1"; }
# as ada, in a network of its own: ports are free whatever runs on this machine, and nothing needs the internet any more
offline() { in_root unshare --net -- sh -ec "ip link set lo up; $1"; }

step() { echo "== $suite: $*"; }
began=$SECONDS
in_root useradd --create-home --shell /bin/bash ada
in_root chown -R ada /srv/shmcam.git

step "clone into a folder with a space, and make setup"
as_ada "mkdir 'My Camera' && git clone -q /srv/shmcam.git 'My Camera/shmcam' && ln -s 'My Camera/shmcam' shmcam && cd shmcam && make setup" \
    >"$kept/setup.log" 2>&1 || { tail -n 30 "$kept/setup.log"; exit 1; }
as_ada 'cd shmcam && .venv/bin/python -c "import numpy, simplejpeg, supervisor; print(numpy.__file__, simplejpeg.__file__)" && test -x .venv/bin/supervisord'
if [ "$suite" = bookworm ]; then as_ada 'cd shmcam && .venv/bin/python -c "import picamera2; print(picamera2.__file__)"'; fi

step "make run, a picture, a clip, doctor, Ctrl-C"
cat >"$root/home/ada/hour.sh" <<'END'
set -eu
cd "$HOME/My Camera/shmcam"
make run >~/run.out 2>&1 &
make=$!
tell() { echo "$1" | socat -t20 - UNIX-CONNECT:run/control.sock; }
try() { for _ in $(seq 120); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.5; done; echo "in vain: $*"; cat ~/run.out logs/*.log; exit 1; }
try curl -sf -o ~/first.jpg http://127.0.0.1:8080/snapshot.jpg
echo "first picture over HTTP: $(stat -c %s ~/first.jpg) bytes"
saved() { tell save | grep -q '^Saved single full-resolution image:'; }
try saved
tell save
set -- captures/*.jpg
head -c 2 "$1" | od -An -tx1 | grep -q 'ff d8'
started() { tell "record start" | grep -q '^recording '; }
try started
sleep 3
tell "record stop"
ls -l recordings/session_*/*.mp4
.venv/bin/shmcam status
.venv/bin/shmcam doctor
kill -INT "$(cat run/supervisord.pid)"      # what Ctrl-C does
wait $make || true
sleep 1
[ -z "$(ls /dev/shm)" ] || { echo "left in /dev/shm: $(ls /dev/shm)"; exit 1; }
END
offline "runuser -u ada -- env HOME=/home/ada sh /home/ada/hour.sh"
step "make install"
in_root sh -ec "umask 077; cd /home/ada/shmcam && git config --global --add safe.directory '*' && make install" >"$kept/install.log" 2>&1 || { tail -n 30 "$kept/install.log"; exit 1; }
tail -n 3 "$kept/install.log"
in_root sh -ec 'test -f /etc/systemd/system/shmcam.service; id shmcam; ls -ld /etc/shmcam /var/lib/shmcam /var/log/shmcam'
as_ada 'cd /usr/share && shmcam --help >/dev/null && cat bash-completion/completions/shmcam zsh/vendor-completions/_shmcam fish/vendor_completions.d/shmcam.fish >/dev/null'

step "the service as its own user"
cat >"$root/srv/service.sh" <<'END'
set -eu
install -d -o shmcam -g shmcam -m 0750 /run/shmcam     # systemd's RuntimeDirectory
runuser -u shmcam -- env SHMCAM_CONFIG=/etc/shmcam/config.toml /opt/shmcam/.venv/bin/shmcam run >/tmp/service.out 2>&1 &
service=$!
cd /
saved() { shmcam save | grep -q "/var/lib/shmcam/captures/"; }
for _ in $(seq 120); do if saved 2>/dev/null; then break; fi; sleep 0.5; done
saved || { cat /tmp/service.out; exit 1; }
shmcam status
stat -c '%A %U:%G %n' /run/shmcam/control.sock /run/shmcam
if runuser -u ada -- shmcam --socket /run/shmcam/control.sock ping; then echo "a stranger got in"; exit 1; fi
shmcam set night.dark_threshold 33 --save
kill -TERM "$(cat /run/shmcam/supervisord.pid)"
wait $service || true
[ -z "$(ls /dev/shm)" ] || { echo "left in /dev/shm: $(ls /dev/shm)"; exit 1; }
END
offline "sh /srv/service.sh"

step "upgrade keeps the configuration"
in_root sh -ec "cd /home/ada/shmcam && make install" >>"$kept/install.log" 2>&1
in_root grep -q 'dark_threshold = 33' /etc/shmcam/config.toml

step "uninstall, purge"
in_root sh -ec "cd /home/ada/shmcam && make uninstall && test -d /var/lib/shmcam/captures && test ! -e /opt/shmcam"
in_root sh -ec "/home/ada/shmcam/packaging/install.sh --uninstall --purge && test ! -e /var/lib/shmcam && ! id shmcam 2>/dev/null"
echo "installed, ran and removed in $((SECONDS - began)) s"
