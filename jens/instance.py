"""A private instance of Jens in one directory, for trying things out and for running as an ordinary user."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from configobj import ConfigObj

from jens import files, gitwrapper, names
from jens.errors import DirectoryError, GitError, MetadataError
from jens.gitwrapper import GitOptions

#: Where the tutorial says that the example repositories are.
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
    """Make an instance around two metadata repositories; returns its configuration file.

    Raises DirectoryError unless the directory is empty or can be made, MetadataError when a clone fails. Then
    nothing of the instance is left.
    """
    directory = _prepare(directory)
    try:
        return _fill(directory, environments, repositories)
    except BaseException:
        _empty(directory)
        raise


def lay_out_example(directory: Path) -> Path:
    """Make an instance around example repositories of its own; returns its configuration file."""
    examples = find_examples()
    directory = _prepare(directory)
    try:
        made = _make_example_repositories(examples, directory / "example-repositories")
        return _fill(directory, str(made / "environments"), str(made / "repositories"))
    except BaseException:
        _empty(directory)
        raise


def find_examples() -> Path:
    """The shipped examples, beside the package or where an installation puts them. Raises DirectoryError."""
    beside = Path(__file__).resolve().parent.parent / "examples"
    installed = [Path(prefix) / _SHIPPED for prefix in (sys.prefix, "/usr/local", "/usr")]
    for path in (beside, *installed):
        if (path / "example-repositories").is_dir():
            return path
    raise DirectoryError("examples", installed[0], "does not exist, the examples are not installed")


def _prepare(directory: Path) -> Path:
    directory = Path(os.path.abspath(directory))
    try:
        files.make_directory(directory)
        if os.listdir(directory):
            raise DirectoryError("directory", directory, "is not empty, expected a new or an empty one")
    except OSError as error:
        raise DirectoryError("directory", directory, f"cannot be used: {error.strerror}") from error
    return directory


def _empty(directory: Path) -> None:
    for name in os.listdir(directory):
        files.remove_tree(directory / name)


def _fill(directory: Path, environments: str, repositories: str) -> Path:
    for name in (*_DIRECTORIES.values(), "lock", "spool", "metadata"):
        files.make_directory(directory / name)
    metadata = directory / "metadata"
    for url, clone in ((environments, metadata / "environments"), (repositories, metadata / "repository")):
        try:
            gitwrapper.clone_work_tree(_absolute(url), clone, GitOptions())
        except GitError as error:
            raise MetadataError(clone, f"'{names.redact(url)}' cannot be cloned: {error.problem}") from error
    path = directory / "main.conf"
    files.write_file(path, "\n".join([*_configuration(directory).write(), ""]).encode())
    return path


def _absolute(url: str) -> str:
    return os.path.abspath(url) if names.url_problem(url) and os.path.isdir(url) else url


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
        "directory_environments": "True",
        "common_hieradata_items": ["environments", "hardware", "operatingsystems", "common.yaml"],
    }
    config["main"].comments["mandatorybranches"] = ["", "# Branches that every repository must have."]
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
            gitwrapper.make_repository(repository, "Begin with the example")
        except GitError as error:
            raise MetadataError(repository, str(error)) from error
    return directory
