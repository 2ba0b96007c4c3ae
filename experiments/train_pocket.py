"""Trains the shipped model from a seed, in half an hour on a core: `train_pocket.py --output DIR --seed 0`."""

import sys

from pocket_training.train import main

if __name__ == "__main__":
    sys.exit(main())
