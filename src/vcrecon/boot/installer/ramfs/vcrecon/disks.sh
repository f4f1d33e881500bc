# Which disks the system goes to. Called by install.sh; writes nothing to any disk.
#
# A disk is one line: name|bytes|rotational|model|serial

BOOT_MIB=512
ESP_MIB=512
# What a volume group needs beside the system and swap to be worth having: for the thin pool and its metadata.
POOL_MIB_MIN=256

# all_disks: every fixed disk that can be written, one line each.
all_disks() {
    for path in "$SYS"/block/*; do
        disk=${path##*/}
        case $disk in
            loop* | ram* | zram* | dm-* | md* | sr* | fd* | nbd* | pmem* | \*) continue ;;
        esac
        sectors=$(cat "$path/size")
        [ "$sectors" -gt 0 ] && [ "$(cat "$path/removable")" = 0 ] && [ "$(cat "$path/ro")" = 0 ] || continue
        # A stick may say that it is a fixed disk.
        case $(readlink -f "$path") in
            */usb*) continue ;;
        esac
        model=$(first_of "$path/device/model" | tr '|' ' ')
        serial=$(first_of "$path/serial" "$path/device/serial" "$path/device/vpd_pg80" | tr '|' ' ')
        echo "$disk|$(bytes_of_sectors "$sectors")|$(cat "$path/queue/rotational")|$model|$serial"
    done
}

bytes_of_sectors() {
    echo $(($1 * 512))
}

# first_of FILE…: the printable text of the first that is there.
first_of() {
    for file in "$@"; do
        [ -r "$file" ] || continue
        tr -cd '[:print:]' <"$file" | sed 's/^ *//; s/ *$//'
        return
    done
}

# matching MATCH: those of standard input that fit a line of MATCH (model|serial|min|max); all when MATCH is empty.
matching() {
    while IFS='|' read -r disk bytes rotational model serial; do
        [ -n "$1" ] && ! fits "$1" "$bytes" "$model" "$serial" && continue
        echo "$disk|$bytes|$rotational|$model|$serial"
    done
}

fits() {
    while IFS='|' read -r model_pattern serial_pattern bytes_min bytes_max; do
        # Patterns, so not quoted.
        # shellcheck disable=SC2254
        case $3 in ${model_pattern:-*}) ;; *) continue ;; esac
        # shellcheck disable=SC2254
        case $4 in ${serial_pattern:-*}) ;; *) continue ;; esac
        [ "$2" -ge "${bytes_min:-0}" ] && { [ -z "$bytes_max" ] || [ "$2" -le "$bytes_max" ]; } && return 0
    done <<END
$1
END
    return 1
}

# healthy: those of standard input that do not say they are failing, and can be read. Bit 3 of smartctl's status is
# the disk's own word that it fails; a disk that knows no SMART is taken at its reading.
healthy() {
    while IFS='|' read -r disk rest; do
        timeout 30 smartctl -H "$DEV/$disk" >/dev/null 2>&1 </dev/null
        [ $(($? & 8)) -eq 0 ] || { say "$disk: SMART says that it is failing" >&2; continue; }
        timeout 60 dd if="$DEV/$disk" of=/dev/null bs=1M count=1 2>/dev/null </dev/null ||
            { say "$disk: cannot be read" >&2; continue; }
        echo "$disk|$rest"
    done
}

# large_enough BYTES
large_enough() {
    awk -F'|' -v least="$1" '$2 >= least'
}

# best RAID: one or two names. Flash before rotating, then the larger, then by name; a pair is two of one kind whose
# sizes differ by no more than a hundredth. Nothing when RAID is "mirror" and there is no pair.
best() {
    sort -t'|' -k3,3n -k2,2nr -k1,1 | awk -F'|' -v raid="$1" '
        { name[NR] = $1; bytes[NR] = $2; kind[NR] = $3 }
        END {
            if (raid != "single")
                for (i = 1; i < NR; i++)
                    # The next in this order is the likest there is.
                    if (kind[i] == kind[i + 1] && bytes[i] - bytes[i + 1] <= bytes[i] / 100) {
                        print name[i]; print name[i + 1]; exit
                    }
            if (raid != "mirror" && NR) print name[1]
        }'
}

bytes_needed() {
    mib=$((BOOT_MIB + POOL_MIB_MIN))
    [ "$(firmware)" = bios ] || mib=$((mib + ESP_MIB))
    echo $((ROOT_BYTES + SWAP_BYTES + mib * 1048576))
}

firmware() {
    if [ -d "$SYS/firmware/efi" ]; then echo uefi; else echo bios; fi
}

any_disk() {
    [ -n "$(all_disks)" ]
}

# choose_disks: their names in $RUN/disks. Fails with the reason that a person can do something about.
choose_disks() {
    until_true "${DISKS_WAIT_S:-15}" any_disk
    all_disks >"$RUN/disks.all"
    say "disks (name|bytes|rotational|model|serial):"
    cat "$RUN/disks.all"
    [ -s "$RUN/disks.all" ] || fail no-disk "this machine shows no fixed disk that can be written"
    matching "$MATCH" <"$RUN/disks.all" >"$RUN/disks.matching"
    [ -s "$RUN/disks.matching" ] ||
        fail disk-no-match "no disk fits the layout; there are: $(listed "$RUN/disks.all")"
    healthy <"$RUN/disks.matching" >"$RUN/disks.healthy"
    [ -s "$RUN/disks.healthy" ] || fail disk-failing "every disk that may be used is failing: $(listed "$RUN/disks.matching")"
    needed=$(bytes_needed)
    large_enough "$needed" <"$RUN/disks.healthy" >"$RUN/disks.large"
    [ -s "$RUN/disks.large" ] ||
        fail disk-too-small "$(gibibytes "$needed") are needed; there are: $(listed "$RUN/disks.healthy")"
    best "$RAID" <"$RUN/disks.large" >"$RUN/disks"
    [ -s "$RUN/disks" ] || fail no-mirror "no two disks are alike enough for a mirror: $(listed "$RUN/disks.large")"
    say "chosen: $(chosen)"
}

# listed FILE: disks for people.
listed() {
    awk -F'|' '{ printf "%s%s (%.1f GiB%s%s)", sep, $1, $2 / 1073741824, $4 ? ", " $4 : "", $5 ? ", serial " $5 : ""
        sep = ", " }' "$1"
}

chosen() {
    tr '\n' ' ' <"$RUN/disks" | sed 's/ $//'
}

mirrored() {
    [ "$(wc -l <"$RUN/disks")" -eq 2 ]
}

describe_disks() {
    grep -E "^($(tr '\n' '|' <"$RUN/disks" | sed 's/|$//'))\|" "$RUN/disks.all" >"$RUN/disks.chosen"
    listed "$RUN/disks.chosen"
}

describe_raid() {
    if mirrored; then echo "RAID1 over $(chosen)"; else echo "none; a single disk: $(chosen)"; fi
}

# partition_of DISK NUMBER: its name, nvme0n1p2 or sda2.
partition_of() {
    case $1 in
        *[0-9]) echo "$1p$2" ;;
        *) echo "$1$2" ;;
    esac
}

# partitions_on DISK: their names.
partitions_on() {
    for path in "$SYS/block/$1/$1"*; do
        [ -e "$path/partition" ] && echo "${path##*/}"
    done
}
