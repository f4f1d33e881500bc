# Partitions, mirrors, volumes and file systems. Called by install.sh. From here on the disks are written to.

# Partitions: [1 the ESP with UEFI,] then /boot, then the volume group.
boot_number() {
    if [ "$(firmware)" = uefi ]; then echo 2; else echo 1; fi
}

group_number() {
    echo $(($(boot_number) + 1))
}

# table DISK: the input of sfdisk. A table of the old kind where BIOS boots and it can hold the whole disk.
table() {
    if [ "$(firmware)" = uefi ]; then
        printf 'label: gpt\nlabel-id: %s\n' "$MARK_GPT"
        printf 'size=%sMiB, type=U\nsize=%sMiB, type=L\ntype=V\n' "$ESP_MIB" "$BOOT_MIB"
    elif beyond_dos "$1"; then
        printf 'label: gpt\nlabel-id: %s\n' "$MARK_GPT"
        printf 'size=%sMiB, type=L, attrs=LegacyBIOSBootable\ntype=V\n' "$BOOT_MIB"
    else
        printf 'label: dos\nlabel-id: %s\n' "$MARK_DOS"
        printf 'size=%sMiB, type=83, bootable\ntype=%s\n' "$BOOT_MIB" "$(mirrored && echo fd || echo 8e)"
    fi
}

# beyond_dos DISK: 2 TiB is what a partition table of the old kind can count.
beyond_dos() {
    [ "$(($(cat "$SYS/block/$1/size") >> 32))" -gt 0 ]
}

partition_disks() {
    may_write
    : >"$RUN/partitioned"
    while read -r disk; do
        table "$disk" >"$RUN/table"
        say "sfdisk /dev/$disk: $(paste -s -d ';' "$RUN/table")"
        sfdisk --quiet --wipe always --wipe-partitions always "$DEV/$disk" <"$RUN/table" >"$RUN/said" 2>&1 ||
            fail step-failed "$disk cannot be partitioned: $(tail -n 2 "$RUN/said" | tr '\n' ' ')"
        last="$DEV/$(partition_of "$disk" "$(group_number)")"
        until_true 20 test -b "$last" || fail step-failed "$last did not appear"
    done <"$RUN/disks"
}

# members NUMBER: the partitions of that number on all chosen disks.
members() {
    while read -r disk; do
        echo "/dev/$(partition_of "$disk" "$1")"
    done <"$RUN/disks"
}

# make_arrays: $RUN/boot.device and $RUN/group.device. Metadata 1.0 is at the end, so that a boot loader sees a plain
# file system. Both sides count as equal from the start: whatever is ever read was written to both, and only so a
# fresh mirror survives the loss of either disk.
make_arrays() {
    may_write
    if ! mirrored; then
        members "$(boot_number)" >"$RUN/boot.device"
        members "$(group_number)" >"$RUN/group.device"
        return
    fi
    # shellcheck disable=SC2046
    must step-failed "RAID1 for /boot" mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.0 \
        --homehost=any --name=boot --assume-clean --bitmap=none $(members "$(boot_number)")
    # shellcheck disable=SC2046
    must step-failed "RAID1 for the volume group" mdadm --create /dev/md1 --run --level=1 --raid-devices=2 \
        --metadata=1.2 --homehost=any --name=system --assume-clean --bitmap=internal $(members "$(group_number)")
    echo /dev/md0 >"$RUN/boot.device"
    echo /dev/md1 >"$RUN/group.device"
}

# make_volumes: the system, swap, and a thin pool of what is left less a tenth.
make_volumes() {
    may_write
    device=$(cat "$RUN/group.device")
    must step-failed "physical volume" pvcreate -ff -y "$device"
    must step-failed "volume group $VOLUME_GROUP" vgcreate -y "$VOLUME_GROUP" "$device"
    must step-failed "volume of the system" lvcreate -y -W y -n root -L "${ROOT_BYTES}b" "$VOLUME_GROUP"
    [ "$SWAP_BYTES" -eq 0 ] ||
        must step-failed "volume for swap" lvcreate -y -W y -n swap -L "${SWAP_BYTES}b" "$VOLUME_GROUP"
    must step-failed "thin pool $POOL" lvcreate -y --type thin-pool -l 90%FREE --zero y -n "$POOL" "$VOLUME_GROUP"
}

# make_filesystems: made and mounted at $ROOT. The boot loader cannot read two newer features of ext4.
make_filesystems() {
    may_write
    must step-failed "file system of /boot" mke2fs -q -F -t ext4 -O '^metadata_csum,^64bit' -L boot "$(cat "$RUN/boot.device")"
    must step-failed "file system of the system" mkfs.xfs -q -f -L system "/dev/$VOLUME_GROUP/root"
    [ "$SWAP_BYTES" -eq 0 ] || must step-failed "swap" mkswap -L swap "/dev/$VOLUME_GROUP/swap"
    mkdir -p "$ROOT"
    must step-failed "mounting the system" mount -t xfs "/dev/$VOLUME_GROUP/root" "$ROOT"
    mkdir -p "$ROOT/boot"
    must step-failed "mounting /boot" mount -t ext4 "$(cat "$RUN/boot.device")" "$ROOT/boot"
}

# finish_disks: everything written and closed; then the mark of an unfinished install goes.
finish_disks() {
    may_write
    must step-failed "writing everything out" sync
    must step-failed "unmounting /boot" umount "$ROOT/boot"
    must step-failed "unmounting the system" umount "$ROOT"
    must step-failed "closing the volume group" vgchange -an "$VOLUME_GROUP"
    if mirrored; then
        must step-failed "closing the mirror" mdadm --stop /dev/md1
        must step-failed "closing the mirror of /boot" mdadm --stop /dev/md0
    fi
    while read -r disk; do
        must step-failed "identifier of $disk" sfdisk --disk-id "$DEV/$disk" "$(fresh_id "$disk")"
        ! half_finished "$disk" || fail step-failed "$disk still bears the mark of an unfinished install"
    done <"$RUN/disks"
    sync
}

# fresh_id DISK: random, of the kind that its table has.
fresh_id() {
    case $(table_id "$1") in
        0x*) echo "0x1$(od -An -N4 -tx1 /dev/urandom | tr -d ' \n' | cut -c2-8)" ;;
        *) cat /proc/sys/kernel/random/uuid ;;
    esac
}
