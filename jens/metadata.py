"""From the two metadata clones to a Library and Definitions: refreshed, read from the commit, checked."""

from __future__ import annotations

from dataclasses import dataclass

from jens import gitwrapper, names, yamldoc
from jens.config import Config
from jens.errors import DirectoryError, GitError, LibraryError, MetadataError
from jens.gitwrapper import GitOptions
from jens.model import PARSERS, PARTITIONS, Branch, Declared, Definition, IllFormed, Library, Ref, RepoId
from jens.yamldoc import Node, YamlError

_DEFINITION_KEYS = ("default", "notifications", "overrides", "parser")
_SUFFIX = ".yaml"


@dataclass(frozen=True)
class Snapshot:
    """The commits of both metadata repositories that a run works from."""

    environments: str
    repositories: str


def refresh(config: Config, options: GitOptions, *, reset: bool = True) -> Snapshot:
    """Fetch both clones and reset them to what they track; without ``reset`` the work trees stay.

    Raises MetadataError.
    """
    main = config.main
    commits = []
    for directory in (main.environmentsmetadatadir, main.repositorymetadatadir):
        try:
            commits.append(gitwrapper.refresh_clone(directory, options, reset=reset))
        except (GitError, OSError) as error:
            raise MetadataError(directory, str(error)) from error
    return Snapshot(*commits)


def library_commit(config: Config) -> str:
    """The commit of the repository metadata that the last run worked from. Raises MetadataError."""
    directory = config.main.repositorymetadatadir
    try:
        return gitwrapper.head(directory)
    except (GitError, OSError) as error:
        raise MetadataError(directory, str(error), "read") from error


def read_library(config: Config, commit: str) -> Library:
    """The library as of a commit of the repository metadata.

    Raises DirectoryError when the file is not there, LibraryError when it cannot be used.
    """
    main = config.main
    name = main.repositorymetadata.relative_to(main.repositorymetadatadir).as_posix()
    try:
        files = gitwrapper.read_files(main.repositorymetadatadir, commit, name)
    except (GitError, OSError) as error:
        raise LibraryError(main.repositorymetadata, str(error)) from error
    if name not in files:
        raise DirectoryError("repositorymetadata", main.repositorymetadata, f"commit {commit[:7]} has no such file")
    content = files[name]
    if content is None:
        raise LibraryError(main.repositorymetadata, "expected a file, not a symbolic link")
    try:
        return parse_library(content)
    except YamlError as problem:
        raise LibraryError(main.repositorymetadata, problem.text, problem.line) from problem


def parse_library(source: bytes) -> Library:
    """Raises YamlError when the text as a whole is no library; a bad entry spoils only itself."""
    root = yamldoc.parse(source)
    top = yamldoc.entries(root, "the library") if root is not None else {}
    if "repositories" not in top:
        raise YamlError("expected a mapping with the key 'repositories'")
    partitions = yamldoc.entries(top["repositories"][1], "'repositories'")
    urls: dict[RepoId, str] = {}
    unusable: dict[RepoId, str] = {}
    for partition in PARTITIONS:
        if partition not in partitions:
            raise YamlError(f"'repositories' has no partition '{partition}' (write '{partition}: {{}}' for none)")
        node = partitions[partition][1]
        entries = {} if yamldoc.is_null(node) else yamldoc.entries(node, f"partition '{partition}'")
        for name, (_key, value) in entries.items():
            problem = _entry_problem(name, value)
            if problem is None:
                urls[RepoId(partition, name)] = str(value.value)
            else:
                unusable[RepoId(partition, name)] = f"line {yamldoc.line_of(value)}: {problem}"
    return Library(urls, unusable)


def _entry_problem(name: str, value: Node) -> str | None:
    if not names.is_repository_name(name):
        return "bad name, expected up to 200 letters, digits, '_', '.' and '-', beginning with neither '.' nor '-'"
    url = yamldoc.string(value)
    if url is None:
        return f"expected a clone URL, not {yamldoc.kind(value)}"
    return names.url_problem(url)


def read_definitions(config: Config, commit: str) -> dict[str, Declared]:
    """Every definition at the top of the environment metadata, by the environment's name.

    Raises MetadataError when they cannot be read at all.
    """
    main = config.main
    try:
        files = gitwrapper.read_files(main.environmentsmetadatadir, commit)
    except (GitError, OSError) as error:
        raise MetadataError(main.environmentsmetadatadir, str(error)) from error
    return {
        name[: -len(_SUFFIX)]: read_definition(name, content, main.hashprefix)
        for name, content in sorted(files.items())
        if name.endswith(_SUFFIX)
    }


def read_definition(file: str, content: bytes | None, hashprefix: str) -> Declared:
    """One definition; ``content`` is None for what is in the repository, but no file."""
    name = file[: -len(_SUFFIX)]
    if not names.is_environment_name(name):
        return IllFormed(name, f"{file}: bad name, expected letters, digits and '_'")
    if content is None:
        return IllFormed(name, f"{file}: expected a file, not a symbolic link or a submodule")
    try:
        return parse_definition(name, content, hashprefix)
    except YamlError as problem:
        return IllFormed(name, f"{file}: {problem}")


def parse_definition(name: str, source: bytes, hashprefix: str) -> Definition:
    """A well-formed definition, or YamlError saying what is wrong, in which line."""
    root = yamldoc.parse(source)
    if root is None:
        raise YamlError("empty, expected a mapping")
    top = {key: value for key, (_key, value) in yamldoc.entries(root, "the definition").items()}
    if "notifications" not in top:
        raise YamlError("the mandatory key 'notifications' is missing")
    return Definition(
        name=name,
        default=_default(top["default"], hashprefix) if "default" in top else None,
        overrides=_overrides(top["overrides"], hashprefix) if "overrides" in top else {},
        notifications=_notifications(top["notifications"]),
        parser=_parser(top["parser"]) if "parser" in top else None,
        source=source,
    )


def _default(node: Node, hashprefix: str) -> Branch:
    ref = _ref(node, "'default'", hashprefix)
    if not isinstance(ref, Branch):
        raise YamlError("'default' is expected to be a branch, not a commit", yamldoc.line_of(node))
    return ref


def _ref(node: Node, what: str, hashprefix: str) -> Ref:
    text = yamldoc.string(node)
    if text is None:
        raise YamlError(f"{what} is expected to be a string, not {yamldoc.kind(node)}", yamldoc.line_of(node))
    try:
        return names.parse_ref(text, hashprefix)
    except ValueError as error:
        raise YamlError(f"{what}: {error}", yamldoc.line_of(node)) from error


def _overrides(node: Node, hashprefix: str) -> dict[RepoId, Ref]:
    overrides = {}
    for partition, (key, value) in yamldoc.entries(node, "'overrides'").items():
        if partition not in PARTITIONS:
            expected = ", ".join(PARTITIONS)
            raise YamlError(
                f"'overrides' has an unknown partition {partition!r}, expected {expected}", yamldoc.line_of(key)
            )
        for name, (_name, ref) in yamldoc.entries(value, f"'overrides: {partition}'").items():
            overrides[RepoId(partition, name)] = _ref(ref, f"the override of {partition} {name!r}", hashprefix)
    return overrides


def _notifications(node: Node) -> tuple[str, ...]:
    nodes = node.value if isinstance(node.value, list) and not yamldoc.is_null(node) else [node]
    return tuple(text for text in map(yamldoc.string, (n for n in nodes if isinstance(n, Node))) if text)


def _parser(node: Node) -> str:
    parser = yamldoc.string(node)
    if parser not in PARSERS:
        raise YamlError(f"'parser' is expected to be {' or '.join(PARSERS)}", yamldoc.line_of(node))
    return parser


def doubts(definition: Definition, library: Library) -> list[str]:
    """What is allowed in a definition, but hardly meant."""
    found = [
        f"overrides {repo.partition} '{names.one_line(repo.name)}', which the library does not have"
        for repo in sorted(definition.overrides)
        if repo not in library.urls and repo not in library.unusable
    ]
    root = yamldoc.parse(definition.source)
    top = yamldoc.entries(root, "the definition") if root is not None else {}
    if "overrides" in top and not definition.overrides:
        found.append("has 'overrides' without any override")
    if "notifications" in top and not definition.notifications:
        found.append("has 'notifications' without an address")
    found += [f"has an unknown key '{names.one_line(key)}'" for key in top if key not in _DEFINITION_KEYS]
    return found
