"""What a plan prints: one function a paragraph."""

from pile_lightning.callbacks.text_table import percent, short, table
from pile_lightning.cli.plan_figures import Figures
from pile_lightning.parallel import Layout
from pile_lightning.plan import RankMemory

__all__ = [
    "memory_lines",
    "parameter_lines",
    "recompute_lines",
    "size",
    "speed_lines",
    "step_lines",
    "traffic_lines",
]


def size(num_bytes: float) -> str:
    """Write bytes in at most three digits.

    Example:
        >>> size(123_456_789), size(12e9), size(900)
        ('123 MB', '12 GB', '900 B')
    """
    text = short(num_bytes)
    amount, _, letter = text.partition(" ")
    return f"{amount} {'G' if letter == 'B' else letter}B"


def parameter_lines(figures: Figures) -> list[str]:
    """Return how many parameters there are, and what they cost."""
    counts = figures.counts
    kinds = {
        "matrices": counts.matrices,
        "embeddings and head": counts.tables,
        "look-up tables": counts.lookups,
        "gains and biases": counts.vectors,
        "not trained": counts.frozen,
    }
    listed = ", ".join(f"{short(count)} in {name}" for name, count in kinds.items() if count)
    rule = "" if figures.flops_are_counted else " (assumed: six a parameter that is multiplied)"
    return [
        f"Parameters: {short(counts.total)}: {listed}; {short(counts.without_tables)} without "
        f"tables.",
        f"Cost: {figures.flops_per_token:.3g} FLOPs a token, forward and backward{rule}.",
    ]


def step_lines(figures: Figures) -> list[str]:
    """Return what a step and the run amount to."""
    run = figures.run
    rows, layout = run.rows(run.layout), run.layout
    accumulated = f", {run.accumulate} times" if run.accumulate > 1 else ""
    lines = [
        f"A step: {run.data.batch_size:,} rows of {run.data.seq_len:,}, {short(run.tokens)} "
        f"tokens, {run.tokens * figures.flops_per_token:.3g} FLOPs; {rows:,} rows at a time "
        f"on {_ranks(layout.num_row_ranks)}{accumulated}.",
    ]
    if run.max_steps < 1:
        return [*lines, "The run: trainer.max_steps is not set, so there is no end to count to."]
    tokens = run.max_steps * run.tokens
    return [
        *lines,
        f"The run: {run.max_steps:,} steps, {short(tokens)} tokens, "
        f"{tokens * figures.flops_per_token:.3g} FLOPs, "
        f"{tokens / max(1, figures.counts.total):.3g} tokens a parameter.",
    ]


def memory_lines(figures: Figures) -> list[str]:
    """Return the bytes of a rank at the peak, by layout."""
    run = figures.run
    header = ["GB", "weights", "gradi-\nents", "opti-\nmizer", "gath-\nered", "activ-\nations"]
    header += ["logits,\nloss", "other", "peak", ""]
    rows = []
    for layout in figures.layouts:
        memory = figures.memory(layout)
        parts = [_gb(part) for part in memory.parts.values()]
        rows.append([_name(figures, layout), *parts, _gb(memory.peak), _verdict(figures, memory)])
    told = [
        f"Memory of a rank at the peak of a step, {run.precision.name}, activation checkpointing "
        f"{run.checkpointing}, {run.rows(run.layout):,} rows at a time."
    ]
    if run.gpu is not None:
        told.append(f"The {run.gpu.name} has {size(run.gpu.memory)}; torch.compile needs less.")
    return [*told, *table(header, rows)]


def recompute_lines(figures: Figures) -> list[str]:
    """Return the peaks under each kind of activation checkpointing."""
    if len(figures.kinds) == 1:
        return []
    header = ["peak, GB", *figures.kinds]
    rows = [
        [
            _name(figures, layout),
            *(_gb(figures.memory(layout, kind).peak) for kind in figures.kinds),
        ]
        for layout in figures.layouts
    ]
    return ["The peak by activation checkpointing:", *table(header, rows)]


def traffic_lines(figures: Figures) -> list[str]:
    """Return what a rank sends in a step, by layout."""
    run = figures.run
    header = ["bytes sent", "weights", "gradients", "of replicas", "activations"]
    columns = ["weights", "gradients", "gradients of replicas", "activations"]
    header += [] if run.gpu is None else ["seconds"]
    rows = []
    for layout in figures.layouts:
        sent = {each.name: each for each in figures.transfers(layout)}
        if not sent:
            continue
        cells = [size(sent[name].sent) if name in sent else "" for name in columns]
        if run.gpu is not None:
            seconds = sum(
                each.seconds(run.gpu, ranks_per_node=run.ranks_per_node) for each in sent.values()
            )
            cells.append(f"{seconds:.3g}")
        rows.append([_name(figures, layout), *cells])
    return ["What a rank sends in a step:", *table(header, rows)] if rows else []


def speed_lines(figures: Figures) -> list[str]:
    """Return how fast the run could be, and what that assumes."""
    run = figures.run
    if run.gpu is None:
        return ["Speed: name a GPU for an estimate, such as --gpu h100 --gpus 8."]
    header = ["estimate", "tokens/s", "MFU", "whole run"]
    rows = []
    for layout in figures.layouts:
        speed = figures.speed(layout)
        if speed is None or not figures.fits(figures.memory(layout)):
            continue
        slow, fast = speed.tokens_per_second[::-1]
        rows.append(
            [
                _name(figures, layout),
                _range(short(slow), short(fast)),
                _range(percent(speed.mfu[1]), percent(speed.mfu[0])),
                _range(*(_duration(s * run.max_steps) for s in speed.seconds)),
            ]
        )
    assumed = (
        f"An estimate, not a measurement. Assumed: {run.gpu.name}, {run.gpu.peak / 1e12:.0f} "
        f"TFLOP/s dense 16-bit peak, {percent(figures.efficiency)} of which are reached where "
        f"nothing is sent (--efficiency)"
    )
    if run.layout.num_ranks == 1:
        told = [f"{assumed}."]
    else:
        told = [
            f"{assumed}, {run.gpu.node_rate / 1e9:.0f} GB/s between GPUs of a node of "
            f"{run.ranks_per_node}, {run.gpu.network_rate * 8 / 1e9:.0f} Gb/s a GPU between nodes. "
            f"Two bounds: all communication is hidden behind computing that can be, and none is."
        ]
    if not rows:
        return [*told, "No layout fits the GPU's memory."]
    return [*told, *table(header, rows)]


def _name(figures: Figures, layout: Layout) -> str:
    return f"* {layout.name}" if layout == figures.run.layout else f"  {layout.name}"


def _gb(num_bytes: float) -> str:
    number = num_bytes / 1e9
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.001 else "0"


def _ranks(number: int) -> str:
    return "one rank" if number == 1 else f"each of {number:,} ranks"


def _verdict(figures: Figures, memory: RankMemory) -> str:
    if figures.run.gpu is None:
        return ""
    return "fits" if figures.fits(memory) else "no"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it.

    Example:
        >>> _duration(30), _duration(5400), _duration(10**6)
        ('30 s', '1.5 h', '11.6 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length or (unit == "h" and seconds >= length):
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
