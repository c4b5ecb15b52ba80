"""Tables that other tools wrote, in all the ways they have, looked through by `kinset inspect` beside pyarrow.

    python tests/foreign.py target/release/kinset /tmp/work

kinset walks over a file's own description before it trusts it; a file that is merely unusual must pass. Rows, columns, missing
values and truth values must be those that pyarrow finds.
"""

import datetime
import decimal
import json
import subprocess
import sys
from pathlib import Path

import datasets
import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

program, work = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2])
work.mkdir(parents=True, exist_ok=True)
checks = 0


def same(what, found, wanted):
    global checks
    checks += 1
    if found != wanted:
        sys.exit(f"FAILED {what}: {found}, not {wanted}")


def columns(rows=5000):
    """Every kind of column that a page's header or an index has a word for."""
    begin = datetime.datetime(2020, 1, 1)
    return {
        "id": [f"x{i}" for i in range(rows)],
        "flag": [i % 3 == 0 for i in range(rows)],
        "maybe": [None if i % 5 == 0 else i % 2 == 0 for i in range(rows)],
        "embedding": pa.array(np.random.default_rng(1).random((rows, 8), np.float32).tolist(), pa.list_(pa.float32(), 8)),
        "flags": pa.array([[True, False, None][: i % 4] for i in range(rows)], pa.list_(pa.bool_())),
        "map": pa.array([[("a", True), ("b", None)][: i % 3] for i in range(rows)], pa.map_(pa.string(), pa.bool_())),
        # Its extremes stand in every page's header.
        "long": ["z" * 30_000 + str(i) if i % 500 == 0 else "s" for i in range(rows)],
        "when": [begin + datetime.timedelta(seconds=i) for i in range(rows)],
        "price": pa.array([decimal.Decimal(i) / 100 for i in range(rows)], pa.decimal128(20, 2)),
        "kind": pa.array([["u", "v"][i % 2] for i in range(rows)]).dictionary_encode(),
        "nested": [{"a": i, "b": {"c": [i] * (i % 3)}} for i in range(rows)],
    }


def write():
    table = pa.table(columns())
    forms = {
        "plain": {},
        "indexed": {"write_page_index": True},
        "small-pages": {"data_page_size": 500, "write_page_index": True, "row_group_size": 300},
        "second-pages": {"data_page_version": "2.0", "compression": "zstd"},
        "checksums": {"write_page_checksum": True},
        "no-dictionary": {"use_dictionary": False, "compression": "none", "write_page_index": True},
        "sorted": {"sorting_columns": [pq.SortingColumn(0)]},
        "old": {"compression": "gzip", "version": "1.0"},
        "deltas": {"use_dictionary": False, "column_encoding": {"id": "DELTA_BYTE_ARRAY", "when": "DELTA_BINARY_PACKED"}},
        "empty": None,
    }
    for name, form in forms.items():
        pq.write_table(table.slice(0, 0) if form is None else table, work / f"pyarrow-{name}.parquet", **(form or {}))
    table.drop_columns(["map", "nested", "price"]).to_pandas().to_parquet(work / "pandas.parquet")
    # DuckDB writes Bloom filters.
    query = "select range as id, range % 2 = 0 as flag, [range % 3 = 0, true] as flags, map([range % 3], [range % 2 = 0]) as m from range(50000)"
    duckdb.sql(f"copy ({query}) to '{work / 'duckdb.parquet'}' (format parquet, row_group_size 10000)")
    duckdb.sql(f"copy ({query}) to '{work / 'duckdb-v2.parquet'}' (format parquet, parquet_version v2, compression zstd)")
    frame = polars.DataFrame({"id": range(9000), "flag": [i % 2 == 0 for i in range(9000)], "flags": [[True] * (i % 3) for i in range(9000)]})
    frame.write_parquet(work / "polars.parquet", statistics="full", row_group_size=1000)
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"label": [0, 1] * 500, "flags": [[True, False]] * 1000}).to_parquet(work / "datasets.parquet")


write()
for path in sorted(work.glob("*.parquet")):
    ran = subprocess.run([program, "inspect", path, "--json"], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"FAILED {path.name}: exit code {ran.returncode}\n{ran.stderr}")
    [report] = json.loads(ran.stdout)
    found, wanted = report["content"], pq.read_table(path)
    same(f"{path.name}: rows", found["rows"], len(wanted))
    same(f"{path.name}: columns", [column["name"] for column in found["columns"]], wanted.column_names)
    for column in found["columns"]:
        values = wanted[column["name"]]
        same(f"{path.name}: missing values of {column['name']}", column["nulls"], values.null_count)
        if pa.types.is_boolean(values.type) and len(values):
            same(f"{path.name}: {column['name']}", column["values"]["flags"]["yes"], pc.sum(values).as_py())
print(f"{checks} checks of tables that other tools wrote")
