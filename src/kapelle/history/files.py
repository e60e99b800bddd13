"""What the record does to the disk, one durable step each: the place where tests cut the power."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


class Files:
    """Steps on the file system. Each returns when what it did survives a power cut."""

    def make(self, directory: Path) -> None:
        """Make a directory and what it lies in."""
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            self.sync(made.parent)

    def open(self, path: Path, schema: pa.Schema, **options: object) -> pq.ParquetWriter:
        """Begin a file."""
        return pq.ParquetWriter(path, schema, **options)

    def write(self, writer: pq.ParquetWriter, rows: pa.Table) -> None:
        """Add a row group."""
        writer.write_table(rows, row_group_size=len(rows))

    def finish(self, writer: pq.ParquetWriter, path: Path) -> int:
        """End a file, make it durable and return its size. [bytes]"""
        writer.close()
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def rename(self, draft: Path, final: Path) -> None:
        """Give a finished file its name; durable only with `sync` of its directory."""
        draft.replace(final)

    def sync(self, directory: Path) -> None:
        """Make names in a directory durable."""
        file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)
