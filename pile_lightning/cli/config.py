"""``pile config``: list the configs that the package ships, print one, or copy it."""

from pathlib import Path

from pile_lightning.cli.short_errors import ShortErrorParser
from pile_lightning.shipped_configs import FOLDER, config_names, find_config
from pile_lightning.whole_file import write_file

__all__ = ["config_parser", "show_config"]


def config_parser() -> ShortErrorParser:
    """Return the parser of the command."""
    parser = ShortErrorParser(
        description="List the configs that the package ships, print one, or copy it."
    )
    parser.add_argument("name", type=str, nargs="?", help="A config, such as quickstart.")
    parser.add_argument("--output", type=str | None, help="File to copy it to; else the screen.")
    parser.add_argument("--json", action="store_true", help="Print the list as JSON.")
    return parser


def show_config(name: str | None = None, *, output: str | None = None, json: bool = False) -> None:
    """List the configs that the package ships, print one, or copy it.

    Args:
        name: A shipped config, such as quickstart; without it all are listed.
        output: The file to copy it to; the screen by default.
        json: Print the list as JSON.

    Raises:
        FileNotFoundError: If there is no such config.
        FileExistsError: If ``output`` exists.
        ValueError: For an output without a name.
    """
    if name is None:
        if output is not None:
            raise ValueError(
                f"output={output!r} is for one config; name it: pile config quickstart"
            )
        _list(json)
        return
    text = find_config(name).read_text(encoding="utf-8")
    if output is None:
        print(text, end="")
        return
    if Path(output).exists():
        raise FileExistsError(f"{output} exists; give another name, or remove it first")
    write_file(output, text)
    print(f"{output} is a copy of {name}.\n\nNext:\n  pile fit --config {output}")


def _list(as_json: bool) -> None:
    about = {name: _first_sentence(FOLDER / f"{name}.yaml") for name in config_names()}
    if as_json:
        import json

        print(json.dumps(about, indent=2))
        return
    width = max(map(len, about))
    for name, line in about.items():
        print(f"  {name:{width}}  {line}")
    print("\nNext:\n  pile fit --config quickstart\n  pile config quickstart --output my.yaml")


def _first_sentence(path: Path) -> str:
    """Return the first sentence of the comment that a config opens with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    text = " ".join(lines).split(". ")[0].split(": ")[0].rstrip(".:")
    return text if len(text) <= 90 else f"{text[:87]}..."
