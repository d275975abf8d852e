"""Tables of measured rows: dataclasses as TSV with a header. A long run continues in the table that it left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, TypeVar

from vovcodec.errors import MediaError, UsageError

__all__ = ["Table", "read_rows", "write_rows"]

_Row = TypeVar("_Row")
_READERS = {"str": str, "int": int, "float": float, "bool": lambda cell: cell == "True"}


def write_rows(path: Path, kind: type, rows: Iterable[object]) -> None:
    """Rows of the dataclass `kind` as TSV with a header; empty cells for None. A reader never sees half a table.

    Raises MediaError when the file cannot be written.
    """
    names = [field.name for field in fields(kind)]
    cells = (["" if getattr(row, name) is None else str(getattr(row, name)) for name in names] for row in rows)
    text = "\n".join("\t".join(line) for line in [names, *cells]) + "\n"
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error


def read_rows(path: Path, kind: type[_Row]) -> list[_Row]:
    """The rows that `write_rows` wrote. Raises MediaError for a file that is no such table."""
    types = {field.name: field.type.partition(" | ")[0] for field in fields(kind)}
    try:
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        if header.split("\t") != list(types):
            raise ValueError("other columns")
        return [kind(**_values(types, line.split("\t"))) for line in lines]
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise MediaError(f"{path} is no table of {', '.join(types)} ({error})") from error


def _values(types: dict[str, str], cells: Sequence[str]) -> dict[str, Any]:
    pairs = zip(types.items(), cells, strict=True)
    return {name: _READERS[type_name](cell) if cell else _empty(type_name) for (name, type_name), cell in pairs}


def _empty(type_name: str) -> str | None:
    return "" if type_name == "str" else None


class Table(Generic[_Row]):
    """A table on disk that grows row by row; what is in it already need not be measured again.

    Args:
        path: of the TSV; what is there is read.
        kind: the dataclass of a row.
        same: cells that all rows must share, such as the model's fingerprint.

    Raises MediaError for a file that is no such table, UsageError for one whose rows were measured otherwise.
    """

    def __init__(self, path: Path, kind: type[_Row], **same: str) -> None:
        self._path, self._kind = path, kind
        self.rows: list[_Row] = read_rows(path, kind) if path.exists() else []
        for name, value in same.items():
            for other in {getattr(row, name) for row in self.rows} - {value}:
                raise UsageError(f"{path} holds rows of {name} {other}, now it is {value}: choose another --out")

    def add(self, *rows: _Row) -> None:
        """Append rows and write the file."""
        self.rows += rows
        write_rows(self._path, self._kind, self.rows)

    def having(self, **cells: Any) -> list[_Row]:
        """The rows with these values."""
        return [row for row in self.rows if all(getattr(row, name) == value for name, value in cells.items())]
