"""Figures, and the table and the file they end in."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

CEILINGS = {
    "ceiling_p256_verify_per_s": "P-256",
    "ceiling_sha256_per_s": "SHA-256",
    "ceiling_msgspec_decode_per_s": "decode",
    "ceiling_leveldb_batch_per_s": "LevelDB",
}
"""Key of each ceiling, and the head of the column with the ratios to it."""
WIDTH_PIPED = 150
"""Columns of the table where the output is no terminal."""


class Figure(msgspec.Struct, frozen=True):
    """One measured number.

    Attributes:
        key: name in the JSON object; empty for a figure that is only shown.
        label: what a person reads.
        unit: beside the number; ``/s`` of records has ratios to the ceilings, ``ms`` how many would fit that time.
        target: the floor, or with ``at_most`` the bound, that the project holds itself to.
    """

    key: str
    label: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Tell whether the target, if there is one, is reached."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


def print_table(figures: list[Figure], console: Console) -> None:
    """Print the figures; those of records and of time beside their ratios to the ceilings of the same run."""
    ceilings = {figure.key: figure.value for figure in figures if figure.key in CEILINGS}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    for key, head in CEILINGS.items():
        if key in ceilings:
            table.add_column(f"/ {head}", justify="right", no_wrap=True)
    table.add_column("")
    for figure in figures:
        ratios = [_ratio(figure, ceilings[key]) for key in CEILINGS if key in ceilings]
        table.add_row(figure.label, _number(figure), _target(figure), *ratios, figure.note)
    console.print(table)


def write_json(figures: list[Figure], path: Path) -> None:
    """Write one flat object with the figures that have a key."""
    values = {figure.key: round(figure.value, 3) for figure in figures if figure.key}
    path.write_text(json.dumps(values, indent=2) + "\n")


def _number(figure: Figure) -> str:
    digits = 0 if abs(figure.value) >= 100 else 2
    return f"{figure.value:,.{digits}f} {figure.unit}".replace(" /s", "/s")


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    sign = "<=" if figure.at_most else ">="
    color = "green" if figure.is_met else "red"
    return f"[{color}]{sign} {figure.target:,g}[/]"


def _ratio(figure: Figure, ceiling: float) -> str:
    if figure.unit == "ms":
        return f"{figure.value * ceiling / 1000:.3g}"
    if not figure.key.endswith("_records_per_s") or not ceiling:
        return ""
    return f"{figure.value / ceiling:.3g}"
