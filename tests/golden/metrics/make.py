"""Makes partitions.tsv: scores of random partitions as scikit-learn has them. Run: python make.py > partitions.tsv"""
import numpy, scipy, sklearn
from scipy.optimize import linear_sum_assignment
from sklearn import metrics as m

rng = numpy.random.default_rng(7)


def noisy(n, k, g, keep):
    """Classes, and clusters that follow them with probability `keep`."""
    classes = rng.integers(g, size=n)
    return numpy.where(rng.random(n) < keep, classes * k // g, rng.integers(k, size=n)), classes


def skewed(n, k, g):
    weights = 0.5 ** numpy.arange(max(k, g))
    draw = lambda c: rng.choice(c, size=n, p=weights[:c] / weights[:c].sum())
    return draw(k), draw(g)


cases = {
    "chance": noisy(60, 4, 4, 0.0), "half": noisy(60, 4, 4, 0.5), "good": noisy(200, 10, 10, 0.9), "perfect": noisy(40, 5, 5, 1.0),
    "many clusters": noisy(120, 12, 4, 0.7), "few clusters": noisy(120, 3, 9, 0.7), "skewed": skewed(150, 6, 6),
    "skewed, many": skewed(150, 9, 4), "one cluster": (numpy.zeros(20, int), rng.integers(3, size=20)),
    "one class": (rng.integers(3, size=20), numpy.zeros(20, int)), "all alone": (numpy.arange(30), rng.integers(5, size=30)),
    "two rows": (numpy.array([0, 1]), numpy.array([0, 0])), "gaps": (rng.integers(3, size=50) * 4, rng.integers(2, size=50) * 3),
    "one row": (numpy.array([2]), numpy.array([1])),
}
print(f"# numpy {numpy.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}")
print("# name\tclusters\tclasses\tnmi\tari\tami\tmi\tacc\tmajority")
for name, (clusters, classes) in cases.items():
    table = m.cluster.contingency_matrix(classes, clusters)
    acc = table[linear_sum_assignment(-table)].sum() / len(classes)
    scores = [m.normalized_mutual_info_score(classes, clusters), m.adjusted_rand_score(classes, clusters),
              m.adjusted_mutual_info_score(classes, clusters), m.mutual_info_score(classes, clusters), acc,
              table.max(axis=0).sum() / len(classes)]
    print(name, " ".join(map(str, clusters)), " ".join(map(str, classes)), *(repr(float(s)) for s in scores), sep="\t")
