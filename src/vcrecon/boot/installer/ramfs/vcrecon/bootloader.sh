# What the firmware starts. Called by install.sh. Every disk of a mirror can boot the machine alone.

SYSLINUX=/usr/lib/syslinux
XEN_OPTIONS="console=vga,com1 com1=115200"

install_boot_loader() {
    version=$(newest_kernel)
    # A volume group's name with hyphens has them doubled in the device mapper.
    root_device=/dev/mapper/$(echo "$VOLUME_GROUP" | sed 's/-/--/g')-root
    split_options
    if [ "$(firmware)" = uefi ]; then
        boot_by_uefi
    else
        boot_by_bios
    fi
}

# split_options: "XEN'S --- LINUX'S" where the hypervisor is Xen; without the dashes all are Linux's. Where Xen is not
# told how much memory the host itself has, that would be all of it; and its Linux has a console of its own.
split_options() {
    linux_options="root=$root_device ro $CMDLINE" xen_options=$XEN_OPTIONS
    case $CMDLINE in
        *' --- '*)
            xen_options=${CMDLINE%% --- *}
            linux_options="root=$root_device ro ${CMDLINE#* --- }"
            ;;
        *) [ "$HYPERVISOR" != xen ] || linux_options="$linux_options console=hvc0" ;;
    esac
    case " $xen_options " in
        *' dom0_mem='*) ;;
        *) xen_options="$xen_options $(host_memory)" ;;
    esac
}

# host_memory: for the host itself under Xen: an eighth of the machine, but 1 GiB at least and 4 GiB at most.
host_memory() {
    awk '/^MemTotal:/ {
        mib = int($2 / 1024 / 8)
        if (mib < 1024) mib = 1024
        if (mib > 4096) mib = 4096
        printf "dom0_mem=%dM,max:%dM\n", mib, mib
    }' "${MEMINFO:-/proc/meminfo}"
}

newest_xen() {
    for path in "$ROOT"/boot/xen-*.gz; do
        [ -e "$path" ] && echo "${path##*/}"
    done | sort -V | tail -n 1 | grep .
}

boot_by_bios() {
    may_write
    mkdir -p "$ROOT/boot/extlinux"
    extlinux_config >"$ROOT/boot/extlinux/extlinux.conf" || fail image-no-kernel "$ROOT_URL has no /boot/xen-VERSION.gz"
    cat "$ROOT/boot/extlinux/extlinux.conf"
    cp "$SYSLINUX/modules/bios/mboot.c32" "$SYSLINUX/modules/bios/libcom32.c32" "$ROOT/boot/extlinux/"
    must boot-loader-failed "extlinux" extlinux --install "$ROOT/boot/extlinux"
    while read -r disk; do
        code=$SYSLINUX/mbr/mbr.bin
        beyond_dos "$disk" && code=$SYSLINUX/mbr/gptmbr.bin
        must boot-loader-failed "boot code of $disk" dd if="$code" of="$DEV/$disk" bs=440 count=1 conv=notrunc,fsync
    done <"$RUN/disks"
}

extlinux_config() {
    case $CMDLINE in *ttyS0*) echo "SERIAL 0 115200" ;; esac
    printf 'DEFAULT system\nPROMPT 0\nTIMEOUT 10\nLABEL system\n'
    if [ "$HYPERVISOR" = xen ]; then
        xen=$(newest_xen) || return 1
        printf '  KERNEL mboot.c32\n  APPEND /%s %s --- /vmlinuz-%s %s --- /initrd.img-%s\n' \
            "$xen" "$xen_options" "$version" "$linux_options" "$version"
    else
        printf '  LINUX /vmlinuz-%s\n  INITRD /initrd.img-%s\n  APPEND %s\n' "$version" "$version" "$linux_options"
    fi
}

# boot_by_uefi: systemd-boot on the ESP of each disk, under the name that firmware looks for by itself.
boot_by_uefi() {
    may_write
    [ "$HYPERVISOR" != xen ] || fail boot-loader-failed \
        "Xen on a machine that boots by UEFI is not supported; switch its firmware to BIOS (legacy) boot"
    mkdir -p /mnt/esp
    while read -r disk; do
        esp=$DEV/$(partition_of "$disk" 1)
        must boot-loader-failed "ESP on $disk" mkfs.vfat -F 32 -n ESP "$esp"
        must boot-loader-failed "ESP on $disk" mount -t vfat "$esp" /mnt/esp
        mkdir -p /mnt/esp/EFI/BOOT /mnt/esp/loader/entries
        must boot-loader-failed "ESP on $disk" cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi /mnt/esp/EFI/BOOT/BOOTX64.EFI
        must boot-loader-failed "kernel on the ESP of $disk" cp "$ROOT/boot/vmlinuz-$version" /mnt/esp/vmlinuz
        must boot-loader-failed "initramfs on the ESP of $disk" cp "$ROOT/boot/initrd.img-$version" /mnt/esp/initrd
        printf 'timeout 1\ndefault system.conf\n' >/mnt/esp/loader/loader.conf
        printf 'title system\nlinux /vmlinuz\ninitrd /initrd\noptions %s\n' "$linux_options" \
            >/mnt/esp/loader/entries/system.conf
        must boot-loader-failed "ESP on $disk" umount /mnt/esp
    done <"$RUN/disks"
    boot_disks_first
}

# boot_disks_first: an entry of ours for each disk, in front of all others, so that a machine whose firmware would try
# the network first does not. Firmware that cannot be told finds the disks by the name of the file on their ESP.
boot_disks_first() {
    efibootmgr | sed -n 's/^Boot\([0-9A-Fa-f]\{4\}\)[* ] vcrecon .*/\1/p' >"$RUN/entries"
    while read -r entry; do
        efibootmgr -q -b "$entry" -B </dev/null
    done <"$RUN/entries"
    # What is made last stands first.
    sed '1!G;h;$!d' "$RUN/disks" >"$RUN/disks.backwards"
    while read -r disk; do
        efibootmgr -q -c -d "$DEV/$disk" -p 1 -L "vcrecon $disk" -l '\EFI\BOOT\BOOTX64.EFI' </dev/null ||
            say "the firmware's boot order cannot be changed; put the disks in front of the network by hand"
    done <"$RUN/disks.backwards"
    efibootmgr
}
