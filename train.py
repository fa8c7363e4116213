"""Train a model from a config: ``python train.py fit --config configs/quickstart.yaml``."""

from pile_lightning.cli import train

if __name__ == "__main__":
    train()
