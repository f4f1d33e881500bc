# What every part uses: where things are, how one speaks, how one fails. Read by all the others.

RUN=${RUN:-/run/vcrecon}
ROOT=${ROOT:-/mnt/root}
DEV=${DEV:-/dev}
SYS=${SYS:-/sys}

say() {
    read -r uptime_s _ </proc/uptime
    echo "[$uptime_s] $*"
}

# fail CODE WORDS: the install ends here. init tells the master. Never from within $( ) or a pipe, which it would
# only leave.
fail() {
    code=$1
    shift
    printf '%s\n%s\n' "$code" "$*" >"$RUN/error"
    say "FAILED ($code): $*"
    exit 1
}

# must CODE WHAT COMMAND…: run it, or fail with its own last words.
must() {
    code=$1 what=$2
    shift 2
    say "+ $*"
    "$@" >"$RUN/said" 2>&1 </dev/null || {
        cat "$RUN/said"
        fail "$code" "$what: $(tail -n 3 "$RUN/said" | tr '\n' ' ')"
    }
    cat "$RUN/said"
}

# until_true SECONDS COMMAND…: wait for something; false when it does not come.
until_true() {
    left=$(($1 * 5))
    shift
    until "$@"; do
        [ "$left" -gt 0 ] || return 1
        left=$((left - 1))
        sleep 0.2
    done
}

# gibibytes BYTES, for people.
gibibytes() {
    awk -v n="$1" 'BEGIN { printf "%.1f GiB", n / 1073741824 }'
}

# may_write: whether the devices are those of a machine that booted the installer (or files of a test, elsewhere).
may_write() {
    [ "$DEV" != /dev ] || grep -q 'vcrecon\.token=' /proc/cmdline ||
        fail step-failed "this machine did not boot the installer; its disks are left alone"
}

current_step() {
    step_now=
    [ ! -e "$RUN/step" ] || read -r step_now <"$RUN/step"
    echo "${step_now:-boot}"
}
