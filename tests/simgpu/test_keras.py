#!/usr/bin/env python3
"""The training that equals Keras', with the simulated GPU's numbers of ranks."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "keras"))

import test_training

test_training.RANKS = (1, 2, 4)
TrainingTest = test_training.TrainingTest
