"""What happens beside training: speed, samples, pictures, checkpoints and the closing table."""

from pile_lightning.callbacks.averaging import AverageWeights
from pile_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from pile_lightning.callbacks.continuation import Continuation, continue_text, continue_texts
from pile_lightning.callbacks.curves import Curves, draw_curves
from pile_lightning.callbacks.domains import DeliveredTokens
from pile_lightning.callbacks.history import KeptCheckpoints
from pile_lightning.callbacks.members import MemberRuns, ranking_table
from pile_lightning.callbacks.metrics_csv import MetricsCsv, read_metrics
from pile_lightning.callbacks.non_finite import SkipNonFinite
from pile_lightning.callbacks.predictions import WritePredictions
from pile_lightning.callbacks.preemption import Preempted, Preemption
from pile_lightning.callbacks.progress import StepProgressBar
from pile_lightning.callbacks.report import Report, compressed_bits_per_byte
from pile_lightning.callbacks.samples import Samples
from pile_lightning.callbacks.spikes import RewindSpikes, Rewound
from pile_lightning.callbacks.summary import CheckpointSummary
from pile_lightning.callbacks.sweep import SweepPicture, sweep_curves, sweep_table
from pile_lightning.callbacks.throughput import DENSE_PEAK_FLOPS, Throughput, dense_peak
from pile_lightning.callbacks.tokenizer import SaveTokenizer
from pile_lightning.callbacks.watchdog import Watchdog

__all__ = [
    "DENSE_PEAK_FLOPS",
    "AverageWeights",
    "BestCheckpoint",
    "CheckpointSummary",
    "Continuation",
    "Curves",
    "DeliveredTokens",
    "KeptCheckpoints",
    "LastCheckpoint",
    "MemberRuns",
    "MetricsCsv",
    "Preempted",
    "Preemption",
    "Report",
    "RewindSpikes",
    "Rewound",
    "Samples",
    "SaveTokenizer",
    "SkipNonFinite",
    "StepProgressBar",
    "SweepPicture",
    "Throughput",
    "Watchdog",
    "WritePredictions",
    "compressed_bits_per_byte",
    "continue_text",
    "continue_texts",
    "dense_peak",
    "draw_curves",
    "ranking_table",
    "read_metrics",
    "sweep_curves",
    "sweep_table",
]
