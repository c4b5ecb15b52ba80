"""The exact nearest rows of every row by FAISS's flat index. A row finds itself, so one more is asked for."""

import time

import faiss
import ground
import numpy as np

args = ground.settings(rows=60_000, dim=128, k=20)
faiss.omp_set_num_threads(ground.THREADS)
rows = ground.unit_rows(args.rows, args.dim)
start = time.perf_counter()
index = faiss.IndexFlatIP(args.dim)
index.add(rows)
_, found = index.search(rows, args.k + 1)
seconds = time.perf_counter() - start
sample = range(0, args.rows, max(args.rows // 100, 1))
others = [[int(other) for other in found[row] if other != row][: args.k] for row in sample]
assert np.mean(found[:, 0] == np.arange(args.rows)) > 0.999
ground.answer(f"FAISS {faiss.__version__}", [seconds], sample=others)
