#!/bin/bash
# Installs shmcam as a system service on Raspberry Pi OS, Debian or Ubuntu; run again after `git pull` to upgrade.
#   sudo make install                          program, user shmcam, /etc/shmcam/config.toml, systemd unit, completion
#   sudo make uninstall                        all of that but configuration, recordings and logs
#   sudo packaging/install.sh --uninstall --purge   these too
# Nothing outside these places is touched:
program=/opt/shmcam
etc=/etc/shmcam
state=/var/lib/shmcam
logs=/var/log/shmcam
unit=/etc/systemd/system/shmcam.service
command=/usr/local/bin/shmcam
completions=(/usr/share/bash-completion/completions/shmcam /usr/share/zsh/vendor-completions/_shmcam
             /usr/share/fish/vendor_completions.d/shmcam.fish)
set -euo pipefail
umask 022  # root's may be 077, and everybody runs the command and reads its completion
here=$(cd "$(dirname "$0")/.." && pwd)

say() { echo "shmcam: $*"; }
[ "$(id -u)" = 0 ] || { say "needs root; type: sudo $0 $*"; exit 1; }
running_systemd() { [ -d /run/systemd/system ]; }

uninstall() {
    if running_systemd; then systemctl disable --now shmcam 2>/dev/null || true; fi
    rm -rf "$program" "$unit" "$command" "${completions[@]}"
    if running_systemd; then systemctl daemon-reload; fi
    if [ "${1:-}" = --purge ]; then
        rm -rf "$etc" "$state" "$logs" /run/shmcam
        if id shmcam >/dev/null 2>&1; then userdel shmcam; fi
        say "removed, with configuration, recordings and logs"
    else
        say "removed; kept: $etc $state $logs (remove them with: sudo $0 --uninstall --purge)"
    fi
}

add_user() {
    id shmcam >/dev/null 2>&1 || useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin shmcam
    # cameras belong to group video, the Pi's DMA heaps and encoders to video or render
    for group in video render; do
        if getent group "$group" >/dev/null; then usermod -aG "$group" shmcam; fi
    done
    install -d -o shmcam -g shmcam -m 0750 "$etc" "$state" "$logs"
}

copy_program() {
    install -d -m 0755 "$program"
    # what git knows, so that neither a developer's .venv nor recordings are copied; without git: all but those
    files=$(mktemp)
    if git -C "$here" -c safe.directory="$here" ls-files -z >"$files" 2>/dev/null; then
        tar -C "$here" --null -T "$files" -c | tar -C "$program" -x --no-same-owner
    else
        tar -C "$here" --exclude=./.venv --exclude=./.git --exclude=./run --exclude=./logs --exclude=./captures \
            --exclude=./recordings --exclude=./archives --exclude=./tls --exclude='./library.*' -c . | tar -C "$program" -x --no-same-owner
    fi
    rm -f "$files"
    make -s -C "$program" setup
    chmod -R go+rX "$program"
}

# config.toml as shipped, with the places of a system service; an existing one is its owner's and stays.
write_config() {
    sed -e 's|^run = .*|run = "/run/shmcam"|' -e "s|^logs = .*|logs = \"$logs\"|" \
        -e "s|^recordings = .*|recordings = \"$state/recordings\"|" -e "s|^archives = .*|archives = \"$state/archives\"|" \
        -e "s|^library = .*|library = \"$state/library.sqlite3\"|" -e "s|^base_dir = .*|base_dir = \"$state/captures\"|" \
        "$program/config.toml" >"$etc/config.toml.shipped"
    if [ ! -e "$etc/config.toml" ]; then
        cp "$etc/config.toml.shipped" "$etc/config.toml"
    elif ! cmp -s "$etc/config.toml" "$etc/config.toml.shipped"; then
        say "kept your $etc/config.toml; the shipped one is beside it (config.toml.shipped)"
    fi
    chown shmcam:shmcam "$etc"/config.toml*
    chmod 0640 "$etc"/config.toml*
}

add_command() {
    cat >"$command" <<'END'
#!/bin/sh
# the service's own configuration, unless another is chosen or stands in this folder; that of a clone is only the one
# it ships, unless it runs
is_own() { [ -e config.toml ] && { [ ! -e packaging/install.sh ] || [ -S run/control.sock ]; }; }
[ -n "${SHMCAM_CONFIG:-}" ] || is_own || export SHMCAM_CONFIG=/etc/shmcam/config.toml
exec /opt/shmcam/.venv/bin/shmcam "$@"
END
    chmod 0755 "$command"
    local shell
    for shell in bash zsh fish; do
        case $shell in bash) file=${completions[0]} ;; zsh) file=${completions[1]} ;; fish) file=${completions[2]} ;; esac
        mkdir -p "$(dirname "$file")"
        SHMCAM_CONFIG=$etc/config.toml "$program/.venv/bin/shmcam" completion $shell >"$file"
    done
}

add_unit() {
    install -m 0644 "$program/packaging/shmcam.service" "$unit"
    if running_systemd; then
        systemctl daemon-reload
        systemctl enable shmcam
        systemctl restart shmcam
        say "running; see: systemctl status shmcam, shmcam status, shmcam doctor"
    else
        say "no systemd runs here; start it with: runuser -u shmcam -- $command run"
    fi
}

if [ "${1:-}" = --uninstall ]; then
    uninstall "${2:-}"
    exit 0
fi
add_user
copy_program
write_config
add_command
add_unit
say "your user joins with: sudo usermod -aG shmcam \$USER   (then log in again)"
