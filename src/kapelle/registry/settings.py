"""Settings of the registry."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Where the registry lives and how often it is asked for changes."""

    url: str = ""
    """`sqlite:///path` or `postgresql://user@host/name`; empty: `registry.db` in the data
    directory. Belongs into the environment where it holds a password."""
    poll_s: float = 0.5
    """How often changes made by other processes are looked for. [s]"""
    page_rows: int = 4096
    """Devices read at once, and the most in one journal entry."""

    def database_url(self, data: Path) -> str:
        """Return the URL in force for a data directory."""
        if self.url:
            return self.url
        # Costly to import. It escapes what would end a path: `?`, `#`, a percent sign.
        from sqlalchemy.engine import URL

        return URL.create("sqlite", database=str(data / "registry.db")).render_as_string()
