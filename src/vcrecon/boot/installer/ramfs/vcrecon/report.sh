# What the master is told: steps and progress, the log, the end. The token is in a file, never in an argument.

LOG_CHUNK_BYTES=65536
LOG_BYTES_MAX=4194304
TELL_EVERY_S=2

# Where the whole install stands when a step begins, in percent; the download fills the long way from 10 to 85.
percent_of() {
    case $1 in
        disks) echo 1 ;; partition) echo 3 ;; raid) echo 4 ;; lvm) echo 6 ;; filesystems) echo 8 ;;
        download) echo 10 ;; unpack) echo 86 ;; boot-loader) echo 90 ;; context) echo 95 ;; done) echo 100 ;;
        *) echo 0 ;;
    esac
}

keep_a_log() {
    mkfifo "$RUN/log.pipe"
    tee "$RUN/install.log" <"$RUN/log.pipe" >/dev/console &
    exec >"$RUN/log.pipe" 2>&1
}

# step NAME WORDS: begin a step, and say so at once.
step() {
    echo "$1" >"$RUN/step"
    printf '%s' "$2" >"$RUN/message"
    say "== $1: $2"
    [ ! -e "$RUN/closed" ] || exit 1
    post_progress
}

post() {
    curl -sS --max-time 10 -o /dev/null -w '%{http_code}' -H "@$RUN/authorization" "$@" 2>/dev/null
}

# post_progress: the current step; 410 (or 403, a token that is void) is the master's word that this install is over.
# Called every two seconds on machines that may be slow, so with the shell's own means where these suffice.
post_progress() {
    [ -e "$RUN/claimed" ] || return 0
    now=$(current_step)
    percent=$(percent_of "$now") done_bytes=0 total_bytes=0
    if [ "$now" = download ]; then
        done_bytes=$(bytes_received) total_bytes=$(number_in "$RUN/bytes_total")
        if [ "$total_bytes" -gt 0 ]; then
            # What the reader read to start counts too.
            [ "$done_bytes" -le "$total_bytes" ] || done_bytes=$total_bytes
            tenths=$((100 + 750 * done_bytes / total_bytes))
            percent=$((tenths / 10)).$((tenths % 10))
        fi
    fi
    answer=$(post --data-urlencode "step=$now" --data-urlencode "percent=$percent" \
        --data-urlencode "bytes_done=$done_bytes" --data-urlencode "bytes_total=$total_bytes" \
        --data-urlencode "message@$RUN/message" "$MASTER/install/report")
    case $answer in
        410 | 403) : >"$RUN/closed" ;;
    esac
}

# number_in FILE: what it holds, or 0.
number_in() {
    number=
    [ ! -e "$1" ] || read -r number <"$1"
    echo "${number:-0}"
}

# bytes_received: how much of the image has gone through the hash, which the kernel counts for us. The end of the last
# attempt where the reader is not there.
bytes_received() {
    io=/proc/$(number_in "$RUN/reader.pid")/io
    if [ -r "$io" ]; then
        while read -r key value; do
            [ "$key" != rchar: ] || { echo "$value"; return; }
        done <"$io" 2>/dev/null
    fi
    number_in "$RUN/bytes_done"
}

# ship_log: what the log has that the master has not, a chunk at a time.
ship_log() {
    [ -e "$RUN/claimed" ] || return 0
    sent=$(number_in "$RUN/log.sent")
    size=$(wc -c <"$RUN/install.log")
    while [ "$sent" -lt "$size" ] && [ "$sent" -lt "$LOG_BYTES_MAX" ]; do
        tail -c "+$((sent + 1))" "$RUN/install.log" | head -c "$LOG_CHUNK_BYTES" >"$RUN/log.chunk"
        answer=$(post -H 'Content-Type: text/plain; charset=utf-8' --data-binary "@$RUN/log.chunk" "$MASTER/install/log")
        [ "$answer" = 204 ] || return 0
        sent=$((sent + $(wc -c <"$RUN/log.chunk")))
        echo "$sent" >"$RUN/log.sent"
    done
}

# keep_the_master_informed PID: for as long as the installer runs. Its whole process group ends when the master says so.
keep_the_master_informed() {
    while sleep "$TELL_EVERY_S"; do
        ship_log
        post_progress
        if [ -e "$RUN/closed" ]; then
            kill -TERM "-$1"
            return
        fi
    done
}

# post_ended ERROR WORDS: the last word, which the master must hear; tried for ten minutes.
post_ended() {
    [ -e "$RUN/claimed" ] || return 0
    ship_log
    tries=120
    while [ "$tries" -gt 0 ]; do
        answer=$(post --data-urlencode "error=$1" --data-urlencode "message=$2" "$MASTER/install/ended")
        case $answer in
            2?? | 403 | 410) return 0 ;;
        esac
        tries=$((tries - 1))
        sleep 5
    done
    say "the master did not hear of the end of this install"
}
