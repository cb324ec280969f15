"""Times the scan and its peers in turns, each in a process of its own, and prints a table in Markdown for each case.

Wall time is measured inside each process, from opening the files to the last result: neither start-up nor imports count.
The files are in the system's cache for all. Peers only count what they find, while the scan also says which columns differ
and writes its findings down.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

COLUMNS = ["customer_id", "plan", "status", "quantity", "amount", "created_at", "updated_at", "metadata"]
THREADS = 2
# A peer that takes longer than this in one round is given up on, and said so.
SECONDS_MAX = 60

# What pyarrow writes: rows of a row group, and in which order.
PYARROW = {
    "pyarrow": (122_880, ""),
    "pyarrow-large": (2**20, ""),
    "pyarrow-shuffled": (122_880, "order by hash(id)"),
}

# What any comparison has to do that reads these files, and how many times as long the full difference in key order may take.
PAGES = "decompressing the same pages"
PAGES_BAR = 1.3

COUNTS = """select count(*) filter (where n.id is null), count(*) filter (where o.id is not null and n.id is not null),
       count(*) filter (where o.id is null)"""

# A full difference over all columns in every formulation that is known to run well. The best one counts.
DUCKDB_FULL = {
    "full join, all columns": """{counts}
        from {old} o full join {new} n on o.id = n.id
        where o.id is null or n.id is null or {differs}""",
    "full join, hash of all columns": """{counts}
        from (select id, hash({columns}) as h from {old}) o full join (select id, hash({columns}) as h from {new}) n
          on o.id = n.id
        where o.id is null or n.id is null or o.h <> n.h""",
    "union all, group by key, hash of all columns": """
        select count(*) filter (where sides = 1), count(*) filter (where sides = 3), count(*) filter (where sides = 2)
        from (select id, bit_or(side) as sides
              from (select id, 1 as side, hash({columns}) as h from {old}
                    union all select id, 2, hash({columns}) from {new})
              group by id having bit_or(side) <> 3 or min(h) <> max(h))""",
}
DUCKDB_KEYS = {
    "anti join": "select count(*), -1, -1 from {old} o anti join {new} n on o.id = n.id",
    "not in": "select count(*), -1, -1 from {old} o where o.id not in (select id from {new} where id is not null)",
    "except": "select count(*), -1, -1 from (select id from {old} except all select id from {new})",
}
# Not a peer, because DuckDB does not come with it: what our hash column is worth to others.
DUCKDB_HASH = {
    "full join, our hash column": """{counts}
        from {old} o full join {new} n on o.id = n.id
        where o.id is null or n.id is null or o.__crossfade_row_hash <> n.__crossfade_row_hash""",
}
DATAFUSION_FULL = {
    "full join, all columns": """{counts}
        from {old} o full join {new} n on o.id = n.id
        where o.id is null or n.id is null or {differs}""",
}
# Of two expressions it asks that they have names of their own.
DATAFUSION_KEYS = {
    "anti join": "select count(*), -1 as mismatched, -1 as orphaned from {old} o left anti join {new} n on o.id = n.id"
}


class Case:
    def __init__(self, title, bar, files, keys_only=False, ours="dumps", shown=None, pages_bar=None, against=None):
        self.title, self.bar, self.files, self.keys_only = title, bar, files, keys_only
        # How the scan is run, and further queries that are only shown.
        self.ours, self.shown, self.pages_bar = ours, shown or {}, pages_bar
        # What the bar is a share of, where that is not DuckDB's best.
        self.against = against


CASES = {
    "keys-ordered": Case("Missing keys only, both ordered", 0.16, ("plain/old", "plain/new"), keys_only=True),
    "full-ordered": Case(
        "Full difference over all columns, both ordered, foreign files without hash",
        0.48,
        ("plain/old", "plain/new"),
        pages_bar=PAGES_BAR,
    ),
    "snapshots": Case(
        "Full difference of our own snapshots",
        0.10,
        ("pair/old", "pair/new"),
        ours="scan",
        shown=DUCKDB_HASH,
        against="DuckDB, full join, all columns",
    ),
    "keys-unordered": Case("Missing keys, one side unordered, dense keys", 0.30, ("plain/old", "shuffled/new"), keys_only=True),
    "keys-sparse": Case("Missing keys, one side unordered, by hash", 0.65, ("sparse/old", "sparse/new"), keys_only=True),
    "full-unordered": Case("Full difference, one side unordered", 0.58, ("plain/old", "shuffled/new")),
    # The same as another writer writes them: with levels and dictionaries, in pages of a megabyte.
    "keys-ordered-pyarrow": Case(
        "Missing keys only, both ordered, written by pyarrow", 0.16, ("pyarrow/old", "pyarrow/new"), keys_only=True
    ),
    "full-ordered-pyarrow": Case(
        "Full difference over all columns, both ordered, written by pyarrow",
        0.48,
        ("pyarrow/old", "pyarrow/new"),
        pages_bar=PAGES_BAR,
    ),
    "full-ordered-large": Case(
        "Full difference over all columns, both ordered, written by pyarrow in row groups of 1,048,576 rows",
        0.48,
        ("pyarrow-large/old", "pyarrow-large/new"),
        pages_bar=PAGES_BAR,
    ),
    "full-unordered-pyarrow": Case(
        "Full difference, one side unordered, written by pyarrow", 0.58, ("pyarrow/old", "pyarrow-shuffled/new")
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--case", action="append", choices=CASES, help="only these cases")
    parser.add_argument("--peers", default="duckdb,polars,datafusion", help="only these peers")
    parser.add_argument("--prepare", action="store_true", help="only write the files")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(**json.loads(arguments.worker))))
        return
    prepare(arguments)
    if not arguments.prepare:
        for name in arguments.case or CASES:
            compare(arguments, CASES[name])


# What is compared.


def path(arguments, name):
    layout, side = name.split("/")
    folder = arguments.folder / f"{layout}-{arguments.rows}"
    return str(folder / side / "*.parquet") if layout == "pair" else str(folder / f"{side}.parquet")


def prepare(arguments):
    import duckdb

    needed = {file.split("/")[0] for name in arguments.case or CASES for file in CASES[name].files}
    pair = arguments.folder / f"pair-{arguments.rows}"
    if not (pair / "new" / "snapshot.json").exists():
        shutil.rmtree(pair, ignore_errors=True)
        subprocess.run([arguments.program, "generate", pair, "--rows", str(arguments.rows)], check=True)
    rows = f"id, {', '.join(COLUMNS)}"
    for layout in needed & PYARROW.keys():
        prepare_pyarrow(arguments, layout)
    # Keys that lie far apart; alone, because nothing else is read.
    writings = [
        ("plain", "old", rows, ""),
        ("plain", "new", rows, ""),
        ("shuffled", "new", rows, "order by hash(id)"),
        ("sparse", "old", "id * 1000003 as id", ""),
        ("sparse", "new", "id * 1000003 as id", "order by hash(id)"),
    ]
    for layout, side, columns, order in writings:
        target = pathlib.Path(path(arguments, f"{layout}/{side}"))
        if layout not in needed or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect()
        connection.execute(f"set threads = {THREADS}; set memory_limit = '8GB'")
        connection.execute(f"set temp_directory = '{arguments.folder}/duckdb.tmp'")
        source = path(arguments, f"pair/{side}")
        connection.execute(
            f"copy (select {columns} from '{source}' {order}) to '{target}.tmp' "
            "(format parquet, compression zstd, row_group_size 122880)"
        )
        os.rename(f"{target}.tmp", target)
    shutil.rmtree(arguments.folder / "duckdb.tmp", ignore_errors=True)


def prepare_pyarrow(arguments, layout):
    """Writes the rows as pyarrow does unless told otherwise, but for zstd."""
    import duckdb
    import pyarrow.parquet

    row_group_rows, order = PYARROW[layout]
    for side in ("new",) if order else ("old", "new"):
        target = pathlib.Path(path(arguments, f"{layout}/{side}"))
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source = path(arguments, f"pair/{side}")
        rows = duckdb.sql(f"select id, {', '.join(COLUMNS)} from '{source}' {order}").to_arrow_table()
        pyarrow.parquet.write_table(rows, f"{target}.tmp", compression="zstd", row_group_size=row_group_rows)
        os.rename(f"{target}.tmp", target)


# Who compares.


def contenders(arguments, case):
    old, new = (path(arguments, name) for name in case.files)
    findings = arguments.folder / "findings"
    if case.ours == "scan":
        yield "crossfade", [arguments.program, "scan", arguments.folder / f"pair-{arguments.rows}", findings]
    else:
        yield "crossfade", [arguments.program, "dumps", old, new, findings] + ["--keys-only"] * case.keys_only
        yield PAGES, [arguments.program, "pages", old, new] + ["--column", "id"] * case.keys_only
    peers = arguments.peers.split(",")

    def worker(tool, query):
        task = json.dumps({"tool": tool, "query": query, "old": old, "new": new, "keys_only": case.keys_only})
        return [sys.executable, __file__, arguments.program, "--folder", arguments.folder, "--worker", task]

    if "duckdb" in peers:
        for name, query in ((DUCKDB_KEYS if case.keys_only else DUCKDB_FULL) | case.shown).items():
            yield f"DuckDB, {name}", worker("duckdb", query)
    if "polars" in peers:
        yield "Polars", worker("polars", "")
    if "datafusion" in peers:
        for name, query in (DATAFUSION_KEYS if case.keys_only else DATAFUSION_FULL).items():
            yield f"DataFusion, {name}", worker("datafusion", query)


def work(tool, query, old, new, keys_only):
    run = {"duckdb": duckdb, "polars": polars, "datafusion": datafusion}[tool]
    timed = run(query, old, new, keys_only)
    start, cpu_start = time.perf_counter(), time.process_time()
    missing, mismatched, orphaned = timed()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    figures = {"missing": missing, "mismatched": mismatched, "orphaned": orphaned}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_bytes_max": memory_bytes_max(), **figures}


def formatted(query, **files):
    differs = " or ".join(f"(o.{column} is distinct from n.{column})" for column in COLUMNS)
    return query.format(counts=COUNTS, columns=", ".join(COLUMNS), differs=differs, **files)


def duckdb(query, old, new, _keys_only):
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {THREADS}")
    connection.execute("set preserve_insertion_order = false")
    text = formatted(query, old=f"read_parquet('{old}')", new=f"read_parquet('{new}')")
    return lambda: connection.execute(text).fetchone()


def datafusion(query, old, new, _keys_only):
    import datafusion

    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(THREADS))

    def run():
        # A pattern is a folder to it.
        for name, place in (("old_rows", old), ("new_rows", new)):
            context.register_parquet(name, place.removesuffix("*.parquet"))
        row = context.sql(formatted(query, old="old_rows", new="new_rows")).to_pylist()[0]
        return tuple(row.values())

    return run


def polars(_query, old, new, keys_only):
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    import polars as pl

    def keys():
        left, right = (pl.scan_parquet(place).select("id") for place in (old, new))
        return left.join(right, on="id", how="anti").select(pl.len()).collect(engine="streaming").item(), -1, -1

    def full():
        columns = ["id", *COLUMNS]
        left, right = (pl.scan_parquet(place).select(columns) for place in (old, new))
        joined = left.join(right, on="id", how="full", suffix="_new")
        differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in COLUMNS)
        missing, orphaned = pl.col("id_new").is_null(), pl.col("id").is_null()
        counts = joined.select(
            missing.sum().alias("missing"),
            (~missing & ~orphaned & differs).sum().alias("mismatched"),
            orphaned.sum().alias("orphaned"),
        )
        return counts.collect(engine="streaming").row(0)

    return keys if keys_only else full


def memory_bytes_max():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not count memory")


# What comes of it.


def compare(arguments, case):
    commands = dict(contenders(arguments, case))
    results = {name: [] for name in commands}
    failed = {}
    # In turns, so that whatever else the machine does hits all alike.
    for number in range(arguments.rounds):
        for name, command in commands.items():
            if name in failed:
                continue
            try:
                results[name].append(run(command))
                print(f"{case.title}, round {number + 1}: {name}: {results[name][-1]['seconds']:.3f} s", file=sys.stderr)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                if name == "crossfade":
                    raise
                timed_out = isinstance(error, subprocess.TimeoutExpired)
                failed[name] = f"more than {SECONDS_MAX} s" if timed_out else "failed (out of memory?)"
    report(arguments, case, results, failed)


def run(command):
    parts = [str(part) for part in command]
    done = subprocess.run(parts, check=True, capture_output=True, timeout=SECONDS_MAX)
    return json.loads(done.stdout)


def report(arguments, case, results, failed):
    scan = results["crossfade"][0]
    for name, rounds in results.items():
        for figures in rounds:
            for kind in ("missing", "mismatched", "orphaned"):
                if figures.get(kind, -1) not in (-1, scan[kind]):
                    sys.exit(f"{name} found {figures[kind]} {kind}, the scan {scan[kind]}")

    best = {name: min(figures["seconds"] for figures in rounds) for name, rounds in results.items() if rounds}
    peers = [name for name in best if name.startswith("DuckDB, ") and name.removeprefix("DuckDB, ") not in case.shown]
    reference = min(peers, key=best.get) if peers else "crossfade"
    of = "DuckDB's best"
    if case.against in best:
        reference, of = case.against, "DuckDB's on all columns"
    ratio = best["crossfade"] / best[reference]
    verdict = "met" if ratio <= case.bar else "missed"
    print(f"\n### {case.title}\n")
    print(f"{arguments.rows:,} rows a side, {THREADS} threads, best of {arguments.rounds} rounds. ", end="")
    print(f"{scan['missing']:,} missing, {scan['mismatched']:,} mismatched, {scan['orphaned']:,} orphaned. ", end="")
    print(f"**{ratio:.3f}** of {of}; the bar is {case.bar}: {verdict}.\n")
    if PAGES in best:
        bar = f"; the bar is {case.pages_bar}" if case.pages_bar else ""
        print(f"{best['crossfade'] / best[PAGES]:.2f} times as long as {PAGES} takes{bar}.\n")
    print(f"| | best, s | median, s | processor, s | peak memory, MiB | of {of} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in results.items():
        if name in failed:
            print(f"| {name} | {failed[name]} | | | | |")
            continue
        seconds = sorted(figures["seconds"] for figures in rounds)
        memory = max(figures["memory_bytes_max"] for figures in rounds) / 2**20
        cpu = min(figures["cpu_seconds"] for figures in rounds)
        mark = " (the reference)" if name == reference else ""
        median = seconds[len(seconds) // 2]
        print(
            f"| {name}{mark} | {seconds[0]:.3f} | {median:.3f} | {cpu:.2f} | {memory:.0f} | {best[name] / best[reference]:.3f} |"
        )


main()
