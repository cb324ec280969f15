#!/usr/bin/env python3
"""Writes the dumps beside this file: the same two tables by every writer of Parquet that can be had from PyPI.

    pip install duckdb pyarrow polars fastparquet pandas pyspark     # and Java for Spark
    ./write.py                                                       # all of them, or those that are named

Each folder WRITER/old and WRITER/new holds the same rows, as that writer and its settings write them; `old` and `new` differ
as DIFFERENCES says, in every writer's. Which columns a writer has depends on its types.
"""

import datetime
import decimal
import json
import pathlib
import shutil
import sys
import uuid

HERE = pathlib.Path(__file__).parent
ROWS = 60
MISSING = {7, 33}  # not in new
ORPHANED = 1000  # in new alone
# What is another value in new, by row.
DIFFERENCES = {
    3: ["name"],
    11: ["amount", "price"],
    12: ["note"],
    20: ["day", "at", "moment"],
    21: ["tags"],
    22: ["address"],
    23: ["props"],
    40: ["flag", "small"],
    41: ["ident", "payload", "big", "wide"],
    59: ["doc"],
}


def row(number):
    at = datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=number, microseconds=1_000 * number)
    return {
        "id": number,
        "small": number % 7 - 3,
        "amount": decimal.Decimal(number * 1234567 - 5_000_000) / 100,
        "wide": decimal.Decimal(number * 10**18 + 1) / 10**4,
        "price": number / 3,
        "ratio": number / 4,
        "name": ["basic", "pro", "enterprise", "ünïcode"][number % 4],
        "note": f"note {number}" if number % 10 == 2 else None,
        "day": at.date(),
        "at": at,
        "moment": at.replace(tzinfo=datetime.timezone.utc),
        "flag": None if number % 9 == 0 else number % 2 == 0,
        "big": 2**31 + number,
        "ident": uuid.UUID(int=number * 7**40 % 2**128).bytes,
        "payload": bytes([number, 0, 255 - number]),
        "doc": json.dumps({"n": number, "a": [number, None]}),
        "tags": None if number % 8 == 7 else ["a", None, f"t{number}"][: number % 4],
        "address": None if number % 6 == 5 else {"city": f"c{number % 5}", "zip": number * 10},
        "props": {"k": number, "l": -number} if number % 3 else {},
    }


def changed(row, columns):
    other = {
        "name": "wrong",
        "amount": decimal.Decimal("0.01"),
        "wide": decimal.Decimal("-3.0001"),
        "price": -1.5,
        "note": None,
        "day": datetime.date(1969, 12, 31),
        "at": datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000),
        "moment": datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=datetime.timezone.utc),
        "flag": row["flag"] is not True,
        "small": 99,
        "big": 2**32 - 1,
        "ident": b"\xff" * 16,
        "payload": b"",
        "doc": '{"n": null}',
        "tags": ["a", "b", "c", "d"],
        "address": {"city": None, "zip": 1},
        "props": {"k": 23},
    }
    return row | {column: other[column] for column in columns}


def tables():
    old = [row(number) for number in range(ROWS)]
    new = [changed(row, DIFFERENCES.get(row["id"], [])) for row in old if row["id"] not in MISSING]
    new.append(row(ROWS + 1) | {"id": ORPHANED})
    return {"old": old, "new": new}


ALL = list(row(1))


def arrow_schema(columns, **types):
    import pyarrow as pa

    known = {
        "id": pa.int64(),
        "small": pa.int32(),
        "amount": pa.decimal128(12, 2),
        "wide": pa.decimal128(30, 4),
        "price": pa.float64(),
        "ratio": pa.float32(),
        "name": pa.string(),
        "note": pa.string(),
        "day": pa.date32(),
        "at": pa.timestamp("us"),
        "moment": pa.timestamp("us", tz="UTC"),
        "flag": pa.bool_(),
        "big": pa.uint32(),
        "ident": pa.binary(16),
        "payload": pa.binary(),
        "doc": pa.string(),
        "tags": pa.list_(pa.string()),
        "address": pa.struct([("city", pa.string()), ("zip", pa.int32())]),
        "props": pa.map_(pa.string(), pa.int32()),
    }
    return pa.schema([(name, types.get(name, known[name])) for name in columns])


def arrow_table(rows, columns=ALL, **types):
    import pyarrow as pa

    schema = arrow_schema(columns, **types)
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if pa.types.is_map(field.type):
            values = [list(value.items()) for value in values]
        arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=schema)


def pyarrow(rows, folder, columns=ALL, types=None, **settings):
    import pyarrow.parquet as pq

    table = arrow_table(rows, columns, **(types or {}))
    pq.write_table(table, folder / "data.parquet", row_group_size=25, store_schema=False, **settings)


def pyarrow_snappy(rows, folder):
    pyarrow(rows, folder, compression="snappy", data_page_version="1.0", version="1.0", columns=[c for c in ALL if c != "big"])


def pyarrow_delta(rows, folder):
    encodings = {
        "id": "DELTA_BINARY_PACKED",
        "small": "DELTA_BINARY_PACKED",
        "big": "DELTA_BINARY_PACKED",
        "day": "DELTA_BINARY_PACKED",
        "at": "DELTA_BINARY_PACKED",
        "price": "BYTE_STREAM_SPLIT",
        "ratio": "BYTE_STREAM_SPLIT",
        "name": "DELTA_BYTE_ARRAY",
        "note": "DELTA_LENGTH_BYTE_ARRAY",
        "doc": "DELTA_BYTE_ARRAY",
        "ident": "BYTE_STREAM_SPLIT",
        "flag": "RLE",
    }
    pyarrow(
        rows, folder, compression="zstd", data_page_version="2.0", use_dictionary=False, column_encoding=encodings,
        write_statistics=False,
    )


def pyarrow_gzip(rows, folder):
    import pyarrow as pa

    # The same values in other widths and units.
    types = {
        "small": pa.int64(), "amount": pa.decimal128(18, 4), "at": pa.timestamp("ms"), "moment": pa.timestamp("ns", tz="UTC"),
        "name": pa.large_string(), "tags": pa.large_list(pa.string()), "big": pa.int64(), "ratio": pa.float64(),
        "day": pa.date64(),
    }
    pyarrow(rows, folder, types=types, compression="gzip")


def pyarrow_brotli(rows, folder):
    pyarrow(rows, folder, compression="brotli", store_decimal_as_integer=True)


def pyarrow_lz4(rows, folder):
    pyarrow(rows, folder, compression="lz4")


def pyarrow_int96(rows, folder):
    pyarrow(rows, folder, compression="none", use_deprecated_int96_timestamps=True)


def duckdb(rows, folder, select, settings):
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'UTC'")
    connection.register("given", arrow_table(rows))
    connection.execute(f"copy ({select}) to '{folder / 'data.parquet'}' (format parquet, {settings})")


def duckdb_default(rows, folder):
    # JSON and UUID are types of DuckDB's own.
    select = "select * replace (doc::json as doc, hex(ident)::uuid as ident) from given"
    duckdb(rows, folder, select, "compression snappy")


def duckdb_v2(rows, folder):
    # In no order.
    select = "select * replace (amount::decimal(38, 2) as amount) from given order by hash(id)"
    duckdb(rows, folder, select, "compression zstd, parquet_version v2")


def polars(rows, folder):
    import polars

    # It knows no maps.
    table = polars.from_arrow(arrow_table(rows, [column for column in ALL if column != "props"]))
    table.write_parquet(folder / "data.parquet", compression="zstd", row_group_size=20)


def fastparquet(rows, folder):
    import fastparquet
    import pandas

    columns = ["id", "small", "price", "name", "note", "at", "moment", "flag", "payload", "doc"]
    frame = pandas.DataFrame({column: [row[column] for row in rows] for column in columns})
    frame["small"] = frame["small"].astype("int32")
    frame["flag"] = frame["flag"].astype("boolean")
    for column in ["name", "note", "doc"]:
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None)
    encodings = {"name": "utf8", "note": "utf8", "doc": "utf8", "payload": "bytes"}
    # A folder of files in groups of rows, with `_metadata` beside them.
    fastparquet.write(
        str(folder), frame, file_scheme="hive", row_group_offsets=[0, 30], compression="SNAPPY", object_encoding=encodings,
        write_index=False,
    )


SPARK_COLUMNS = [column for column in ALL if column not in ["big", "ident"]]


def spark(rows, folder, settings, files):
    from pyspark.sql import SparkSession, types as t

    session = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = session.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    for name, value in settings.items():
        if name.startswith("spark."):
            session.conf.set(name, value)
    known = {
        "id": t.LongType(), "small": t.IntegerType(), "amount": t.DecimalType(12, 2), "wide": t.DecimalType(30, 4),
        "price": t.DoubleType(), "ratio": t.FloatType(), "name": t.StringType(), "note": t.StringType(),
        "day": t.DateType(), "at": t.TimestampNTZType(), "moment": t.TimestampType(), "flag": t.BooleanType(),
        "payload": t.BinaryType(), "doc": t.StringType(), "tags": t.ArrayType(t.StringType()),
        "address": t.StructType([t.StructField("city", t.StringType()), t.StructField("zip", t.IntegerType())]),
        "props": t.MapType(t.StringType(), t.IntegerType()),
    }
    schema = t.StructType([t.StructField(column, known[column]) for column in SPARK_COLUMNS])
    data = [tuple(row[column] for column in SPARK_COLUMNS) for row in rows]
    frame = session.createDataFrame(data, schema).coalesce(1)
    frame = frame.repartition(files, "id") if files > 1 else frame
    writer = frame.write.mode("overwrite")
    for name, value in settings.items():
        if not name.startswith("spark."):
            writer = writer.option(name, value)
    writer.parquet(str(folder))


def spark_default(rows, folder):
    settings = {"spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS", "compression": "snappy"}
    spark(rows, folder, settings, files=3)


def spark_v2(rows, folder):
    settings = {
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS", "compression": "gzip",
        "parquet.writer.version": "PARQUET_2_0",
    }
    spark(rows, folder, settings, files=1)


def spark_legacy(rows, folder):
    settings = {
        "spark.sql.parquet.outputTimestampType": "INT96", "spark.sql.parquet.writeLegacyFormat": "true",
        "compression": "uncompressed",
    }
    spark(rows, folder, settings, files=1)


WRITERS = [
    pyarrow_snappy, pyarrow_delta, pyarrow_gzip, pyarrow_brotli, pyarrow_lz4, pyarrow_int96, duckdb_default, duckdb_v2, polars,
    fastparquet, spark_default, spark_v2, spark_legacy,
]


def encrypted(folder):
    """Two files with a key that is nobody's any more: one whose footer is encrypted, and one with a footer in the open."""
    import base64

    import pyarrow.parquet as pq
    import pyarrow.parquet.encryption as pe

    class Kms(pe.KmsClient):
        def __init__(self, _):
            pe.KmsClient.__init__(self)

        def wrap_key(self, key, _):
            return base64.b64encode(key)

        def unwrap_key(self, key, _):
            return base64.b64decode(key)

    factory = pe.CryptoFactory(lambda config: Kms(config))
    for name, plaintext in [("footer", False), ("columns", True)]:
        config = pe.EncryptionConfiguration(
            footer_key="footer", column_keys={"values": ["name"]}, plaintext_footer=plaintext,
        )
        properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
        table = arrow_table(tables()["old"], ["id", "name"])
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)


def nothing(folder):
    """A whole file without a row group."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / "data.parquet", arrow_schema(ALL)):
        pass


def main(names):
    for writer in WRITERS:
        if names and writer.__name__ not in names:
            continue
        for side, rows in tables().items():
            folder = HERE / writer.__name__ / side
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            writer(rows, folder)
            # Checksums beside the files are of no use to anybody here.
            for checksum in folder.glob(".*.crc"):
                checksum.unlink()
    if not names or "encrypted" in names:
        encrypted(HERE / "encrypted")
    if not names or "nothing" in names:
        nothing(HERE / "nothing")


if __name__ == "__main__":
    main(sys.argv[1:])
