"""What happens beside training: speed, samples, pictures, checkpoints and the closing table."""

from pile_lightning.callbacks.averaging import AverageWeights
from pile_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from pile_lightning.callbacks.curves import Curves, draw_curves
from pile_lightning.callbacks.domains import DeliveredTokens
from pile_lightning.callbacks.history import KeptCheckpoints
from pile_lightning.callbacks.metrics_csv import MetricsCsv, read_metrics
from pile_lightning.callbacks.predictions import WritePredictions
from pile_lightning.callbacks.progress import StepProgressBar
from pile_lightning.callbacks.report import Report, compressed_bits_per_byte
from pile_lightning.callbacks.samples import Samples, continue_text
from pile_lightning.callbacks.summary import CheckpointSummary
from pile_lightning.callbacks.throughput import DENSE_PEAK_FLOPS, Throughput, dense_peak
from pile_lightning.callbacks.tokenizer import SaveTokenizer

__all__ = [
    "DENSE_PEAK_FLOPS",
    "AverageWeights",
    "BestCheckpoint",
    "CheckpointSummary",
    "Curves",
    "DeliveredTokens",
    "KeptCheckpoints",
    "LastCheckpoint",
    "MetricsCsv",
    "Report",
    "Samples",
    "SaveTokenizer",
    "StepProgressBar",
    "Throughput",
    "WritePredictions",
    "compressed_bits_per_byte",
    "continue_text",
    "dense_peak",
    "draw_curves",
    "read_metrics",
]
