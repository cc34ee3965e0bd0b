#!/bin/bash
# The device in a real Home Assistant: makes it once in $SHMCAM_HOME_ASSISTANT (default /var/tmp/shmcam-home-assistant),
# about ten minutes, then lets it find our cameras. Needs Python 3.13. `--keys` renews home_assistant_keys.json.
# Where it cannot be made it says `SKIPPED: reason` and exits 0.
set -euo pipefail
cd "$(dirname "$0")/../../.."
home=${SHMCAM_HOME_ASSISTANT:-/var/tmp/shmcam-home-assistant}
version=2025.4.4
if [ ! -e "$home/made" ]; then
  python=$(command -v python3.13 "$HOME"/.pyenv/versions/3.13*/bin/python3 | tail -1) || true
  [ -n "$python" ] && "$python" -m venv "$home" || { echo "SKIPPED: no Python 3.13"; exit 0; }
  "$home/bin/pip" install -q "homeassistant==$version" "paho-mqtt==2.1.0" "home-assistant-frontend==20250411.0"
  touch "$home/made"
fi
if [ "${1:-}" = --keys ]; then
  exec "$home/bin/python" tests/shmcam/mqtt/home_assistant_keys.py tests/shmcam/mqtt/home_assistant_keys.json
fi
SHMCAM_HOME_ASSISTANT=$home exec .venv/bin/python -m pytest -p no:cacheprovider --timeout 600 tests/shmcam/mqtt/test_home_assistant.py "$@"
