"""Keras on TensorFlow.

    keras_tf.py WORKLOAD single|mirrored|multiworker

mirrored splits the host into two logical devices; multiworker starts two processes, and takes
tf_keras, for Keras 3 cannot train under that strategy.
"""

import json
import os
import socket
import subprocess
import sys

NAME, MODE = sys.argv[1], sys.argv[2]


def free_ports(count):
    """Ports of the loopback interface that nothing listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start_workers(count):
    """Runs this script once for each worker. Only the first one's output is shown."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, *sys.argv],
                env={**os.environ, "TF_CONFIG": json.dumps(task), "TF_NUM_INTRAOP_THREADS": "1"},
                stdout=None if index == 0 else subprocess.DEVNULL,
            )
        )
    return max(abs(worker.wait()) for worker in workers)


def choose_strategy(tensorflow):
    distribute = tensorflow.distribute
    if MODE == "multiworker":
        return distribute.MultiWorkerMirroredStrategy()
    if MODE == "mirrored":
        config = tensorflow.config
        halves = [config.LogicalDeviceConfiguration() for _ in range(2)]
        config.set_logical_device_configuration(config.list_physical_devices("CPU")[0], halves)
        return distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return distribute.get_strategy()


def train():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy
    import tensorflow
    from common import ALL, Epochs, report, rows_of

    strategy = choose_strategy(tensorflow)
    if MODE == "multiworker":
        import tf_keras as keras
    else:
        import keras
    work = ALL[NAME]
    with strategy.scope():
        hidden = [
            keras.layers.Dense(units, activation=work.activation) for units in work.widths[1:-1]
        ]
        model = keras.Sequential(
            [keras.Input((work.widths[0],)), *hidden, keras.layers.Dense(work.widths[-1])]
        )
        scores = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=scores if work.classes else "mse")
    epochs = Epochs(-(-work.rows // work.batch))  # Keras trains on the last, smaller batch too
    timer = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: epochs.begin(), on_epoch_end=lambda *_: epochs.end()
    )
    features, targets = rows_of(NAME, numpy)
    model.fit(
        features,
        targets,
        batch_size=work.batch,
        epochs=work.epochs,
        verbose=0,
        callbacks=[timer],
    )
    package = "tf_keras" if MODE == "multiworker" else "Keras"
    report(f"{package} {keras.__version__} on TensorFlow {tensorflow.__version__}", epochs)


if MODE == "multiworker" and "TF_CONFIG" not in os.environ:
    sys.exit(start_workers(2))
train()
