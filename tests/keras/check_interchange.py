#!/usr/bin/env python3
"""Checks that a checkpoint is what it says to be for h5py and, where it can be imported, Keras.

    check_interchange.py CHECKPOINT [EXPECTED.json]

h5py must read every object and decode every string as UTF-8; the XXH64 of the parameters,
recomputed here, must be the stored weights_hash; both layouts must name the same data. Keras must
restore weights and optimizer state by load_weights, and weights by load_model. EXPECTED.json may
hold any of "step", "weights_hash", "parameters" (shapes in order). Exit 0 or 1.
"""
import json
import os
import shutil
import sys
import tempfile

import h5py
import numpy

MASK = (1 << 64) - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotate(value, bits):
    return (value << bits | value >> (64 - bits)) & MASK


def mix(state, word):
    return rotate((state + word * P2) & MASK, 31) * P1 & MASK


def xxh64(data):
    """XXH64 of bytes, seed 0, after its specification."""
    size, at = len(data), 0
    if size >= 32:
        lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        while at + 32 <= size:
            for i in range(4):
                lanes[i] = mix(lanes[i], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        h = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            h = ((h ^ mix(0, lane)) * P1 + P4) & MASK
    else:
        h = P5
    h = (h + size) & MASK
    while at + 8 <= size:
        h = (rotate(h ^ mix(0, int.from_bytes(data[at : at + 8], "little")), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= size:
        word = int.from_bytes(data[at : at + 4], "little")
        h = (rotate(h ^ word * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    while at < size:
        h = rotate(h ^ data[at] * P5 & MASK, 11) * P1 & MASK
        at += 1
    h = (h ^ h >> 33) * P2 & MASK
    h = (h ^ h >> 29) * P3 & MASK
    return h ^ h >> 32


class Failed(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Failed(what)


def text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_all(file):
    """Reads every object and attribute; strings must decode. Returns how many there are."""
    count = {"datasets": 0, "attributes": 0}

    def look_at(holder):
        for key in holder.attrs:
            count["attributes"] += 1
            for item in numpy.ravel(holder.attrs[key]):
                if isinstance(item, (bytes, str)):
                    text(item)

    def visit(name, item):
        look_at(item)
        if isinstance(item, h5py.Dataset):
            count["datasets"] += 1
            if h5py.check_string_dtype(item.dtype):
                item.asstr("utf-8")[()]
            else:
                item[()]

    look_at(file)
    file.visititems(visit)
    return count


def parameters_of(file):
    """Weights by the legacy layout, whose order is the model's; v3 must name the same objects."""
    weights, group = [], file["model_weights"]
    for layer in group.attrs["layer_names"]:
        folder = group[text(layer)]
        for name in folder.attrs["weight_names"]:
            weights.append(folder[text(name)])
    v3 = []
    file["layers"].visititems(
        lambda name, item: v3.append(item) if isinstance(item, h5py.Dataset) else None
    )
    need(len(v3) == len(weights), "the two layouts hold different numbers of weights")
    for weight in weights:
        need(any(weight == other for other in v3), f"{weight.name} is not the v3 layout's data")
    return [numpy.asarray(weight[()], dtype="<f4") for weight in weights]


def check_h5py(path, expected):
    with h5py.File(path, "r") as file:
        count = read_all(file)
        print(f"h5py {h5py.__version__}: read {count['datasets']} datasets, "
              f"{count['attributes']} attributes")
        values = parameters_of(file)
        ours = file["lockstep"].attrs
        need(int(ours["sealed"]) == 1 and int(ours["format"]) >= 1, "no seal or format")
        found = f"{xxh64(b''.join(value.tobytes() for value in values)):016x}"
        stored = text(ours["weights_hash"])
        need(found == stored, f"weights_hash is {stored}, the parameters give {found}")
        print(f"weights_hash {found} recomputed over {sum(v.size for v in values)} parameters")
        step = int(file["lockstep/progress/step"][()])
        json.loads(text(file.attrs["model_config"]))
        json.loads(text(file.attrs["training_config"]))
        slots = []
        if "optimizer" in file:
            variables = file["optimizer/vars"]
            need(int(variables["0"][()]) == step, "the optimizer's iteration is not the step")
            slots = [variables[str(i)][()] for i in range(len(variables))]
    shapes = [list(value.shape) for value in values]
    for key, value in (("step", step), ("weights_hash", found), ("parameters", shapes)):
        if key in expected:
            need(expected[key] == value, f"{key} is {value}, expected {expected[key]}")
            print(f"{key} is as expected")
    return values, slots


def same(found, wanted, what):
    found = [numpy.asarray(value) for value in found]
    need(len(found) == len(wanted), f"{what}: {len(found)} arrays, not {len(wanted)}")
    for i, (a, b) in enumerate(zip(found, wanted)):
        equal = a.shape == b.shape and numpy.array_equal(a, b.astype(a.dtype))
        need(equal, f"{what}: array {i} differs")


def check_keras(keras, path, values, slots):
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "copy.h5")
        shutil.copyfile(path, copy)
        model = keras.models.load_model(copy)
        same(model.get_weights(), values, "load_model")
        print(f"keras {keras.__version__}: load_model gives {len(values)} equal arrays, "
              f"optimizer {type(model.optimizer).__name__}, loss {model.loss}")
        weights = os.path.join(folder, "copy.weights.h5")
        shutil.copyfile(path, weights)
        model.set_weights([numpy.zeros_like(value) for value in values])
        model.optimizer.build(model.trainable_variables)
        model.load_weights(weights)
        same(model.get_weights(), values, "load_weights")
        state = [variable.value for variable in model.optimizer.variables]
        if slots:
            same(state, slots, "load_weights, optimizer")
        print(f"keras {keras.__version__}: load_weights gives equal arrays, "
              f"{len(slots)} optimizer variables restored")


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__.strip(), file=sys.stderr)
        return 1
    expected = {}
    if len(arguments) == 2:
        with open(arguments[1], encoding="utf-8") as file:
            expected = json.load(file)
    try:
        need(xxh64(b"") == 0xEF46DB3751D8E999, "XXH64 of nothing is wrong")
        values, slots = check_h5py(arguments[0], expected)
        try:
            import keras
        except ImportError:
            print("keras cannot be imported: load_weights and load_model were not tried")
            return 0
        check_keras(keras, arguments[0], values, slots)
    except (Failed, OSError, KeyError, ValueError, UnicodeError) as problem:
        print(f"{arguments[0]}: {type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
