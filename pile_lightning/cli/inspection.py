"""``pile inspect``: what the model will see, in numbers, as text and as a picture."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pile_lightning.callbacks.text_table import percent, short, table
from pile_lightning.cli.data_config import (
    DataParser,
    add_data_arguments,
    make_data,
    training_command,
)
from pile_lightning.cli.prepare import prepare_if_missing
from pile_lightning.cli.screen import say
from pile_lightning.cli.show_rows import show_row
from pile_lightning.cli.survey_picture import draw_survey
from pile_lightning.data import StreamedText, TextData
from pile_lightning.data.survey import DomainSurvey, Survey, survey
from pile_lightning.data.token_stream import StreamCounts

__all__ = ["inspect", "inspect_parser"]

Data = TextData | StreamedText
Shares = Mapping[str, float]
_QUANTILES = {"10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99}
_OWN = ("picture", "rows", "read_mb")


def inspect_parser() -> DataParser:
    """Return the parser of the command."""
    parser = DataParser(
        description="Show what the model of a run will see: domains and their shares, document "
        "lengths, what is lost and skipped, epochs, rows as text, and a picture. Give the config "
        "and the --data arguments of train.py."
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--picture", type=str | None, help="PNG to draw; data.png in the run's folder by default."
    )
    parser.add_argument("--rows", type=int, default=3, help="Rows to show as text.")
    parser.add_argument("--read_mb", type=float, default=4.0, help="Megabytes of a stream to read.")
    return parser


def inspect(parser: DataParser, settings: Namespace, arguments: Sequence[str]) -> None:
    """Show what there is, and what the run makes of it.

    Args:
        parser: The parser of the command.
        settings: What it parsed.
        arguments: The arguments as they were given.

    Raises:
        ValueError: For a number out of its range.
    """
    if settings.rows < 0 or not settings.read_mb > 0:
        raise ValueError(
            f"rows={settings.rows} and read_mb={settings.read_mb} say how much to show and to "
            f"read; choose 0 or more rows and more than 0 megabytes"
        )
    data = make_data(parser, settings)
    data.num_workers = 0  # a batch is all that is read here
    prepare_if_missing(data)
    data.setup("fit")
    found = survey(data, read_bytes=int(settings.read_mb * 1e6))
    shares = mixture_shares(data)
    max_steps = settings.trainer.max_steps
    for lines in (
        [f"Tokenizer {data.tokenizer_spec}: {data.vocab_size:,} ids."],
        domain_lines(found, shares),
        length_lines(found, data.seq_len),
        loss_lines(found),
        run_lines(data, max_steps),
        row_lines(data, settings.rows),
    ):
        if lines:
            say("\n" + "\n".join(lines))
    picture = Path(settings.picture or Path(settings.trainer.default_root_dir, "data.png"))
    draw_survey(found, picture, seq_len=data.seq_len, shares=shares)
    say(f"\n{picture} shows lengths and shares.\n\nNext:")
    say(f"  {training_command(arguments, without=_OWN)}")


def mixture_shares(data: Data) -> Shares | None:
    """Return the shares that training starts with, None where rows are one shuffled whole."""
    if data.mixture is None:
        return None
    return dict(zip(data.train_domains, data.mixture.stages[0].shares, strict=True))


def domain_lines(found: Survey, shares: Shares | None) -> list[str]:
    """Return a table of how much text each domain has."""
    header = ["domain", "documents", "MB", "tokens", "natural\nshare", "mixture\nshare"]
    header += ["bytes a\ntoken", "held out\ndocuments", "held out\nMB"]
    several = len(found.domains) > 1
    rows = [
        [
            name,
            *_counted(domain.train),
            "" if domain.natural is None or not several else percent(domain.natural),
            "" if shares is None or not several else percent(shares.get(name, 0)),
            _bytes_a_token(domain.train),
            *_counted(domain.held_out)[:2],
        ]
        for name, domain in found.domains.items()
    ]
    if several:
        train = found.train
        total = ["all", *_counted(train), "", "", _bytes_a_token(train)]
        rows.append([*total, *_counted(found.held_out)[:2]])
    title = "Text to train on, and held out:"
    if found.read is not None:
        title = (
            f"Text to train on, of {found.read.num_bytes / 1e6:,.1f} MB read from all over the "
            f"sources, and held out:"
        )
    return [title, *table(header, rows)]


def length_lines(found: Survey, seq_len: int) -> list[str]:
    """Return a table of how long documents are."""
    header = ["domain", *_QUANTILES, "longest", f"longer than\nseq_len={seq_len}", "of all"]
    domains = {name: domain for name, domain in found.domains.items() if len(domain.lengths)}
    rows = [[name, *_lengths(domain, seq_len)] for name, domain in domains.items()]
    return ["Tokens of a document:", *table(header, rows)]


def loss_lines(found: Survey) -> list[str]:
    """Return what the model does not see."""
    lines = []
    if found.padding is not None:
        lines.append(f"Padding: {percent(found.padding)} of the rows, which hold whole documents.")
    elif found.num_dropped is not None:
        share = found.num_dropped / max(1, found.train.tokens)
        lines.append(
            f"Lost: {found.num_dropped:,} tokens ({percent(share)}) at the ends of domains fill "
            f"no row."
        )
    skipped = ", ".join(f"{count:,} x {reason}" for reason, count in found.skipped.items())
    lines.append(f"Skipped: {skipped or 'no record'}.")
    return lines


def run_lines(data: Data, max_steps: int) -> list[str]:
    """Return what a run of so many steps takes of each domain."""
    if max_steps < 0:
        return ["trainer.max_steps is not set, so there is no end to count epochs to."]
    num_rows = max_steps * data.batch_size
    limit = None if data.mixture is None else data.mixture.num_rows
    lines = []
    if limit is not None and num_rows > limit:
        num_rows = limit
        lines.append(
            f"mixture.max_epochs ends the text after {limit // data.batch_size} steps: set "
            f"trainer.max_steps to that, or raise max_epochs."
        )
    expected = expected_tokens(data, num_rows)
    tokens = max(1, sum(count for count, _ in expected.values()))
    later = [] if data.mixture is None else data.mixture.stages[1:]
    header = ["domain", "tokens", "share", "epochs"]
    header += [f"share after\n{short(stage.start * data.seq_len)}" for stage in later]
    rows = [
        [
            name,
            short(count),
            percent(count / tokens),
            "" if epochs is None else f"{epochs:.2f}",
            *(percent(stage.shares[number]) for stage in later),
        ]
        for number, (name, (count, epochs)) in enumerate(expected.items())
    ]
    lines.append(
        f"In {num_rows // data.batch_size:,} steps of {data.batch_size} rows of {data.seq_len}, "
        f"{short(tokens)} tokens, the model sees:"
    )
    return lines + table(header, rows)


def expected_tokens(data: Data, num_rows: int) -> dict[str, tuple[int, float | None]]:
    """Return tokens and epochs by domain; of one shuffled whole the mean, which costs nothing."""
    if isinstance(data, StreamedText) or data.mixture is not None:
        return data.delivered(num_rows)
    rows = data.training_rows
    epochs = num_rows / rows.num_rows
    tokens = rows.tokens_of(rows.rows_by_domain * epochs).tolist()
    return {name: (count, epochs) for name, count in zip(data.domains, tokens, strict=True)}


def row_lines(data: Data, num_rows: int) -> list[str]:
    """Return the first rows of training as text."""
    if not num_rows:
        return []
    lines = ["The first rows of training:"]
    shown = 0
    for batch in data.train_dataloader():
        for row in range(min(len(batch["input_ids"]), num_rows - shown)):
            domain = data.train_domains[int(batch["domain"][row])]
            lines += ["", f"row {shown}, {domain}"]
            lines += show_row(batch, row, tokenizer=data.tokenizer)
            shown += 1
        if shown == num_rows:
            break
    return lines


def _counted(counts: StreamCounts) -> list[str]:
    if not counts.documents:
        return ["", "", ""]
    return [f"{counts.documents:,}", _megabytes(counts.num_bytes), short(counts.tokens)]


def _megabytes(num_bytes: int) -> str:
    size = num_bytes / 1e6
    return f"{size:,.2f}" if size < 100 else f"{size:,.0f}"


def _bytes_a_token(counts: StreamCounts) -> str:
    text_tokens = counts.tokens - counts.documents
    return f"{counts.num_bytes / text_tokens:.2f}" if text_tokens else ""


def _lengths(domain: DomainSurvey, seq_len: int) -> list[str]:
    lengths = domain.lengths
    longer = int((lengths > seq_len).sum())
    quantiles = np.quantile(lengths, list(_QUANTILES.values()), method="inverted_cdf")
    counts = [f"{count:,}" for count in [*quantiles.tolist(), int(lengths.max()), longer]]
    return [*counts, percent(longer / len(lengths))]
