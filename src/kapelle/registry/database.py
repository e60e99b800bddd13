"""The database of the registry: connections, transactions, and errors that say where."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kapelle.errors import RegistryUnavailable
from kapelle.registry import outbox, schema


class Database:
    """An open database whose tables are up to date."""

    def __init__(self, url: str, partitions: int | None = None) -> None:
        """Open the database, bring its tables up to date, make the plant if there is none.

        Args:
            url: `sqlite:///path`, `sqlite://` (in memory) or `postgresql://user@host/name`.
            partitions: Of a new plant; an existing one must have as many. None: as it has.

        Raises:
            Invalid: Unusable URL, newer schema, or other partitions.
            RegistryUnavailable: The database cannot be reached.
        """
        self._engine = schema.connect(url)
        self.url = self._engine.url.render_as_string(hide_password=True)
        try:
            with self._translated():
                self.partitions = schema.prepare(self._engine, partitions)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _change(self) -> Iterator[tuple[Connection, int]]:
        """Lock the plant, so that one change at a time is made, and yield its revision."""
        with self._writing() as connection:
            yield connection, outbox.lock_revision(connection)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as plain:
            connection = plain.execution_options(kapelle_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise RegistryUnavailable(f"registry {self.url}: {cause}") from error
        except DatabaseError as error:
            # SQLite's word for a file that is damaged or something else; the classes derived
            # from it mean a mistake of ours.
            if type(error) is not DatabaseError:
                raise
            raise RegistryUnavailable(f"registry {self.url}: {error.orig}") from error
