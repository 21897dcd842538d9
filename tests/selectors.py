"""Random selectors of every kind, and the plain definition of each: one query at a time, loops and no shortcuts."""

import math

import numpy as np

KINDS = ("knn", "kmeans", "svm", "mlp")


def random_document(kind: str, seed: int, dimension: int = 12, size: int = 60) -> dict:
    """Return the JSON of a selector, as the format writes it; the seed decides which optional fields there are."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    labels = [f"model-{index}" for index in range(int(rng.integers(2, 6)))]
    start = {"algorithm": kind, "trained": True}
    return start | _MAKERS[kind](rng, labels, dimension, size)


def random_queries(seed: int, count: int, dimension: int = 12) -> np.ndarray:
    return np.random.default_rng([7, seed]).normal(size=(count, dimension))


def scores_by_definition(document: dict, query: np.ndarray) -> list[tuple[str, float]]:
    return _SCORES[document["algorithm"]](document, query)


def label_by_definition(document: dict, query: np.ndarray) -> str:
    scores = scores_by_definition(document, query)
    if document["algorithm"] == "knn":
        return min(scores, key=lambda score: (-score[1], score[0]))[0]
    if document["algorithm"] == "kmeans":
        distances = [_squared(query, centroid) for centroid in document["centroids"]]
        return document["cluster_models"][distances.index(min(distances))]
    if not scores:
        return document["model_names"][0]
    values = [value for _, value in scores]
    return scores[values.index(max(values))][0]


def _make_knn(rng, labels, dimension, size):
    document = {
        "k": int(rng.integers(1, 12)),
        "embeddings": rng.normal(size=(size, dimension)).tolist(),
        "labels": rng.choice(labels, size).tolist(),
    }
    if rng.random() < 0.8:
        document["qualities"] = rng.random(int(rng.integers(0, size + 1))).tolist()
    if rng.random() < 0.8:
        document["latencies"] = rng.integers(10**8, 10**10, int(rng.integers(0, size + 1))).tolist()
    return document


def _make_kmeans(rng, labels, dimension, size):
    count = max(1, size // 6)
    return {
        "num_clusters": count,
        "centroids": rng.normal(size=(count, dimension)).tolist(),
        "cluster_models": rng.choice(labels, count + int(rng.integers(0, 3))).tolist(),
    }


def _make_svm(rng, labels, dimension, size):
    linear = [
        {"model_name": label, "weights": rng.normal(size=dimension).tolist(), "rho": float(rng.normal())}
        for label in labels[: int(rng.integers(0, len(labels) + 1))]
    ]
    shared = rng.normal(size=(size, dimension))
    radial = []
    for label in labels[: int(rng.integers(0, len(labels) + 1))]:
        chosen = shared[rng.integers(0, size, int(rng.integers(1, size)))]
        radial.append(
            {
                "model_name": label,
                "alpha": rng.normal(size=len(chosen)).tolist(),
                "support_vectors": chosen.tolist(),
                "rho": float(rng.normal()),
                "gamma": float(rng.uniform(0.05, 2)),
            }
        )
    return {
        "model_names": labels,
        "kernel_type": str(rng.choice(["Linear", "Rbf"])),
        "gamma": 0.5,
        "linear_classifiers": linear,
        "rbf_classifiers": radial,
    }


def _make_mlp(rng, labels, dimension, size):
    del size
    hidden = [int(rng.integers(3, 20)) for _ in range(int(rng.integers(0, 3)))]
    layers, inputs = [], dimension
    for outputs in hidden:
        layers += [_linear(rng, inputs, outputs), {"type": "relu"}, _batch_norm(rng, outputs)]
        layers.append({"type": "dropout", "p": 0.1})
        inputs = outputs
    layers.append(_linear(rng, inputs, len(labels)))
    return {
        "model_names": labels,
        "feature_dim": dimension,
        "n_classes": len(labels),
        "hidden_sizes": hidden,
        "dropout": 0.1,
        "layers": layers,
    }


def _linear(rng, inputs, outputs):
    bias = rng.normal(size=outputs).tolist() if rng.random() < 0.7 else None
    weight = rng.normal(size=(outputs, inputs)).tolist()
    return {"type": "linear", "in_features": inputs, "out_features": outputs, "weight": weight, "bias": bias}


def _batch_norm(rng, size):
    layer = {"type": "batch_norm", "num_features": size}
    for key in ("weight", "bias", "running_mean", "running_var"):
        if rng.random() < 0.7:
            layer[key] = rng.uniform(0.2, 2, size).tolist()
    if rng.random() < 0.5:
        layer["eps"] = 1e-3
    return layer


def _squared(query, row) -> float:
    total = 0.0
    for a, b in zip(query.tolist(), row, strict=True):
        total += (a - b) * (a - b)
    return total


def _knn_scores(document, query):
    rows = document["embeddings"]
    order = sorted(range(len(rows)), key=lambda index: (_squared(query, rows[index]), index))
    qualities, latencies = document.get("qualities", []), document.get("latencies", [])
    votes = {}
    for index in order[: document["k"]]:
        quality = max(qualities[index], 0.01) if index < len(qualities) else 0.5
        speed = 1.0
        if latencies:
            low, high = min(latencies), max(latencies)
            latency = latencies[index] if index < len(latencies) else (low + high) / 2
            speed = 1 - (latency - low) / max(high - low, 1)
        label = document["labels"][index]
        votes[label] = votes.get(label, 0.0) + (0.9 * quality + 0.1 * speed)
    return sorted(votes.items())


def _kmeans_scores(document, query):
    best = {}
    for centroid, label in zip(document["centroids"], document["cluster_models"], strict=False):
        best[label] = max(best.get(label, -math.inf), -_squared(query, centroid))
    return list(best.items())


def _svm_scores(document, query):
    length = math.sqrt(sum(value * value for value in query.tolist()))
    unit = query / length if length else query
    scores = [
        (one["model_name"], sum(w * x for w, x in zip(one["weights"], unit.tolist(), strict=True)) - one["rho"])
        for one in document["linear_classifiers"]
    ]
    for one in document["rbf_classifiers"]:
        terms = [
            alpha * math.exp(-one["gamma"] * _squared(unit, row))
            for alpha, row in zip(one["alpha"], one["support_vectors"], strict=True)
        ]
        scores.append((one["model_name"], sum(terms) - one["rho"]))
    return scores


def _mlp_scores(document, query):
    values = query
    for layer in document["layers"]:
        if layer["type"] == "linear":
            values = np.array(layer["weight"]) @ values + (0 if layer.get("bias") is None else np.array(layer["bias"]))
        elif layer["type"] == "relu":
            values = np.where(values > 0, values, 0)
        elif layer["type"] == "batch_norm":
            variance = np.array(layer.get("running_var", np.ones(len(values)))) + layer.get("eps", 1e-5)
            values = (values - np.array(layer.get("running_mean", 0))) / np.sqrt(variance)
            values = values * np.array(layer.get("weight", 1)) + np.array(layer.get("bias", 0))
    return list(zip(document["model_names"], values.tolist(), strict=True))


_MAKERS = {"knn": _make_knn, "kmeans": _make_kmeans, "svm": _make_svm, "mlp": _make_mlp}
_SCORES = {"knn": _knn_scores, "kmeans": _kmeans_scores, "svm": _svm_scores, "mlp": _mlp_scores}
