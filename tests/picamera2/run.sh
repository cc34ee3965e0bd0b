#!/bin/bash
# The tests of capture on the real Picamera2 with simulated cameras: builds the rig if needed (kept in $SHMCAM_RIG or
# /var/tmp/shmcam-rig) and runs pytest inside it, on Python 3.13.
#   run.sh [PYTEST ARGUMENT ...]        e.g. run.sh -m slow, run.sh -k stride
# Where the rig cannot be built it says `SKIPPED: reason` and exits 0.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
rig=${SHMCAM_RIG:-/var/tmp/shmcam-rig}
[ "$#" -gt 0 ] || set -- -m "picamera2 and not slow"

if [ "$(id -u)" = 0 ] && mkdir -p "$rig"; then
  exec 9>"$rig/lock"
  flock -w 1200 9 || { echo "another run holds $rig/lock"; exit 1; }
fi
began=$SECONDS
log=$("$here/rig/setup.sh" "$rig" 2>&1)
case $? in
  0) ;;
  75) echo "SKIPPED: ${log##*$'\n'}"; echo "1 skipped in $((SECONDS - began))s"; exit 0 ;;
  *) echo "$log"; echo "the rig could not be built; its logs are in $rig"; exit 1 ;;
esac
echo "rig ready after $((SECONDS - began)) s: $rig"

exec "$here/rig/enter.sh" "$rig" /usr/bin/env -C /opt/shmcam LD_PRELOAD="/opt/rig/shim.so /opt/rig/rigcam.so" \
  PYTHONPATH=/opt/rig LIBCAMERA_LOG_LEVELS='*:ERROR' RIG_CAMERAS=imx708,imx296 SHMCAM_IN_RIG=1 ${SHMCAM_KEEP:+SHMCAM_KEEP=1} PATH=/opt/venv/bin:/usr/bin:/bin \
  timeout -k 10 "${SHMCAM_RIG_TIMEOUT:-1800}" /opt/venv/bin/python -m pytest -p no:cacheprovider tests/picamera2 "$@"
