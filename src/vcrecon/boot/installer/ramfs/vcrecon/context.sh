# Who this machine is: the master's files over the image's, once the image is in place. Called by install.sh.

lay_context() {
    # Whatever keys an image may hold, they are nobody's.
    rm -f "$ROOT"/etc/ssh/ssh_host_*
    : >"$ROOT/etc/machine-id"
    (cd "$RUN/job/root" && tar -c --owner=0 --group=0 --numeric-owner -f - .) |
        tar -x -p --no-overwrite-dir --keep-directory-symlink -C "$ROOT" -f - ||
        fail step-failed "the host's own files cannot be written"
    guard_keys
    write_fstab >"$ROOT/etc/fstab"
    set_password
    enable_units
}

guard_keys() {
    chmod 0700 "$ROOT/root/.ssh" 2>/dev/null
    chmod 0600 "$ROOT/root/.ssh/authorized_keys" "$ROOT"/etc/ssh/ssh_host_*_key 2>/dev/null
    [ -s "$ROOT/etc/ssh/ssh_host_ed25519_key" ] || fail step-failed "the job holds no SSH host key"
}

# write_fstab: by names that do not change when a disk is gone. The system boots without /boot and swap, so they may
# lack: with nofail nothing waits for them, and so they may come as late as a slow machine has its devices. (At the
# first start of an emulated one that was after 34 s, of a hypervisor under load it may be minutes.)
write_fstab() {
    late=nofail,x-systemd.device-timeout=10min
    uuid=$(blkid -c /dev/null -s UUID -o value "$(cat "$RUN/boot.device")")
    echo "$root_device / xfs defaults 0 0"
    echo "UUID=$uuid /boot ext4 defaults,$late 0 2"
    [ "$SWAP_BYTES" -eq 0 ] || echo "/dev/$VOLUME_GROUP/swap none swap defaults,$late 0 0"
}

# set_password: root's hash, on standard input only. Without one nobody logs in with a password.
set_password() {
    [ -e "$RUN/job/shadow" ] || return 0
    chroot "$ROOT" /usr/sbin/chpasswd -e <"$RUN/job/shadow" >"$RUN/said" 2>&1 ||
        fail step-failed "root's password cannot be set"
}

# enable_units: what a host is reached by. An image that was captured elsewhere may have done it in another way.
enable_units() {
    for unit in systemd-networkd.service ssh.service; do
        chroot "$ROOT" systemctl --quiet enable "$unit" 2>/dev/null || say "the image has no $unit to enable"
    done
}
