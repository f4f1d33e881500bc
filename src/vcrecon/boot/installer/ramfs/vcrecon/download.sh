# The image: fetched, hashed and unpacked in one stream. Called by install.sh.
#
#   curl (again and again from where it was cut) ─► tee ─► unpack ─► tar into the new root
#                                                   └────► sha256sum
# Nothing of it counts before the digest is proved: a wrong one fails the install, which wipes the disks again.

# How often in a row a download may bring nothing, and how long to wait between, in seconds.
STALLS_MAX=${STALLS_MAX:-60}
STALL_WAIT_S=${STALL_WAIT_S:-5}

fetch_root() {
    measure_image
    mkfifo "$RUN/image" "$RUN/hashed"
    sha256sum <"$RUN/hashed" >"$RUN/digest" &
    hashing=$!
    sh -c 'echo $$ >"$1/reader.pid"; exec tee "$1/hashed" <"$1/image"' reader "$RUN" | unpack_image &
    unpacking=$!
    receive >"$RUN/image"
    received=$?
    wait "$unpacking"
    wait "$hashing"
    rm -f "$RUN/reader.pid" "$RUN/image" "$RUN/hashed"
    [ "$received" -eq 0 ] || fail download-failed "$ROOT_URL: $(cat "$RUN/download.error")"
    prove_digest
    [ "$(cat "$RUN/unpack.status")" = 0 ] || fail_unpacking
}

# measure_image: its size, for the progress only.
measure_image() {
    curl -sSfI --max-time 20 "$ROOT_URL" 2>/dev/null | tr -d '\r' |
        awk 'tolower($1) == "content-length:" { bytes = $2 } END { print bytes + 0 }' >"$RUN/bytes_total"
    echo 0 >"$RUN/bytes_done"
}

# receive: the image on standard output, whole, or false with the reason in $RUN/download.error.
receive() {
    offset=0 stalls=0
    while :; do
        curl -sS -f --connect-timeout 10 --speed-limit 1 --speed-time 30 -C "$offset" \
            -w '%{stderr}vcrecon %{http_code} %{size_download}\n' "$ROOT_URL" 2>"$RUN/curl"
        status=$?
        read_curl
        offset=$((offset + new_bytes))
        echo "$offset" >"$RUN/bytes_done"
        [ "$status" -ne 0 ] || return 0
        # 33: the server cannot resume; 23: the far end of the pipe is gone.
        [ "$status" -ne 33 ] && [ "$status" -ne 23 ] || { give_up; return 1; }
        if [ "$new_bytes" -gt 0 ]; then stalls=0; else stalls=$((stalls + 1)); fi
        case $http_code in 4*) stalls=$((stalls + STALLS_MAX / 3)) ;; esac
        [ "$stalls" -lt "$STALLS_MAX" ] || { give_up; return 1; }
        say "the download was cut at $offset bytes (curl status $status); going on from there" >&2
        [ "$new_bytes" -gt 0 ] || sleep "$STALL_WAIT_S"
    done
}

# read_curl: http_code and new_bytes of the last attempt. What -f turned down is no part of the image.
read_curl() {
    http_code=$(sed -n 's/^vcrecon \([0-9]*\) .*/\1/p' "$RUN/curl")
    new_bytes=$(sed -n 's/^vcrecon [0-9]* //p' "$RUN/curl")
    case $http_code in
        2*) new_bytes=${new_bytes:-0} ;;
        *) new_bytes=0 ;;
    esac
}

give_up() {
    echo "$(grep -v '^vcrecon ' "$RUN/curl" | tail -n 1) (after $offset bytes)" >"$RUN/download.error"
}

# unpack_image: reads to the end whatever happens, so that the digest is of the whole.
unpack_image() {
    decompress | tar -x -p --numeric-owner --xattrs --xattrs-include='*' --warning=no-timestamp -C "$ROOT" -f - \
        >"$RUN/tar" 2>&1
    echo $? >"$RUN/unpack.status"
}

# decompress: by the name of the image. What follows an error is still read.
decompress() {
    case ${ROOT_URL%%\?*} in
        *.zst) zstd -q -d -c --long=31 2>"$RUN/decompress" || : ;;
        *.xz) xz -d -c 2>"$RUN/decompress" || : ;;
        *.gz | *.tgz) gzip -d -c 2>"$RUN/decompress" || : ;;
        *) cat ;;
    esac
    cat >/dev/null
}

prove_digest() {
    digest=$(cut -d' ' -f1 <"$RUN/digest")
    [ "$digest" = "$ROOT_SHA256" ] ||
        fail corrupt "$ROOT_URL has the SHA-256 $digest, and $ROOT_SHA256 is asked for ($(cat "$RUN/bytes_done") bytes)"
    say "SHA-256 proved: $digest"
}

fail_unpacking() {
    cat "$RUN/tar" "$RUN/decompress" 2>/dev/null | tail -n 5
    free=$(df -P -m "$ROOT" | awk 'NR == 2 { print $4 }')
    boot_free=$(df -P -m "$ROOT/boot" | awk 'NR == 2 { print $4 }')
    if [ "$free" -lt 16 ] || [ "$boot_free" -lt 4 ] || grep -q 'No space left' "$RUN/tar"; then
        fail no-space "$ROOT_URL does not fit into $(gibibytes "$ROOT_BYTES") (/boot: $BOOT_MIB MiB)"
    fi
    fail image-not-a-tree "$ROOT_URL is no tar archive that can be unpacked: $(tail -n 1 "$RUN/tar")"
}

# check_root: it looks like a system, with a kernel and an initramfs to boot.
check_root() {
    for path in etc usr/bin usr/sbin sbin/init; do
        [ -e "$ROOT/$path" ] || [ -L "$ROOT/$path" ] ||
            fail image-not-a-tree "$ROOT_URL holds no root file system: it has no /$path"
    done
    newest_kernel >/dev/null || fail image-no-kernel "$ROOT_URL has no /boot/vmlinuz-VERSION with its initrd.img-VERSION"
}

# newest_kernel: the version of the newest kernel that has an initramfs.
newest_kernel() {
    for path in "$ROOT"/boot/vmlinuz-*; do
        version=${path##*/vmlinuz-}
        [ -e "$ROOT/boot/initrd.img-$version" ] && echo "$version"
    done | sort -V | tail -n 1 | grep .
}
