"""Opens one artifact of each kind with the tools our users live with, and checks what each of them sees.

    KINSET_INTEROP_DIR=/tmp/interop cargo test --release --lib one_of_each_kind
    python tests/interop.py /tmp/interop

Checked with pyarrow 26.0, pandas 3.1, DuckDB 2.0, Polars 2.1, Pillow 12.
"""

import io
import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

folder = Path(sys.argv[1])
TABLES = ["images", "features", "neighbors", "labels", "assignments", "groups", "curve"]
checks = 0


def file(name):
    return str(folder / f"{name}.parquet")


def check(what, found, wanted=True):
    global checks
    checks += 1
    if found != wanted:
        sys.exit(f"FAILED {what}\n  found  {found!r}\n  wanted {wanted!r}")
    print(f"  ok  {what}: {str(found)[:90]}")


def types(name):
    return {row[0]: row[1] for row in duckdb.sql(f"describe select * from '{file(name)}'").fetchall()}


print("pyarrow", pa.__version__)
tables = {name: pq.read_table(file(name)) for name in TABLES}
n = tables["features"].num_rows
features = tables["features"].schema
dim = features.field("embedding").type.list_size
check("embedding keeps its size", str(features.field("embedding").type), f"fixed_size_list<element: float not null>[{dim}]")
check("neighbor keeps its size", pa.types.is_fixed_size_list(tables["neighbors"].schema.field("neighbor").type))
for name in ["images", "features", "neighbors", "labels", "assignments", "groups"]:
    schema = tables[name].schema
    check(f"{name} begins with id and row", [(f.name, str(f.type)) for f in schema][:2], [("id", "string"), ("row", "uint32")])
    # Hugging Face's `Image` may be missing, and `datasets` decodes only what is declared exactly so.
    check(f"{name} promises that nothing is missing", [f.name for f in schema if f.nullable], ["image"] * (name == "images"))
    check(f"{name} has one row per image", tables[name].num_rows, n)
    check(f"{name} says what it is", json.loads(schema.metadata[b"kinset"])["artifact"], name)
matrix = tables["features"]["embedding"].combine_chunks().flatten().to_numpy().reshape(n, dim)
check("embeddings have unit length", bool(np.allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)))
huggingface = json.loads(tables["images"].schema.metadata[b"huggingface"])["info"]["features"]
check("Hugging Face sees a picture", huggingface["image"], {"_type": "Image"})
check("Hugging Face sees all columns", sorted(huggingface), sorted(tables["images"].schema.names))
huggingface = json.loads(tables["labels"].schema.metadata[b"huggingface"])["info"]["features"]
check("Hugging Face sees the classes", huggingface["label"], {"names": ["cat", "dog", "ship"], "_type": "ClassLabel"})
picture = tables["images"]["image"][0].as_py()
opened = Image.open(io.BytesIO(picture["bytes"]))
check("Pillow opens the picture", (opened.size, opened.mode, opened.getpixel((1, 0))), ((6, 4), "RGB", (3, 4, 5)))
check("arrays have no path, files keep theirs", (picture["path"], tables["images"]["image"][1].as_py()["path"]), (None, "class/1.png"))
column = pq.ParquetFile(file("features")).metadata.row_group(0).column(2)
check("embeddings are plain", (column.compression, column.has_dictionary_page), ("UNCOMPRESSED", False))

print("pandas", pd.__version__)
frame = pd.read_parquet(file("features"))
check("pandas sees arrays", (type(frame.embedding[0]).__name__, frame.embedding[0].dtype.name, frame.embedding[0].shape), ("ndarray", "float32", (dim,)))
check("pandas stacks them", bool((np.stack(frame.embedding) == matrix).all()))
joined = pd.read_parquet(file("assignments")).merge(pd.read_parquet(file("labels")), on=["id", "row"])
check("pandas joins by id", (len(joined), str(joined.cluster.dtype)), (n, "int32"))

print("DuckDB", duckdb.__version__)
check("DuckDB sees lists", (types("features")["embedding"], types("neighbors")["neighbor"], types("neighbors")["similarity"]), ("FLOAT[]", "UINTEGER[]", "FLOAT[]"))
check("DuckDB sees pictures", types("images")["image"], "STRUCT(bytes BLOB, path VARCHAR)")
edges = duckdb.sql(f'select "row" as src, unnest(neighbor) as dst, unnest(similarity) as similarity from \'{file("neighbors")}\'')
k = tables["neighbors"].schema.field("neighbor").type.list_size
check("DuckDB makes an edge list", (edges.columns, len(edges)), (["src", "dst", "similarity"], n * k))
worst = duckdb.sql(f"""
    select max(abs(list_cosine_similarity(a.embedding, b.embedding) - e.similarity))
    from (select "row" as src, unnest(neighbor) as dst, unnest(similarity) as similarity from '{file("neighbors")}') e
    join '{file("features")}' a on a."row" = e.src join '{file("features")}' b on b."row" = e.dst""").fetchall()[0][0]
check("DuckDB's list_cosine_similarity agrees", worst < 1e-6)
cast = duckdb.sql(f"select array_cosine_similarity(embedding::FLOAT[{dim}], embedding::FLOAT[{dim}]) from '{file('features')}' limit 1").fetchall()[0][0]
check("DuckDB takes embeddings as arrays after a cast", abs(cast - 1) < 1e-6)
sizes = duckdb.sql(f"select cluster, count(*) from '{file('assignments')}' group by cluster order by cluster").fetchall()
check("DuckDB counts clusters", sizes, [(0, n // 3), (1, n // 3), (2, n // 3)])
check("DuckDB reads our metadata", duckdb.sql(f"select count(*) from parquet_kv_metadata('{file('features')}') where key = 'kinset'").fetchall()[0][0], 1)

kept = duckdb.sql(f"""
    select s.id, s."order", count(*) as edges, min(e.distance) as nearest from '{file("selection")}' s
    join '{file("edges")}' e on e.pool_id = s.id and e.kept group by all order by s."order" """).fetchall()
check("DuckDB joins a selection with the edges behind it", [(i, o, n) for i, o, n, _ in kept], [("p4", 0, 2), ("p0", 1, 1)])
check("a distance is 1 - cosine", [round(row[3], 6) for row in kept], [0.1, 0.75])

print("Polars", pl.__version__)
frame = pl.read_parquet(file("features"))
check("Polars sees arrays", frame.schema["embedding"], pl.Array(pl.Float32, shape=(dim,)))
check("Polars gives NumPy a matrix", bool((frame["embedding"].to_numpy() == matrix).all()))
frame = pl.read_parquet(file("neighbors"))
check("Polars sees neighbors", frame.schema["neighbor"], pl.Array(pl.UInt32, shape=(k,)))
edges = frame.select("row", pl.col("neighbor").arr.to_list(), pl.col("similarity").arr.to_list()).explode("neighbor", "similarity")
check("Polars makes an edge list", edges.shape, (n * k, 3))
frame = pl.read_parquet(file("images"))
check("Polars sees pictures", frame.schema["image"], pl.Struct({"bytes": pl.Binary, "path": pl.String}))
targets = pl.read_parquet(file("targets"))
repeated = targets.filter(~pl.col("kept")).select("id", "representative").rows()
check("Polars names the target images that repeat others", (targets.height, repeated), (3, [("b", 0)]))
loss = pl.scan_parquet(file("curve")).filter(pl.col("name") == "loss").collect()
check("Polars filters curves", (loss.height, loss["value"][0]), (10, 2.0))

print(f"{checks} checks passed")
