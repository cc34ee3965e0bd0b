#!/bin/sh
# Checks for the Debian packages that pip cannot bring. As root it installs them, else it says exactly what to type.
#   needs.sh run     python3-venv, and libatomic1 where the CPU orders memory weakly
#   needs.sh test    also what the tests look at our output with: socat, curl, ffmpeg, chromium, tmux, zsh, fish, vlc,
#                  spin, gcc, libfaketime, the servers they talk to (mosquitto, sshd), and the file systems of a NAS or stick
set -u
missing=
# need PACKAGE COMMAND...: the package is missing if the command fails
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
need python3-venv "${PYTHON:-python3}" -c 'import venv, ensurepip'
case $(uname -m) in
x86_64 | i?86) ;; # total store order: the ring needs no fences (shm_ring/layout.py)
*) need libatomic1 "${PYTHON:-python3}" -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' ;;
esac
if [ "${1:-run}" = test ]; then
    need socat command -v socat
    need curl command -v curl
    need ffmpeg command -v ffprobe
    need chromium command -v chromium
    need tmux command -v tmux
    need zsh command -v zsh
    need fish command -v fish
    need "vlc-bin vlc-plugin-base" command -v cvlc
    need spin command -v spin
    need gcc command -v gcc
    need libfaketime sh -c 'ls /usr/lib/*/faketime/libfaketime.so.1'
    need openssl command -v openssl
    need rclone command -v rclone
    need procps command -v ps
    need xvfb command -v Xvfb
    need xdotool command -v xdotool
    need imagemagick command -v import
    need mosquitto test -x /usr/sbin/mosquitto
    # Debian starts it at once: nobody gets an ssh server on a machine of his own from `make test`.
    [ -z "${CI:-}" ] || need openssh-server test -x /usr/sbin/sshd
    need netcat-openbsd command -v nc.openbsd
    need netcat-traditional command -v nc.traditional
    need ncat command -v ncat
    need busybox command -v busybox
    need "fusefat dosfstools" sh -c 'command -v fusefat && command -v mkfs.vfat'
    need "exfat-fuse exfatprogs" sh -c 'command -v mount.exfat-fuse && command -v mkfs.exfat'
    need ntfs-3g command -v ntfs-3g
    need "sshfs openssh-sftp-server" sh -c 'command -v sshfs && test -x /usr/lib/openssh/sftp-server'
    need gstreamer1.0-tools command -v gst-launch-1.0
    need "gstreamer1.0-plugins-bad gstreamer1.0-libav" sh -c "gst-inspect-1.0 h264parse && gst-inspect-1.0 avdec_h264"
    need python3-gi /usr/bin/python3 -c 'import gi'
    need gir1.2-gst-rtsp-server-1.0 /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")'
    need gstreamer1.0-plugins-good /usr/bin/python3 -c 'import gi; gi.require_version("Gst", "1.0"); from gi.repository import Gst; Gst.init(None); assert Gst.ElementFactory.find("rtph264depay")'
fi
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    install() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
    apt-get update -qq
    install $missing && exit 0
    left=
    for package in $missing; do # one that this release does not have keeps none of the others away
        install "$package" 2>/dev/null || left="$left $package"
    done
    missing=$left
    [ -z "$missing" ] && exit 0
fi
echo "missing Debian packages; please type:" >&2
echo "    sudo apt-get install$missing" >&2
# Tests that need a missing tool are skipped with the reason; running the cameras without one is not possible.
[ "${1:-run}" = test ] || exit 1
