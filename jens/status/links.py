"""Addresses of pages, as pages link to them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from jens import __version__
from jens.names import is_environment_name, parse_repository

#: An address with such an end asks for a format.
_FORMATS = (".json", ".html")


class Links:
    """Addresses below the place where the application is; '' where there is no page."""

    def __init__(self, root: str) -> None:
        self.root = root

    def page(self, name: str = "", **arguments: object) -> str:
        """A page with arguments; those that are None or '' are left out."""
        asked = urlencode({key: str(value) for key, value in arguments.items() if value not in (None, "")})
        return f"{self.root}/{name}{f'?{asked}' if asked else ''}"

    def json(self, path: str, arguments: Mapping[str, str]) -> str:
        """The page at a path of the application, as JSON."""
        return self.page(f"{quote(path.strip('/')) or 'index'}.json", **arguments)

    def environment(self, name: str | None, **arguments: object) -> str:
        """An environment's page."""
        return self.page(f"environments/{name}", **arguments) if name and is_environment_name(name) else ""

    def repository(self, name: str | None) -> str:
        """A repository's page."""
        try:
            parse_repository(name or "")
        except ValueError:
            return ""
        return self.page(f"repositories/{name}{'.html' if (name or '').endswith(_FORMATS) else ''}")

    def commit(self, commit: str) -> str:
        """A commit's page."""
        return self.page(f"commits/{quote(commit)}")

    def deployment(self, number: int, **arguments: object) -> str:
        """A deployment's page."""
        return self.page(f"history/{number}", **arguments)

    def history(self, **arguments: object) -> str:
        """The history, or what of it is asked for."""
        return self.page("history", **arguments)

    def static(self, name: str) -> str:
        """A file of the application; after an upgrade, browsers ask for it anew."""
        return self.page(f"static/{name}", v=__version__)
