"""k-means by scikit-learn: so many starts by k-means++, so many of Lloyd's iterations each."""

import time
import warnings

import ground
import sklearn
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

args = ground.settings(rows=60_000, dim=128, clusters=10, restarts=3, iterations=20)
rows = ground.bells(args.rows, args.dim)
model = KMeans(args.clusters, n_init=args.restarts, max_iter=args.iterations, tol=0.0, algorithm="lloyd", random_state=0)
# It says that it did not converge, which nobody asked it to.
warnings.simplefilter("ignore")
with threadpool_limits(ground.THREADS):
    start = time.perf_counter()
    model.fit(rows)
    seconds = time.perf_counter() - start
ground.answer(f"scikit-learn {sklearn.__version__}", [seconds], inertia=float(model.inertia_), iterations=int(model.n_iter_))
