# The job: asked for once, with the token. Called by install.sh.

CLAIM_TRIES=60

# claim_job: the job's files in $RUN/job. Without it there is nothing to do and nobody who would listen.
claim_job() {
    tries=0
    until answer=$(curl -sS --max-time 60 -o "$RUN/job.tar" -w '%{http_code}' -X POST -H "@$RUN/authorization" \
        "$MASTER/install/claim") && [ "$answer" = 200 ]; do
        case $answer in
            4*) fail step-failed "the master refused this install (HTTP $answer); it is not (or no longer) asked for" ;;
        esac
        tries=$((tries + 1))
        [ "$tries" -lt "$CLAIM_TRIES" ] || fail step-failed "the master did not answer at $MASTER"
        say "the master does not answer yet ($answer)"
        sleep 5
    done
    : >"$RUN/claimed"
    mkdir -p -m 0700 "$RUN/job"
    must step-failed "the job cannot be unpacked" tar -x -p -C "$RUN/job" -f "$RUN/job.tar"
    [ -e "$RUN/job/.complete" ] || fail step-failed "the job was cut off on its way"
    rm "$RUN/job.tar"
}
