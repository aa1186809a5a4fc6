#!/usr/bin/env python3
"""Makes tests/keras/values: what Keras computes for a few small trainings.

Needs Keras 3 with the JAX backend; run it as

    KERAS_BACKEND=jax python tests/keras/make_values.py

Each case gives three files in values/:

    CASE.h5           the raw rows, as `lockstep train` reads them
    CASE.weights.h5   the initial weights, written by Keras
    CASE.json         the configuration and the expected epoch losses, metrics and layer norms

and, for the classifier, the trained model in both of Keras' HDF5 layouts with its evaluation.

A comparison to 1e-5 means something only where training does not amplify rounding. So each case
is trained again with the rows of every batch in other orders, and once in double precision:
mathematically the same numbers. A case whose runs differ by too much is refused here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import h5py
import jax
import keras
import numpy as np

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "values")

# Largest relative difference allowed between single precision runs of one case: a tenth of what
# the comparison with Lockstep allows.
SPREAD = 1e-6

# The same between single and double precision. Keras computes Adam's 1 - beta_2^t in single
# precision: for beta_2 = 0.999 that is off by 1.3e-5, which the losses inherit. So one case keeps
# Keras' default and gets this limit; the others take a beta_2 that single precision holds exactly.
SPREAD_DOUBLE = 3e-6
EXACT_BETA_2 = 0.96875  # 1 - 2^-5

ORDERS = 3

BATCH = 32


# ---- the rows of each case


def teacher(rng, x, widths):
    """A smooth random function of x: a small tanh network."""
    for width in widths:
        w = rng.normal(size=(x.shape[1], width)) / np.sqrt(x.shape[1])
        x = np.tanh(x @ w + 0.3 * rng.normal(size=width))
    return x


def regression_rows(rng):
    """Raw features and targets in units of their own, far from zero mean and unit variance."""
    z = rng.normal(size=(310, 8))
    x = 300.0 + z * rng.uniform(0.01, 40.0, size=8)
    y = teacher(rng, z, [10, 2]) + 0.3 * rng.normal(size=(310, 2))
    y = y * [1200.0, 0.004] + [101325.0, 0.01]
    return {"x": x[:250], "y": y[:250], "x_val": x[250:], "y_val": y[250:]}


def classifier_rows(rng):
    x = rng.normal(size=(290, 20)).astype("f4")
    score = teacher(rng, x, [12]) @ rng.normal(size=(12, 5)) + 0.7 * rng.normal(size=(290, 5))
    return {"x": x, "y": score.argmax(axis=1).astype("u1")}


def autoencoder_rows(rng):
    hidden = rng.normal(size=(250, 4)) @ rng.normal(size=(4, 12))
    return {"x": (1.0 / (1.0 + np.exp(-hidden))).astype("f4")}


def binary_rows(rng):
    x = rng.normal(size=(250, 10)).astype("f4")
    score = x[:, 0] * x[:, 1] + x[:, 2] - 0.5 * x[:, 3] + 0.8 * rng.normal(size=250)
    return {"x": x, "y": (score > 0).astype("i4")}


def categorical_rows(rng):
    x = rng.uniform(-1.0, 1.0, size=(250, 10)).astype("f4")
    score = x[:, :4] + 0.5 * x[:, 4:8] + 0.4 * rng.normal(size=(250, 4))
    return {"x": x, "y": np.eye(4, dtype="f4")[score.argmax(axis=1)]}


def absolute_rows(rng):
    x = rng.normal(size=(250, 6)).astype("f4")
    y = teacher(rng, x, [8, 3]) + 0.2 * rng.normal(size=(250, 3))
    return {"x": x, "y": y.astype("f4")}


def dense(units, activation=None):
    options = {"units": units}
    if activation:
        options["activation"] = activation
    return {"dense": options}


# The configurations are Lockstep's; build() below makes the Keras model that each describes.
CASES = {
    "regression": {
        "rows": regression_rows,
        "data": {
            "train": {"features": "x", "targets": "y"},
            "validation": {"features": "x_val", "targets": "y_val"},
            "scaling": {"features": "standardize", "targets": "standardize"},
        },
        "model": [dense(32, "tanh"), dense(16, "relu"), dense(2)],
        "loss": "mean_squared_error",
        "optimizer": {"name": "adam", "learning_rate": 0.0005},
        "metrics": ["mae", "mse"],
        "epochs": 40,
    },
    "classifier": {
        "rows": classifier_rows,
        "data": {"train": {"features": "x", "targets": "y"}, "validation": 0.2},
        "model": [dense(24, "relu"), dense(5, "softmax")],
        "loss": "sparse_categorical_crossentropy",
        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "nesterov": True},
        "metrics": ["accuracy"],
        "epochs": 40,
    },
    "autoencoder": {
        "rows": autoencoder_rows,
        "data": {"train": {"features": "x", "targets": "x"}},
        "model": [dense(6, "tanh"), dense(12, "sigmoid")],
        "loss": "binary_crossentropy",
        "optimizer": {
            "name": "adamw",
            "learning_rate": 0.002,
            "beta_2": EXACT_BETA_2,
            "weight_decay": 0.01,
        },
        "metrics": ["mse"],
        "epochs": 40,
    },
    "binary": {
        "rows": binary_rows,
        "data": {"train": {"features": "x", "targets": "y"}},
        "model": [
            dense(12, "gelu"),
            dense(10, "silu"),
            dense(10, "elu"),
            dense(8, "selu"),
            dense(8, "softplus"),
            dense(1, "sigmoid"),
        ],
        "loss": "binary_crossentropy",
        "optimizer": {"name": "adam", "learning_rate": 0.0005, "beta_2": EXACT_BETA_2},
        "metrics": ["accuracy"],
        "epochs": 40,
    },
    "binary_logits": {
        "rows": binary_rows,
        "data": {"train": {"features": "x", "targets": "y"}},
        "model": [dense(12, "sigmoid"), dense(1)],
        "loss": "binary_crossentropy",
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "metrics": ["accuracy"],
        "epochs": 40,
    },
    "categorical": {
        "rows": categorical_rows,
        "data": {"train": {"features": "x", "targets": "y"}},
        "model": [dense(16, "leaky_relu"), dense(12, "exponential"), dense(4, "softmax")],
        "loss": "categorical_crossentropy",
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.5},
        "metrics": ["accuracy"],
        "epochs": 40,
    },
    "absolute": {
        "rows": absolute_rows,
        "data": {"train": {"features": "x", "targets": "y"}},
        "model": [dense(16, "tanh"), dense(3)],
        "loss": "mean_absolute_error",
        "optimizer": {"name": "adam", "learning_rate": 0.001, "beta_2": EXACT_BETA_2},
        "metrics": ["mse"],
        "epochs": 40,
    },
}


# ---- the same in Keras


def build(case, inputs):
    layers = [keras.Input((inputs,))]
    for layer in case["model"]:
        layers.append(keras.layers.Dense(**layer["dense"]))
    model = keras.Sequential(layers)

    options = dict(case["optimizer"])
    kinds = {
        "sgd": keras.optimizers.SGD,
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
    }
    optimizer = kinds[options.pop("name")](**options)

    # A linear last layer before a cross-entropy means logits; accuracy then thresholds at 0.
    logits = "crossentropy" in case["loss"] and "activation" not in case["model"][-1]["dense"]
    loss = keras.losses.BinaryCrossentropy(from_logits=True) if logits else case["loss"]
    metrics = list(case["metrics"])
    if logits:
        metrics = [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics)
    return model


def standardise(train, others):
    """float32((raw - mean) * (1 / population std)), in double until the end."""
    train = train.astype("f8")
    mean = train.mean(axis=0)
    factor = 1.0 / np.sqrt(((train - mean) ** 2).mean(axis=0))
    return [((part.astype("f8") - mean) * factor).astype("f4") for part in [train, *others]]


def scaled_rows(case, rows):
    """Features and targets as the network sees them: (train pair, validation pair or None)."""
    table = case["data"]["train"]
    x, y = rows[table["features"]], rows[table["targets"]]
    validation = case["data"].get("validation")
    if isinstance(validation, dict):
        xv, yv = rows[validation["features"]], rows[validation["targets"]]
        if "scaling" in case["data"]:
            (x, xv), (y, yv) = standardise(x, [xv]), standardise(y, [yv])
        return (x, y), (xv, yv)
    if validation:
        kept = int(len(x) * (1.0 - validation))  # as fit(validation_split=...) cuts
        return (x[:kept], y[:kept]), (x[kept:], y[kept:])
    return (x, y), None


def batch_orders(rows, order):
    """Row numbers with the rows of each batch reordered; order 0 leaves them."""
    rng = np.random.default_rng(1000 + order)
    index = np.arange(rows)
    if order > 0:
        for first in range(0, rows, BATCH):
            rng.shuffle(index[first : first + BATCH])
    return index


def layer_norm(layer):
    """Root of the sum of squares of a layer's weights, biases too."""
    return float(np.sqrt(sum(np.sum(np.asarray(v, "f8") ** 2) for v in layer.get_weights())))


def fit(case, rows, weights, order=0):
    """One training from the weights file; returns history, norms and the model."""
    (x, y), validation = scaled_rows(case, rows)
    model = build(case, x.shape[1])
    model.load_weights(weights)
    index = batch_orders(len(x), order)
    history = model.fit(
        x[index],
        y[index],
        batch_size=BATCH,
        epochs=case["epochs"],
        shuffle=False,
        verbose=0,
        validation_data=validation,
        validation_batch_size=BATCH,
    ).history
    history = {name: [float(v) for v in values] for name, values in history.items()}
    norms = [layer_norm(layer) for layer in model.layers]
    return history, norms, model


def fit_in_double(name):
    """Trains in double precision: JAX decides that when it starts, so in a process of its own."""
    environment = dict(os.environ, JAX_ENABLE_X64="1")
    command = [sys.executable, os.path.abspath(__file__), "--double", name]
    return json.loads(subprocess.check_output(command, env=environment))


def largest_difference(a, b):
    return max(abs(p - q) / max(abs(p), abs(q)) for p, q in zip(a, b))


def check_spread(name, history, norms, other_history, other_norms, what, limit=SPREAD):
    """Refuses a case that amplifies rounding; returns the largest relative difference."""
    worst = largest_difference(norms, other_norms)
    for key, values in history.items():
        if key.endswith("accuracy"):
            if largest_difference(values, other_history[key]) > 1e-6:
                raise SystemExit(f"{name}: {key} is not the same in {what}: a tie is near")
            continue
        worst = max(worst, largest_difference(values, other_history[key]))
    print(f"  {what}: {worst:.1e}")
    if worst > limit:
        raise SystemExit(f"{name}: {what} differs by {worst:.1e}: too chaotic to compare")
    return worst


# ---- writing


def write_rows(path, rows):
    with h5py.File(path, "w", libver="earliest") as f:
        for key, values in rows.items():
            chunks = (50, *values.shape[1:])
            f.create_dataset(key, data=values, chunks=chunks, compression="gzip", shuffle=True)


def read_rows(path):
    with h5py.File(path, "r") as f:
        return {key: f[key][()] for key in f}


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(content, f, indent=1)
        f.write("\n")


def versions():
    return {"keras": keras.__version__, "jax": jax.__version__, "numpy": np.__version__}


def configuration(case):
    return {
        "data": case["data"],
        "model": case["model"],
        "loss": case["loss"],
        "optimizer": case["optimizer"],
        "metrics": case["metrics"],
        "train": {"batch_size": BATCH, "epochs": case["epochs"], "shuffle": False},
    }


def paths(name):
    base = os.path.join(FOLDER, name)
    return base + ".h5", base + ".weights.h5", base + ".json"


def make(name, number):
    case = CASES[name]
    data_path, weights_path, json_path = paths(name)
    print(name)
    rows = case["rows"](np.random.default_rng(number))
    write_rows(data_path, rows)
    (x, _), validation = scaled_rows(case, rows)
    keras.utils.set_random_seed(number)
    build(case, x.shape[1]).save_weights(weights_path)

    history, norms, model = fit(case, rows, weights_path)
    worst = 0.0
    for order in range(1, ORDERS + 1):
        other = fit(case, rows, weights_path, order)
        worst = max(worst, check_spread(name, history, norms, *other[:2], f"order {order}"))
    double = fit_in_double(name)
    in_double = check_spread(name, history, norms, *double, "double", SPREAD_DOUBLE)
    steps = case["epochs"] * -(-len(x) // BATCH)
    print(f"  {steps} steps, loss {history['loss'][0]:.4f} -> {history['loss'][-1]:.4f}")
    write_json(
        json_path,
        {
            "versions": versions(),
            "config": configuration(case),
            "steps": steps,
            "rows": len(x),
            "validation_rows": len(validation[0]) if validation else 0,
            "spread": worst,
            "spread_double": in_double,
            "history": history,
            "layer_norms": norms,
        },
    )
    if name == "classifier":
        write_trained(model, rows)


def write_trained(model, rows):
    """The trained classifier in both layouts, and what Keras says of all rows with it.

    In the legacy file the layers' names sort against their order: only its attribute
    layer_names tells which comes first.
    """
    base = os.path.join(FOLDER, "trained")
    model.save_weights(base + ".weights.h5")
    hidden, output = (layer["dense"] for layer in CASES["classifier"]["model"])
    named = keras.Sequential(
        [
            keras.Input((rows["x"].shape[1],), name="rows"),
            keras.layers.Dense(**hidden, name="hidden"),
            keras.layers.Dense(**output, name="classes"),
        ],
        name="trained",
    )
    named.set_weights(model.get_weights())
    named.save(base + ".legacy.h5")
    loss, accuracy = model.evaluate(rows["x"], rows["y"], batch_size=len(rows["x"]), verbose=0)
    write_json(
        base + ".json",
        {
            "versions": versions(),
            "loss": float(loss),
            "hits": round(float(accuracy) * len(rows["x"])),
            "rows": len(rows["x"]),
            "predictions": model.predict(rows["x"][:20], verbose=0).astype("f8").tolist(),
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--double", metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", help="cases to make; all by default")
    arguments = parser.parse_args()
    if arguments.double:
        keras.config.set_floatx("float64")
        data_path, weights_path, _ = paths(arguments.double)
        history, norms, _ = fit(CASES[arguments.double], read_rows(data_path), weights_path)
        print(json.dumps([history, norms]))
        return
    os.makedirs(FOLDER, exist_ok=True)
    for number, name in enumerate(CASES, start=1):
        if not arguments.cases or name in arguments.cases:
            make(name, number)


if __name__ == "__main__":
    main()
