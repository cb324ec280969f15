#!/usr/bin/env bash
# The run in README.md: a scan here, the same on a cluster, and on the cluster with an executor killed while it works.
#
#   docs/distributed-scan/run.sh [CUSTOMERS]
#
# Needs in PATH: `crossfade`, built with `--features distributed`; stock `ballista-scheduler` and `ballista-executor` 55; python3.
set -euo pipefail
customers=${1:-300000}
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
export DATABASE_URL="sqlite://$work/app.db"

python3 - "$customers" <<'PYTHON'
import sqlite3, sys
count = int(sys.argv[1])
db = sqlite3.connect('app.db')
db.executescript(f"""
pragma journal_mode = wal;
create table customers (id bigint primary key, email text, phone text);
create table contacts (customer_id bigint not null, kind text not null, value text not null,
                       primary key (customer_id, kind));
insert into customers
with recursive n (id) as (select 1 union all select id + 1 from n where id < {count})
select id, 'c' || id || '@example.org', '+' || (1000000 + id) from n;
insert into contacts
select id, 'email', case when id % 2003 = 0 then 'wrong' else email end from customers where id % 101 > 0
union all select id, 'phone', phone from customers
union all select -id, 'phone', '+0' from customers where id % 9973 = 0;
""")
PYTHON
cat > contacts.toml <<'TOML'
name = "contacts"

[old]
url = "env:DATABASE_URL"
table = "customers"
key = ["id"]

[new]
url = "env:DATABASE_URL"
table = "contacts"
scope = ["customer_id"]
key = ["customer_id", "kind"]

[mapping]
projection = '''
select id as customer_id, 'email' as kind, email as value from customers where email is not null and id in (:keys)
union all
select id, 'phone', phone from customers where phone is not null and id in (:keys)'''
TOML

show() {
    echo "\$ $*"
    # Differences are what is looked for: 4 is a good end here.
    "$@" 2>&1 || [ $? -eq 4 ]
}
start_executor() {
    local number=$1 port=$2
    mkdir "executor-$number"
    ballista-executor --scheduler-port 50050 --bind-host 127.0.0.1 --external-host 127.0.0.1 --bind-port "$port" \
        --bind-grpc-port $((port + 1)) --bind-health-port $((port + 2)) --executor-heartbeat-interval-seconds 2 \
        --vcores 2 --work-dir "executor-$number" >"executor-$number.log" 2>&1 &
    until grep -q 'registration succeed' "executor-$number.log"; do sleep 0.1; done
}

crossfade init contacts.toml >/dev/null
crossfade advance contacts >/dev/null 2>&1
show crossfade snapshot contacts --out monday
ballista-scheduler --bind-host 127.0.0.1 --bind-port 50050 --executor-timeout-seconds 10 >scheduler.log 2>&1 &
until grep -q 'listening on' scheduler.log; do sleep 0.1; done
start_executor 1 50051
start_executor 2 50061
victim=$!

show crossfade scan contacts --snapshot monday --out local
show crossfade scan contacts --snapshot monday --out cluster --engine df://127.0.0.1:50050
show diff -r local cluster
before=$(wc -l <executor-2.log)
echo '$ crossfade scan contacts --snapshot monday --out killed --engine df://127.0.0.1:50050 &'
crossfade scan contacts --snapshot monday --out killed --engine df://127.0.0.1:50050 >scan.log 2>&1 &
scan=$!
# It has finished a task, whose output is lost with it, and begun another.
until tail -n "+$((before + 1))" executor-2.log | grep -q 'Finished task'; do sleep 0.02; done
echo '$ kill -9 $SECOND_EXECUTOR'
kill -9 "$victim"
# Its end is the shell's business, and not to be read here.
wait "$victim" 2>/dev/null || true
echo '$ tail executor-2.log'
tail -n "+$((before + 1))" executor-2.log | grep -oE '(Execute|Finished) task.*' | cut -c1-110
echo '$ wait'
wait "$scan" || [ $? -eq 4 ]
cat scan.log
echo "\$ grep -E 'Removing executor|lost|finished' scheduler.log"
grep -oE '(Removing executor|.*[Ll]ost|Job finished).*' scheduler.log | cut -c1-160 | tail -5
show diff -r local killed
echo '$ ls killed'
ls killed
