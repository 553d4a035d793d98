"""jens-config: prints one value of the configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import DIRECTORY, OK
from jens.commands.runner import complain, load, run_tool
from jens.config import KEYS, Config
from jens.text import one_line

#: The same number as for a missing directory. Scripts rely on it.
_NO_SUCH_KEY = DIRECTORY


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-config``."""
    parser = argument_parser(
        "Print one value of the configuration, as the other tools have it: the default where the file leaves it out."
    )
    parser.add_argument("-k", "--key", required=True, help="the key, for example clonedir")
    parser.add_argument("-s", "--section", default="main", help="its section (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the value as a JSON document")
    arguments = parse_arguments(parser, argv)
    return run_tool(lambda: _main(arguments.config, arguments.section, arguments.key, as_json=arguments.json))


def _main(path: Path, section: str, key: str, *, as_json: bool) -> int:
    config = load(path)
    if (section, key) not in KEYS:
        return complain(f"there is no key '{key}' in section [{section}]", _NO_SUCH_KEY)
    found = value(config, section, key)
    print(json.dumps(found, indent=1, sort_keys=True) if as_json else one_line(text(found)))
    return OK


def value(config: Config, section: str, key: str) -> object:
    """A value of the configuration as a JSON type: text, number, boolean or list; None when it is not set."""
    found: object = getattr(getattr(config, section), key)
    if isinstance(found, Path):
        return str(found)
    if isinstance(found, tuple):
        return list(found)
    return None if found == "" else found


def text(found: object) -> str:
    """A value as text, lists with commas, '' when it is not set."""
    if isinstance(found, list):
        return ",".join(map(str, found))
    return "" if found is None else str(found)
