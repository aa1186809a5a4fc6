"""JAX: a whole epoch is one compiled scan, with optax' Adam.

    jax_scan.py WORKLOAD DEVICES host|device

DEVICES of the host share each batch. Shuffled rows are copied by the host before an epoch, or
gathered on the device in each step: which is faster depends on the workload.
"""

import os
import sys

NAME, DEVICES, GATHER = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy  # noqa: E402
import optax  # noqa: E402
from common import ALL, Epochs, report, rows_of  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

WORK = ALL[NAME]
MESH = Mesh(numpy.array(jax.devices()), ("ranks",))
OPTIMIZER = optax.adam(1e-3)


def placed(value, *axes):
    return jax.device_put(value, NamedSharding(MESH, PartitionSpec(*axes)))


def first_parameters():
    random = numpy.random.default_rng(1)
    return [
        {
            "w": (random.standard_normal((i, o)) * (2 / i) ** 0.5).astype("float32"),
            "b": numpy.zeros(o, "float32"),
        }
        for i, o in zip(WORK.widths, WORK.widths[1:])
    ]


def loss(parameters, features, targets):
    values, activation = features, getattr(jax.nn, WORK.activation)
    for layer in parameters[:-1]:
        values = activation(values @ layer["w"] + layer["b"])
    values = values @ parameters[-1]["w"] + parameters[-1]["b"]
    if WORK.classes:
        losses = optax.softmax_cross_entropy_with_integer_labels(values, targets)
        return losses.mean()
    return jnp.square(values - targets).mean()


def train(parameters, state, features, targets, chosen):
    """An epoch. chosen [steps, batch] picks rows of the others; None: they come in batches."""

    def step(carry, batch):
        parameters, state = carry
        if chosen is not None:
            if DEVICES > 1:
                share = NamedSharding(MESH, PartitionSpec("ranks"))
                batch = jax.lax.with_sharding_constraint(batch, share)
            batch = features[batch], targets[batch]
        value, gradient = jax.value_and_grad(loss)(parameters, *batch)
        change, state = OPTIMIZER.update(gradient, state)
        return (optax.apply_updates(parameters, change), state), value

    batches = (features, targets) if chosen is None else chosen
    (parameters, state), losses = jax.lax.scan(step, (parameters, state), batches)
    return parameters, state, losses.mean()


def main():
    features, targets = rows_of(NAME, numpy)
    resident = (placed(features), placed(targets)) if GATHER == "device" else None
    parameters = first_parameters()
    state = placed(OPTIMIZER.init(parameters))
    parameters = placed(parameters)
    epoch = jax.jit(train)
    random = numpy.random.default_rng(2)
    epochs = Epochs(WORK.steps)
    for number in range(WORK.epochs + 1):
        epochs.begin()
        order = random.permutation(WORK.rows)[: WORK.steps * WORK.batch]
        order = order.reshape(WORK.steps, WORK.batch).astype("int32")
        if resident is not None:
            given = (*resident, placed(order))
        else:
            given = (
                placed(features[order], None, "ranks"),
                placed(targets[order], None, "ranks"),
                None,
            )
        parameters, state, mean = epoch(parameters, state, *given)
        mean.block_until_ready()
        if number > 0:  # the first compiles
            epochs.end()
    report(f"JAX {jax.__version__}", epochs)


main()
