"""jens-check: validates definitions and library in a work tree, and prints problems with file and line."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from jens.commands.arguments import argument_parser, parse_arguments
from jens.commands.exitcodes import OK
from jens.commands.runner import load, run_tool
from jens.config import Config, load_config
from jens.git.remotes import Remotes
from jens.git.workers import affordable, questions
from jens.git.wrapper import GitOptions
from jens.model import Branch
from jens.names import is_branch_name
from jens.text import one_line
from jens.tools.check import ERROR, CheckedDefinition, Finding, Site, check_definitions, check_library
from jens.tools.check_remotes import check_remotes

#: The exit status when there are errors in the metadata.
FAULTY = 1


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of ``jens-check``."""
    parser = _parser()
    arguments = parse_arguments(parser, argv)
    if arguments.environments is None and arguments.repositories is None:
        parser.error("expected --environments, --repositories, or both")
    if arguments.remote and arguments.repositories is None:
        parser.error("--remote needs --repositories, which has the URLs of the remotes")
    return run_tool(lambda: _main(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Check the definitions of environments, and the library of repositories, as they lie in a work tree: before "
        "they are pushed, or in the CI of the metadata repositories. Each problem is a line, 'FILE:LINE: error: TEXT' "
        "or 'FILE:LINE: warning: TEXT'; when all is well, nothing is printed. The exit status is 1 when there is an "
        "error, else 0.",
        with_config=False,
    )
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="configuration file of the site, for hashprefix, mandatorybranches, directory_environments and [git]; "
        "without it their defaults count, and no branch is mandatory",
    )
    parser.add_argument(
        "--mandatory-branches",
        metavar="LIST",
        type=_branches,
        help="branches that every repository must have, separated by commas, instead of those in the configuration",
    )
    parser.add_argument("--environments", metavar="DIR", type=Path, help="check the definitions, NAME.yaml, in DIR")
    parser.add_argument("--repositories", metavar="FILE", type=Path, help="check the library, repositories.yaml")
    parser.add_argument(
        "--remote",
        action="store_true",
        help="ask the remotes of the library, too, whether each branch and each commit exists",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list of objects instead of lines")
    return parser


def _branches(text: str) -> tuple[Branch, ...]:
    branches = tuple(part.strip() for part in text.split(",") if part.strip())
    for branch in branches:
        if not is_branch_name(branch):
            raise argparse.ArgumentTypeError(f"{one_line(branch)!r} is no branch name that Git accepts")
    return tuple(map(Branch, branches))


def _main(arguments: argparse.Namespace) -> int:
    config = _config(arguments.config)
    findings = sorted(_findings(arguments, config))
    if arguments.json:
        print(json.dumps([asdict(found) for found in findings], indent=1, sort_keys=True))
    else:
        for found in findings:
            print(f"{one_line(found.file)}:{found.line}: {found.level}: {found.text}")
    return FAULTY if any(found.level == ERROR for found in findings) else OK


def _config(path: Path | None) -> Config:
    """The configuration of the site, the defaults without a path."""
    return load(path) if path else load_config(Path(os.devnull))


def _findings(arguments: argparse.Namespace, config: Config) -> list[Finding]:
    site = Site.of(config, is_default=arguments.config is None)
    if arguments.mandatory_branches is not None:
        site = replace(site, mandatory=arguments.mandatory_branches)
    library = check_library(arguments.repositories, site) if arguments.repositories else None
    definitions: list[CheckedDefinition] = []
    found: list[Finding] = []
    if arguments.environments:
        known = library.library if library else None
        definitions, found = check_definitions(arguments.environments, known, site)
        found += (one for checked in definitions for one in checked.findings)
    if library:
        found += library.findings
    if library and arguments.remote:
        git = config.git
        options = GitOptions(git.ssh_cmd_path, git.timeout, git.clonetimeout, share=git.share_connections)
        with Remotes(options, affordable(git.jobs), questions(git.jobs)) as remotes:
            found += check_remotes(library, definitions, site, remotes, git.jobs)
    return found
