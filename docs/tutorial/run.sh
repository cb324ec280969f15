#!/bin/sh
# Plays the whole tutorial unattended, with the service running, and exits with 1 as soon as anything is off:
#
#     DATABASE_URL=postgres://… docs/tutorial/run.sh SAKILA_DIR
#
# The database must be empty; `psql` must be in PATH, and the programs `crossfade` and `rentals` as well
# (`cargo build --bin crossfade --example rentals`). Takes about two minutes, most of them the soaking of the phases.
set -eu

if [ $# -ne 1 ] || [ -z "${DATABASE_URL:-}" ]; then
    echo 'usage: DATABASE_URL=postgres://… docs/tutorial/run.sh SAKILA_DIR' >&2
    exit 2
fi
tutorial=$(cd "$(dirname "$0")" && pwd)
sakila=$(cd "$1" && pwd)
folder=$(mktemp -d)
shop=
finish() {
    [ -z "$shop" ] || kill "$shop" 2>/dev/null || :
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"
: >shop.log

# Shows a command and runs it; $status is its exit status.
show() {
    # Words with spaces in them are shown as they are typed.
    printf '$'
    for word in "$@"; do
        case $word in
            *' '*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    echo
    status=0
    "$@" 2>&1 || status=$?
    echo
}

# Runs a command that must end with the exit status given first.
ends_with() {
    wanted=$1
    shift
    show "$@"
    if [ "$status" -ne "$wanted" ]; then
        echo "error: exit status $status, not $wanted" >&2
        exit 1
    fi
}
run() { ends_with 0 "$@"; }

# Waits until the next gate is open, and shows it when it is not within a minute.
until_open() {
    crossfade wait rentals --gate-open --timeout 1m >/dev/null 2>&1 ||
        run crossfade wait rentals --gate-open --timeout 0s
}

open_shop() {
    echo "\$ rentals${*:+ $*} &"
    echo
    rentals "$@" >>"$folder/shop.log" 2>&1 &
    shop=$!
    until grep -q "^ *2 s" "$folder/shop.log"; do
        kill -0 "$shop"
        sleep 1
    done
}

# Closes the shop as Ctrl-C does. Its exit status says whether anything was lost.
close_shop() {
    echo '^C'
    kill -INT "$shop"
    status=0
    wait "$shop" || status=$?
    shop=
    cat "$folder/shop.log"
    : >"$folder/shop.log"
    echo
    [ "$status" -eq 0 ] || exit 1
}

run sh "$tutorial/load.sh" "$sakila"
run crossfade new rentals --old env:DATABASE_URL#customer --new env:DATABASE_URL#rental -o rentals.toml
run crossfade check rentals.toml
cp "$tutorial/rentals.toml" rentals.toml
run crossfade check rentals.toml
run crossfade init rentals.toml
open_shop --bug
run crossfade status rentals

run crossfade advance rentals --ramp 5 --reason 'first customers'
run crossfade ramp rentals 100
ends_with 3 crossfade advance rentals
echo '$ crossfade backfill rentals --batch-keys-max 5 --work-percent 5'
crossfade backfill rentals --batch-keys-max 5 --work-percent 5 >"$folder/backfill.log" 2>&1 &
backfill=$!
# Progress is written down once a second.
until crossfade jobs rentals | grep -q ', [1-9][0-9,]* of [0-9,]* keys'; do
    kill -0 "$backfill"
done
kill -KILL "$backfill"
wait "$backfill" 2>/dev/null || :
cat "$folder/backfill.log"
echo Killed
echo
run crossfade jobs rentals
run crossfade tune rentals --batch-keys-max 10000 --work-percent 100
run crossfade backfill rentals
until_open
run crossfade advance rentals

tries=0
while [ "$(crossfade report rentals --limit 1 --json | tr -d ' \n')" = '[]' ]; do
    tries=$((tries + 1))
    [ "$tries" -le 60 ]
    sleep 1
done
sleep 8
ends_with 3 crossfade advance rentals --ramp 10
run crossfade experiments rentals
run crossfade report rentals --limit 2
close_shop

open_shop
run crossfade ramp rentals 50 --reason 'the mended release is out'
until_open
run crossfade experiments rentals
run crossfade advance rentals --ramp 10
run crossfade status rentals
run crossfade ramp rentals 100
until_open
run crossfade rollback rentals --reason 'a rehearsal'
until_open
run crossfade advance rentals
until_open

run crossfade advance rentals
run crossfade rollback rentals --reason 'another rehearsal'
until_open
run crossfade advance rentals
run crossfade verify rentals
until_open
ends_with 2 crossfade advance rentals
run crossfade advance rentals --confirm rentals
ends_with 1 crossfade rollback rentals
run crossfade cleanup rentals
run crossfade advance rentals --confirm rentals
run crossfade history rentals
run crossfade status rentals
close_shop
