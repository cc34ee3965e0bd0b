#!/bin/sh
# Brings .venv of this clone up to date; what `make setup`, `make run`, `make test`, `make install` begin with.
#   setup.sh run|test|bench      bench: the peers of `make bench` too; those that cannot be installed are skipped there
# The versions come from packaging/lock.txt, the set that was tested; another file: LOCK=FILE. A .venv that cannot be used any
# more (its Python went with a system upgrade, the clone was moved or renamed, pip is missing) is made anew.
set -eu
cd "$(dirname "$0")/.."
what=${1:-run}
lock=${LOCK:-packaging/lock.txt}
# pip writes the folder's name into its scripts as UTF-8 and would read it in the locale's encoding, errors' words likewise
export LC_ALL=C.UTF-8
here=$(pwd -P)

refuse() {
    echo "$*" >&2
    exit 1
}

# The newest Python with all that a venv needs, else the newest: needs.sh then says what to install.
find_python() {
    for wanted in "sys, venv, ensurepip" sys; do
        for candidate in python3.13 python3.12 python3.11 python3; do
            if "$candidate" -c "import $wanted; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
                echo "$candidate"
                return
            fi
        done
    done
}

# Raspberry Pi OS brings libcamera and picamera2 as apt packages of the system's Python: then that very Python makes a
# venv that sees them. pip puts its own numpy, simplejpeg and supervisor before the system's (pyproject.toml has the bounds).
system=/usr/bin/python3
if $system -c 'import sys, libcamera; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$system
    see_system=--system-site-packages
else
    python=${PYTHON:-$(find_python)}
    see_system=
fi
[ -n "$python" ] || refuse "Python 3.11 or newer is needed; please type: sudo apt-get install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
    refuse "shmcam needs a 64-bit system (aarch64 or x86-64), and this Python has 32 bits: half of the packages it needs are not built for that. On a Raspberry Pi install the 64-bit Raspberry Pi OS."
case $here in
    *:*) refuse "a folder with a colon in its path cannot hold a Python environment, please rename it: $here" ;;
esac

"$python" -c 'import sys; sys.argv[1].encode()' "$here" 2>/dev/null ||
    refuse "a folder whose path is not UTF-8 cannot hold a Python environment, please rename it: $here"

usable() {
    .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        grep -qsF "$here/.venv/bin/" .venv/bin/pip && { [ -z "$see_system" ] || sees_system; }
}
sees_system() {
    grep -q '^include-system-site-packages = true' .venv/pyvenv.cfg &&
        [ "$(.venv/bin/python -c "$version")" = "$($system -c "$version")" ]
}
version='import sys; print(sys.version_info[:2])'
# what .venv was made from
identity() { echo "$here $(.venv/bin/python --version) $see_system $(cat pyproject.toml "$lock" | cksum)"; }
# the test set has all that runs
is_done() { [ -x .venv/bin/shmcam ] && [ "$(cat ".venv/$1.stamp" 2>/dev/null)" = "$(identity)" ]; }
up_to_date() { is_done "$what" || { [ "$what" = run ] && is_done test; }; }

# A service whose user may not write here would compile at each start, and keep 30 MB more for it.
compile() { .venv/bin/python -m compileall -q shm_ring shmcam capture analyzer exporter recorder streamer || :; }

if usable && up_to_date; then compile; exit 0; fi
PYTHON=$python sh packaging/needs.sh "$([ "$what" = bench ] && echo test || echo "$what")"
for place in .venv .; do
    if [ -e "$place" ] && [ ! -w "$place" ]; then
        refuse "$here/$place belongs to another user; please type: sudo chown -R $(id -un) '$here'"
    fi
done
if ! usable; then
    if [ -e .venv ]; then
        [ -e .venv/pyvenv.cfg ] || refuse "$here/.venv is no Python environment; please remove or rename it"
        echo "making .venv anew: its Python or pip is gone, the folder was moved, or picamera2 came later"
        rm -rf .venv
    fi
    # shellcheck disable=SC2086 - an option or nothing
    "$python" -m venv $see_system .venv
fi
rm -f .venv/*.stamp
# install ARGUMENTS...: pip, with one line for each package that it fetches; its errors stay whole. What it fetches is kept beside
# what it installs: /tmp is memory on many systems, and half of a small Pi's is too little.
install() {
    echo "installing up to $(grep -c == "$lock") packages into .venv: some minutes the first time, ten on a small Pi"
    rm -rf .venv/tmp
    mkdir .venv/tmp
    { TMPDIR="$here/.venv/tmp" .venv/bin/python -m pip --disable-pip-version-check install -c "$lock" "$@" 2>&1 || echo "exit status $?"; } | awk '
        /^exit status [0-9]+$/ { code = $3; next }
        failed || /^ *(ERROR|error):/ { failed = 1; print >"/dev/stderr"; next }
        /^ *Collecting / { printf "  %d %s\n", ++count, $2; fflush() }
        END { exit code }' || {
        echo "the packages could not be installed: the reason is above. Free here:$(df -BM --output=avail . | tail -n 1), of about 600M that they need" >&2
        return 1
    }
    rm -rf .venv/tmp
}
case $what in
    run) install -e . ;;
    *) install -e '.[test]' ;;
esac
# Where the clone is, as a path from site-packages: the absolute one that pip notes is another folder's where the locale is not UTF-8.
.venv/bin/python -c 'import pathlib, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "shmcam_clone.pth").write_text("../../../..\n")'
# the page's accessibility is tested with axe-core, which only npm has; without npm that test is skipped
if [ "$what" != run ] && command -v npm >/dev/null && [ ! -e .venv/node_modules/axe-core ]; then
    npm install --prefix .venv --no-save --no-audit --no-fund --silent axe-core@4 || echo "no axe-core"
fi
if [ "$what" = bench ]; then install -e '.[bench]' || echo "some peers are missing and will be skipped"; fi
compile
identity >".venv/$what.stamp"
if [ "$what" = bench ]; then identity >.venv/test.stamp; fi
