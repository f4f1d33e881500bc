# What is on the chosen disks already, and making them blank. Called by install.sh.
#
# An install that is under way marks its disks by the identifier of their partition table ("vcin" in ASCII). Only a
# disk that was blank, or whose loss a person consented to, ever gets it, and an install that ends well takes it away:
# what bears it is a half-finished install, which may begin anew without asking anybody.

MARK_DOS=0x7663696e
MARK_GPT=7663696E-0000-4000-8000-000000000000
EDGE_BYTES=1048576

table_id() {
    sfdisk --disk-id "$DEV/$1" 2>/dev/null </dev/null
}

half_finished() {
    case $(table_id "$1" | tr 'a-f' 'A-F') in
        "$MARK_GPT" | 0X7663696E | 0x7663696E) return 0 ;;
    esac
    return 1
}

# signatures DISK: what is on it and on its partitions, one a line, in words.
signatures() {
    for device in "$1" $(partitions_on "$1"); do
        wipefs --noheadings -n -O TYPE,LABEL "$DEV/$device" 2>/dev/null </dev/null |
            awk -v device="$device" '{ label = $2 ? " labelled " $2 : ""; print $1 label " on " device }'
    done
}

# edges_are_zero DISK: nothing at the beginning; a disk may hold data of a kind that nobody here knows.
edges_are_zero() {
    [ -z "$(dd if="$DEV/$1" bs="$EDGE_BYTES" count=1 2>/dev/null </dev/null | tr -d '\000' | head -c 1 | od -An -tx1)" ]
}

# refuse_unless_blank: without WIPE=1, the first thing found on a chosen disk ends the install. Writes nothing.
refuse_unless_blank() {
    refuse_twin_group
    [ "$WIPE" = 1 ] && return
    while read -r disk; do
        if half_finished "$disk"; then
            say "$disk: an install of ours that was cut off; it begins anew"
            continue
        fi
        found=$(signatures "$disk" | sort -u)
        [ -n "$found" ] || edges_are_zero "$disk" || found="data of an unknown kind on $disk"
        [ -z "$found" ] || fail disk-not-blank "$(echo "$found" | head -n 8 | paste -s -d ';' | sed 's/;/; /g')"
    done <"$RUN/disks"
}

# refuse_twin_group: another disk's volume group of the same name would make this one ambiguous at every boot.
refuse_twin_group() {
    pvs --noheadings --separator '|' -o pv_name,vg_name 2>/dev/null | tr -d ' ' >"$RUN/pvs"
    twin=$(awk -F'|' -v group="$VOLUME_GROUP" '$2 == group { sub(".*/", "", $1); print $1 }' "$RUN/pvs" |
        while read -r device; do
            mine=no
            while read -r disk; do
                case $device in "$disk" | "$disk"[0-9]* | "$disk"p[0-9]*) mine=yes ;; esac
            done <"$RUN/disks"
            [ "$mine" = yes ] || echo "$device"
        done)
    [ -z "$twin" ] || fail disk-not-blank \
        "the volume group $VOLUME_GROUP is on $(echo "$twin" | paste -s -d ' '), which the layout does not use"
}

# make_blank: take down what stands on the chosen disks, then every signature, then the edges.
make_blank() {
    may_write
    take_down
    while read -r disk; do
        for device in $(partitions_on "$disk") "$disk"; do
            mdadm --zero-superblock --force "$DEV/$device" >/dev/null 2>&1 </dev/null
            must step-failed "$device cannot be wiped" wipefs -a -f "$DEV/$device"
            zero_edges "$device"
        done
        blockdev --rereadpt "$DEV/$disk" 2>/dev/null </dev/null
    done <"$RUN/disks"
}

take_down() {
    for place in /mnt/esp "$ROOT/boot" "$ROOT"; do
        until_true 10 unmounted "$place"
    done
    vgchange -an >/dev/null 2>&1 </dev/null
    for array in "$SYS"/block/md*; do
        [ -e "$array" ] && mdadm --stop "$DEV/${array##*/}" >/dev/null 2>&1 </dev/null
    done
    return 0
}

unmounted() {
    ! grep -q " $1 " /proc/mounts || umount "$1" 2>/dev/null
}

zero_edges() {
    sectors=$(cat "$SYS/class/block/$1/size") edge=$((EDGE_BYTES / 512))
    [ "$sectors" -gt "$edge" ] || edge=$sectors
    for start in 0 $((sectors - edge)); do
        dd if=/dev/zero of="$DEV/$1" bs=512 seek="$start" count="$edge" conv=fsync,notrunc 2>/dev/null </dev/null
    done
}

# forsake_disks: after a failure. What this install began to write goes again, so that the next one finds blank disks.
forsake_disks() {
    [ -e "$RUN/partitioned" ] || return 0
    say "what was written is wiped again"
    # What went wrong first is what the master hears of.
    cp "$RUN/error" "$RUN/error.first" 2>/dev/null
    (make_blank)
    [ ! -e "$RUN/error.first" ] || mv "$RUN/error.first" "$RUN/error"
}
