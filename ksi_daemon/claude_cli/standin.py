"""A program that stands in for the `claude` command in parity, bench and tests."""

PROGRAM = rb"""#!/bin/sh
# Stands in for the claude command: what comes of a turn is decided by the first word of its prompt.
set -f
session= plain=
for option do
    case $option in
        --resume=*) session=${option#*=} ;;
        --print) plain=1 ;;
    esac
done
resumed=$session
IFS= read -r line
if [ ${#line} -gt 1000 ]; then line="a long line of ${#line}"; fi
cd -P . && here=$PWD
cd -P "${0%/*}/.." && root=$PWD
cd "$here"
case $line in
    session:*) session=${line#session:} session=${session%% *} ;;
esac
if [ -z "$session" ]; then
    sum=$(printf %s "${here##*/}" | cksum)
    sum=$((10000000000 + ${sum%% *})) sum=${sum#1}
    session=${sum%??}-${sum#????????}00-4000-8000-000000000000
fi
case $line in
    *[!A-Za-z0-9\ ._:-]*) said="${#line} bytes" ;;
    *) said=$line ;;
esac
usage='{"input_tokens":10,"output_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}'
error() {
    printf '{"type":"result","subtype":"success","is_error":true,"result":"%s","session_id":"%s"}\n' \
        "$1" "$session"
}
number=${line#*:} number=${number%% *}
case $line in
    exit:*) echo "it went wrong" >&2; exit "$number" ;;
    says:*) echo "it says why"; exit "$number" ;;
    mute:*) exit "$number" ;;
    unknown*) echo "No conversation found with session ID: $session" >&2; exit 1 ;;
    api:*) error "API Error: $number {}"; exit 1 ;;
    wrong*) error "Invalid API key"; exit 0 ;;
    empty*) exit 0 ;;
    half*) printf '{"type":"result","result":"ha'; exit 0 ;;
    array*) echo '["result"]'; exit 0 ;;
    text*) echo 'no JSON at all'; exit 0 ;;
    killed*) kill -KILL $$ ;;
    nobody*) printf '{"type":"result","is_error":false,"result":"no session"}\n'; exit 0 ;;
    silent*) printf '{"type":"result","is_error":false,"session_id":"%s"}\n' "$session"; exit 0 ;;
    sleep:*) sleep "$number" ;;
    hang*) exec sleep 30 ;;
    flood*) while [ ${#said} -lt 200000 ]; do said=$said$said; done ;;
    tool*) (command -v setsid >/dev/null && exec setsid sleep 2 || exec sleep 2) >/dev/null 2>&1 & ;;
esac
if [ -n "$plain" ]; then
    echo "told $said in ${here#"$root"/}"
    exit 0
fi
printf '{"type":"result","subtype":"success","is_error":false,"duration_ms":1,"num_turns":1,'
printf '"result":"%s","session_id":"%s","resumed":"%s",' "$said" "$session" "$resumed"
printf '"cwd":"%s","argv":"%s","usage":%s}\n' "${here#"$root"/}" "$#" "$usage"
"""
"""Fast: a shell and no other process, but for `sleep`, and `cksum` where a session begins."""
