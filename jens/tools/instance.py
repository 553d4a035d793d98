"""Makes a private instance of Jens in one directory, for an ordinary user or for trying things out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configobj import ConfigObj

from jens import urls
from jens.errors import DirectoryError, GitError, MetadataError
from jens.git import clones, creation
from jens.git.wrapper import GitOptions
from jens.system import files

#: The directory of the example repositories in the tutorial and in the shipped library.
EXAMPLE_REPOSITORIES = "/tmp/example-repositories"

_DIRECTORIES = {
    "baredir": "bare",
    "clonedir": "clone",
    "cachedir": "cache",
    "environmentsdir": "environments",
    "logdir": "log",
}
_SHIPPED = Path("share", "doc", "puppet-jens", "examples")


def lay_out(directory: Path, environments: str, repositories: str) -> Path:
    """Make an instance that uses two metadata repositories. Returns its configuration file.

    Raises DirectoryError unless the directory is empty or can be made, and MetadataError when a clone fails. Nothing is
    left of an instance that failed.
    """
    with _prepared(directory) as place:
        return _fill(place, environments, repositories)


def lay_out_example(directory: Path) -> Path:
    """Make an instance that uses its own copies of the example repositories. Returns its configuration file."""
    examples = find_examples()
    with _prepared(directory) as place:
        made = _make_example_repositories(examples, place / "example-repositories")
        return _fill(place, str(made / "environments"), str(made / "repositories"))


def find_examples() -> Path:
    """The directory of the shipped examples, beside the package or in an installation. Raises DirectoryError."""
    beside = Path(__file__).resolve().parents[2] / "examples"
    installed = [Path(prefix) / _SHIPPED for prefix in (sys.prefix, "/usr/local", "/usr")]
    for path in (beside, *installed):
        if (path / "example-repositories").is_dir():
            return path
    raise DirectoryError("examples", installed[0], "does not exist, the examples are not installed")


@contextmanager
def _prepared(directory: Path) -> Iterator[Path]:
    """Give an empty directory to the block. When the block fails, the directory is as before."""
    place = Path(os.path.abspath(directory))
    was_there = os.path.lexists(place)
    try:
        files.make_directory(place)
        if os.listdir(place):
            raise DirectoryError("directory", place, "is not empty, expected a new or an empty one")
    except OSError as error:
        raise DirectoryError("directory", place, f"cannot be used: {error.strerror}") from error
    try:
        yield place
    except BaseException:
        for name in os.listdir(place):
            files.remove_tree(place / name)
        if not was_there:
            place.rmdir()
        raise


def _fill(directory: Path, environments: str, repositories: str) -> Path:
    for name in (*_DIRECTORIES.values(), "lock", "spool", "metadata"):
        files.make_directory(directory / name)
    metadata = directory / "metadata"
    for url, clone in ((environments, metadata / "environments"), (repositories, metadata / "repository")):
        try:
            clones.clone_metadata(_absolute(url), clone, GitOptions())
        except GitError as error:
            raise MetadataError(clone, f"{urls.redact(url)}: {error.problem}", "cloned") from error
    path = directory / "main.conf"
    files.write_file(path, "\n".join([*_configuration(directory).write(), ""]).encode())
    return path


def _absolute(url: str) -> str:
    return os.path.abspath(url) if urls.url_problem(url) and os.path.isdir(url) else url


def _configuration(directory: Path) -> ConfigObj:
    metadata = directory / "metadata"
    config = ConfigObj(interpolation=False)
    config.initial_comment = [f"# A private instance of Jens: jens-update -c {directory}/main.conf", ""]
    config["main"] = {
        **{key: str(directory / name) for key, name in _DIRECTORIES.items()},
        "environmentsmetadatadir": str(metadata / "environments"),
        "repositorymetadatadir": str(metadata / "repository"),
        "repositorymetadata": str(metadata / "repository" / "repositories.yaml"),
        "mandatorybranches": ["master"],
        "protectedenvironments": ["production", "qa"],
        "directory_environments": "True",
        "common_hieradata_items": ["environments", "hardware", "operatingsystems", "common.yaml"],
    }
    config["main"].comments["mandatorybranches"] = ["", "# Branches that every repository must have."]
    config["main"].comments["protectedenvironments"] = ["# Environments that are never deleted."]
    config["main"].comments["directory_environments"] = ["# Puppet 4 and later need it."]
    config["filelock"] = {"lockdir": str(directory / "lock")}
    config["messaging"] = {"queuedir": str(directory / "spool")}
    config.comments["filelock"] = config.comments["messaging"] = [""]
    return config


def _make_example_repositories(examples: Path, directory: Path) -> Path:
    shutil.copytree(examples / "example-repositories", directory)
    for name in ("environments", "repositories"):
        shutil.copytree(examples / name, directory / name)
    library = directory / "repositories" / "repositories.yaml"
    library.write_text(library.read_text("utf-8").replace(EXAMPLE_REPOSITORIES, str(directory)), "utf-8")
    for repository in sorted(directory.iterdir()):
        try:
            creation.make_repository(repository, "Begin with the example")
        except GitError as error:
            raise MetadataError(repository, str(error), "made") from error
    return directory
