"""Times the scan and DuckDB in turns, each in a process of its own, and prints a table in Markdown.

Wall time is measured inside each process, from opening the files to the last result: neither start-up nor imports count.
The files are in the system's cache for both. DuckDB only counts what it finds, while the scan also says which columns
differ and writes its findings.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

COLUMNS = ["customer_id", "plan", "status", "quantity", "amount", "created_at", "updated_at", "metadata"]
THREADS = 2

# A full difference over all columns in every formulation that is known to run well. The best one counts.
FORMULATIONS = {
    "full join, all columns": """
        select count(*) filter (n.id is null), count(*) filter (o.id is not null and n.id is not null),
               count(*) filter (o.id is null)
        from {old} o full join {new} n on o.id = n.id
        where o.id is null or n.id is null or {differs}""",
    "full join, hash of all columns": """
        select count(*) filter (n.id is null), count(*) filter (o.id is not null and n.id is not null),
               count(*) filter (o.id is null)
        from (select id, hash({columns}) as h from {old}) o full join (select id, hash({columns}) as h from {new}) n
          on o.id = n.id
        where o.id is null or n.id is null or o.h <> n.h""",
    "union all, group by key, hash of all columns": """
        select count(*) filter (sides = 1), count(*) filter (sides = 3), count(*) filter (sides = 2)
        from (select id, bit_or(side) as sides
              from (select id, 1 as side, hash({columns}) as h from {old}
                    union all select id, 2, hash({columns}) from {new})
              group by id having bit_or(side) <> 3 or min(h) <> max(h))""",
}

# Not a peer, because DuckDB does not come with it: what our hash column is worth to others.
WITH_OUR_HASH = {
    "full join, our hash column": """
        select count(*) filter (n.id is null), count(*) filter (o.id is not null and n.id is not null),
               count(*) filter (o.id is null)
        from {old} o full join {new} n on o.id = n.id
        where o.id is null or n.id is null or o.__crossfade_row_hash <> n.__crossfade_row_hash""",
    "keys only (missing)": """
        select count(*), -1, -1 from {old} o anti join {new} n on o.id = n.id""",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--query", help=argparse.SUPPRESS)
    parser.add_argument("--files", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.query:
        print(json.dumps(run_duckdb(arguments.query, arguments.files)))
    else:
        compare(arguments)


def compare(arguments):
    pair = arguments.folder / f"pair-{arguments.rows}"
    plain = arguments.folder / f"plain-{arguments.rows}"
    prepare(arguments, pair, plain)
    layouts = {
        "our files": {side: str(pair / side / "*.parquet") for side in ("old", "new")},
        "its own files": {side: str(plain / f"{side}.parquet") for side in ("old", "new")},
    }
    contenders = {"crossfade scan": lambda: run([arguments.program, "scan", pair, arguments.folder / "findings"])}
    for layout, files in layouts.items():
        queries = FORMULATIONS | (WITH_OUR_HASH if layout == "our files" else {})
        for name, query in queries.items():
            contenders[f"DuckDB, {name}, {layout}"] = peer(arguments, query, files)

    results = {name: [] for name in contenders}
    # In turns, so that whatever else the machine does hits all alike.
    for round_number in range(arguments.rounds):
        for name, contender in contenders.items():
            results[name].append(contender())
            print(f"round {round_number + 1}: {name}: {results[name][-1]['seconds']:.3f} s", file=sys.stderr)
    report(arguments.rows, results)


def prepare(arguments, pair, plain):
    if not (pair / "new" / "snapshot.json").exists():
        shutil.rmtree(pair, ignore_errors=True)
        subprocess.run([arguments.program, "generate", pair, "--rows", str(arguments.rows)], check=True)
    if not (plain / "done").exists():
        import duckdb

        plain.mkdir(parents=True, exist_ok=True)
        for side in ("old", "new"):
            duckdb.sql(
                f"copy (select id, {', '.join(COLUMNS)} from '{pair / side / '*.parquet'}') "
                f"to '{plain / side}.parquet' (compression zstd, row_group_size 122880)"
            )
        (plain / "done").touch()


def peer(arguments, query, files):
    command = [sys.executable, __file__, arguments.program, "--folder", arguments.folder]
    return lambda: run([*command, "--query", query, "--files", json.dumps(files)])


def run(command):
    return json.loads(subprocess.run([str(part) for part in command], check=True, capture_output=True).stdout)


def run_duckdb(query, files):
    import time

    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {THREADS}")
    connection.execute("set preserve_insertion_order = false")
    text = query.format(
        columns=", ".join(COLUMNS),
        differs=" or ".join(f"o.{column} is distinct from n.{column}" for column in COLUMNS),
        **{side: f"read_parquet('{path}')" for side, path in json.loads(files).items()},
    )
    start, cpu_start = time.perf_counter(), time.process_time()
    missing, mismatched, orphaned = connection.execute(text).fetchone()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    figures = {"missing": missing, "mismatched": mismatched, "orphaned": orphaned}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_bytes_max": memory_bytes_max(), **figures}


def memory_bytes_max():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not count memory")


def report(rows, results):
    scan = results["crossfade scan"]
    for name, rounds in results.items():
        for figures in rounds:
            for kind in ("missing", "mismatched", "orphaned"):
                if figures[kind] not in (-1, scan[0][kind]):
                    sys.exit(f"{name} found {figures[kind]} {kind}, the scan {scan[0][kind]}")

    best = {name: min(figures["seconds"] for figures in rounds) for name, rounds in results.items()}
    peers = [name for name in best if any(name.startswith(f"DuckDB, {full},") for full in FORMULATIONS)]
    reference = min(peers, key=best.get)
    print(f"{rows:,} rows a side, {THREADS} threads, best of {len(scan)} rounds:")
    print(f"{scan[0]['missing']:,} missing, {scan[0]['mismatched']:,} mismatched, {scan[0]['orphaned']:,} orphaned.\n")
    print("| | best, s | median, s | processor, s | peak memory, MiB | of DuckDB's best | by processor |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in results.items():
        seconds = sorted(figures["seconds"] for figures in rounds)
        memory = max(figures["memory_bytes_max"] for figures in rounds) / 2**20
        cpu = processor(rounds)
        ratios = f"{best[name] / best[reference]:.3f} | {cpu / processor(results[reference]):.3f}"
        mark = " (the reference)" if name == reference else ""
        median = seconds[len(seconds) // 2]
        print(f"| {name}{mark} | {seconds[0]:.3f} | {median:.3f} | {cpu:.2f} | {memory:.0f} | {ratios} |")


def processor(rounds):
    return min(figures["cpu_seconds"] for figures in rounds)


main()
