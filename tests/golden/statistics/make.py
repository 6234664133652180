"""Writes scipy.json: what scipy and statsmodels compute for the lists in it.

pip install scipy==1.17.1 statsmodels==0.15.0; python make.py > scipy.json
"""
import json
import math

import numpy as np
from scipy import stats
from statsmodels.stats.diagnostic import acorr_ljungbox
from statsmodels.stats.multitest import multipletests

rng = np.random.default_rng(20)


def noise(n, centre=1.0, digits=4):
    return [round(float(x), digits) for x in centre * np.exp(rng.normal(0, 0.1, n))]


lists = {
    "three": noise(3),
    "five": noise(5),
    "six_later": noise(6, 1.2),
    "eight": noise(8),
    "ten": noise(10),
    "twelve": noise(12, 1.1),
    "twenty": noise(20),
    "twenty_later": noise(20, 1.05),
    "forty": noise(40),
    "sixty": noise(60, 1.02),
    "tied_five": [1, 2, 2, 3, 4],
    "tied_six": [2, 3, 3, 4, 5, 5],
    "tied_forty": noise(40, digits=1),
    "tied_sixty": noise(60, 1.02, digits=1),
    "rising": [round(1 + 0.01 * i + x, 4) for i, x in enumerate(noise(20, 0.2))],
    "tied_rising": [round(1 + 0.02 * i + x, 1) for i, x in enumerate(noise(35, 0.2))],
    "apart_low": [1.0, 1.1, 1.2, 1.3],
    "apart_high": [2.0, 2.1, 2.2, 2.3, 2.4],
}

everything = stats.PermutationMethod(n_resamples=math.inf)


def two_sample(a, b):
    x, y = lists[a], lists[b]
    few = len(x) + len(y) <= 12
    tied = len(set(x + y)) < len(x) + len(y)
    case = {"a": a, "b": b}
    if len(x) + len(y) > 50:
        r = stats.mannwhitneyu(x, y, method="asymptotic")
    elif tied:
        r = stats.mannwhitneyu(x, y, method=everything) if few else None
    else:
        r = stats.mannwhitneyu(x, y, method="exact")
    if r:
        case["mann_whitney"] = {"statistic": float(r.statistic), "p": float(r.pvalue)}
    if max(x) >= min(y):
        r = stats.brunnermunzel(x, y)
        case["brunner_munzel"] = {"statistic": float(r.statistic), "p": float(r.pvalue)}
    r = stats.ttest_ind(y, x, equal_var=False)
    ci = r.confidence_interval(0.99)
    case["welch"] = {"p": float(r.pvalue), "lo": float(ci.low), "hi": float(ci.high)}
    if few:
        r = stats.permutation_test(
            (x, y), lambda u, v: np.mean(u) - np.mean(v), n_resamples=math.inf
        )
        case["permutation"] = {"statistic": float(r.statistic), "p": float(r.pvalue)}
    if not tied and not few:
        # Hodges and Lehmann: the median of all differences.
        case["shift"] = float(np.median(np.subtract.outer(y, x)))
    return case


def one_sample(name, centre):
    d = [round(x - centre, 4) for x in lists[name]]
    tied = len(set(map(abs, d))) < len(d)
    case = {"values": name, "centre": centre}
    if len(d) > 50:
        r = stats.wilcoxon(d, method="asymptotic")
    elif tied:
        r = stats.wilcoxon(d, method=everything) if len(d) <= 12 else None
    else:
        r = stats.wilcoxon(d, method="exact")
    if r:
        case["signed_rank"] = {"p": float(r.pvalue)}
    if len(d) <= 12:
        r = stats.permutation_test(
            (d,), np.mean, permutation_type="samples", n_resamples=math.inf
        )
        case["sign_flip"] = {"statistic": float(r.statistic), "p": float(r.pvalue)}
    walsh = [(d[i] + d[j]) / 2 for i in range(len(d)) for j in range(i, len(d))]
    case["middle"] = float(np.median(walsh))
    return case


def interval(name):
    x = np.array(lists[name], float)
    lo, hi = stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x))
    case = {"values": name, "mean": x.mean(), "lo": lo, "hi": hi, "iqr": stats.iqr(x)}
    if len(x) >= 20:
        ci = stats.quantile_test(x, p=0.5).confidence_interval(0.95)
        case["median"] = {"centre": np.median(x), "lo": ci.low, "hi": ci.high}
    if len(x) >= 8:
        r = stats.bootstrap(
            (x,), np.mean, method="BCa", n_resamples=400000, batch=20000, rng=rng
        ).confidence_interval
        case["bca"] = {"lo": r.low, "hi": r.high}
    return {k: v if isinstance(v, (str, dict)) else float(v) for k, v in case.items()}


def along(name):
    x = np.array(lists[name], float)
    tau = stats.kendalltau(np.arange(len(x)), x)
    box = acorr_ljungbox(x, lags=[1])
    d = x - x.mean()
    return {
        "values": name,
        "tau": float(tau.statistic),
        "p": float(tau.pvalue),
        "slope": float(stats.theilslopes(x).slope),
        "r": float((d[1:] * d[:-1]).sum() / (d * d).sum()),
        "r_p": float(box["lb_pvalue"].iloc[0]),
    }


raw = [0.04, 0.001, 0.03, 0.03, 0.2, 0.005]
print(
    json.dumps(
        {
            "source": "scipy 1.17.1, statsmodels 0.15.0",
            "lists": lists,
            "normal": [
                {
                    "x": x,
                    "below": float(stats.norm.cdf(x)),
                    "outside": 2 * float(stats.norm.sf(abs(x))),
                }
                for x in (-8.0, -3.0, -1.0, 0.0, 0.3, 1.2, 1.96, 5.0)
            ],
            "t": [
                {
                    "df": df,
                    "t": t,
                    "outside": 2 * float(stats.t.sf(t, df)),
                    "point": float(stats.t.isf(0.005, df)),
                }
                for df in (1, 2, 3.7, 19, 40, 500, 1e6)
                for t in (0.1, 1.0, 3.0, 30.0)
            ],
            "intervals": [
                interval(n) for n in ("three", "five", "eight", "ten", "twenty", "sixty")
            ],
            "two_samples": [
                two_sample(a, b)
                for a, b in (
                    ("five", "six_later"),
                    ("tied_five", "tied_six"),
                    ("ten", "twelve"),
                    ("twenty", "twenty_later"),
                    ("forty", "sixty"),
                    ("tied_forty", "tied_sixty"),
                    ("eight", "twenty_later"),
                    ("apart_low", "apart_high"),
                )
            ],
            "one_sample": [
                one_sample(n, c)
                for n, c in (
                    ("five", 0.5),
                    ("eight", 0.97),
                    ("twelve", 1.0),
                    ("tied_six", 3.5),
                    ("twenty", 1.0),
                    ("twenty_later", 0.95),
                    ("sixty", 1.0),
                    ("tied_sixty", 1.05),
                )
            ],
            "along": [along(n) for n in ("twenty", "rising", "tied_rising", "sixty")],
            "holm": {"p": raw, "adjusted": multipletests(raw, method="holm")[1].tolist()},
        },
        indent=1,
    )
)
