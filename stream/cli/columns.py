"""Tables as lines of text, as wide as they are: they can be cut by other programs, whatever the terminal."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """One line per row, cells padded to the widest of their column. All rows have equally many cells."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
