"""Targets for hostile input: a file that its commands would make, and a neighbour's secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import Outcome, Remote, Site, git
from tests.everything import everything_below

#: The instance's own files; everything else beside them belongs to others.
_INSTANCE = ("bare", "cache", "clone", "environments", "lock", "log", "metadata", "spool", "main.conf")

_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[\d+\] (DEBUG|INFO|WARNING|ERROR|CRITICAL) .*")


def push_tree(remote: Remote, files: Mapping[str, tuple[str, str]], branch: str = "master") -> str:
    """Commit files of any mode (100644, 100755, 120000 for links, 160000 for submodules) and any name, unchecked.

    The content of a link is its target, that of a submodule a commit.
    """
    lines = [f"commit refs/heads/{branch}\n", "committer Eve <eve@example.org> now\n", "data 4\npush\n"]
    known = git("for-each-ref", f"refs/heads/{branch}", directory=remote.path)
    lines += [f"from refs/heads/{branch}^0\n"] if known else []
    for name, (mode, content) in files.items():
        quoted = "".join(chr(c) if 32 < c < 127 and c not in b'"\\' else f"\\{c:03o}" for c in os.fsencode(name))
        if mode == "160000":
            lines.append(f'M {mode} {content} "{quoted}"\n')
        else:
            lines.append(f'M {mode} inline "{quoted}"\ndata {len(os.fsencode(content))}\n{content}\n')
    stream = os.fsencode("".join(lines))
    git("fast-import", "--quiet", "--force", "--date-format=now", directory=remote.path, stdin=stream)
    return remote.commit(branch)


#: The trees of a bomb, each of which names the next one ten times, and the files that it would be.
_BOMB_TREES = 10
BOMB_FILES = 10**_BOMB_TREES


def push_bomb(remote: Remote, branch: str = "master", beside: str = "") -> str:
    """Push twelve objects that unpack to ten to the tenth files.

    They are at the top, or in the directory ``bomb`` beside the files of the branch ``beside``.
    """
    where = remote.path
    what, kind = git("hash-object", "-w", "--stdin", directory=where, stdin=b"x"), b"100644"
    for _ in range(_BOMB_TREES):
        content = b"".join(b"%s %d\0" % (kind, number) + bytes.fromhex(what) for number in range(10))
        what, kind = git("hash-object", "-t", "tree", "-w", "--stdin", directory=where, stdin=content), b"40000"
    lines = git("ls-tree", beside, directory=where).splitlines() if beside else []
    if beside:
        tree = "\n".join([*lines, f"040000 tree {what}\tbomb", ""])
        what = git("mktree", directory=where, stdin=tree.encode())
    parents = ["-p", branch] if remote.find(branch) else []
    commit = git("commit-tree", "-m", "bomb", *parents, what, directory=where)
    git("update-ref", f"refs/heads/{branch}", commit, directory=where)
    return commit


@dataclass
class Decoy:
    """A directory beside the instance; ``check`` finds out whether anything reached it, or left the instance."""

    site: Site
    before: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secret.parent.mkdir()
        self.secret.write_text("class secret {}\n")
        for name in ("code", "data", "manifests"):
            (self.top / name).mkdir()
            (self.top / name / "secret").write_text("secret\n")

    @property
    def top(self) -> Path:
        return self.site.root.parent / "neighbour"

    @property
    def secret(self) -> Path:
        return self.top / "secret"

    @property
    def canary(self) -> Path:
        return self.top / "canary"

    def of(self, text: str) -> str:
        """A text of a table, in which the commands make this decoy's canary."""
        return text.replace("CANARY", str(self.canary))

    def around(self) -> dict[str, str]:
        """Everything beside the instance: remotes, the home directory, the neighbour."""
        site = self.site.root
        return everything_below(site.parent, (*(site / name for name in _INSTANCE), *site.glob("remotes/*/*.lock")))

    def update(self) -> Outcome:
        """Run jens-update, and check that nothing was reached."""
        self.before = self.around()
        outcome = self.site.update()
        self.check(outcome)
        return outcome

    def check(self, outcome: Outcome) -> None:
        """Check that nothing beside the instance changed, no link leads out of it, and no line of the log is forged."""
        assert "Traceback" not in outcome.log
        assert outcome.stderr == outcome.stdout == ""
        assert [line for line in outcome.log.splitlines() if not _LINE.fullmatch(line)] == []
        assert not self.canary.exists()
        assert self.around() == self.before
        clone, top = f"{self.site.root}/clone/", self.site.root / "environments"
        for path, what in everything_below(top).items():
            if what.startswith("l"):
                assert os.path.realpath(path).startswith(clone), path
        assert [name for name in os.listdir(top) if not re.fullmatch("[A-Za-z0-9_]+", name)] == []

    def repositories(self, top: str) -> list[str]:
        """The repositories in a directory of mirrors or checkouts, hidden entries included."""
        root = self.site.root / top
        return sorted(str(path.relative_to(root)) for path in root.glob("*/*")) + [
            path.name for path in root.iterdir() if path.name not in ("common", "hostgroups", "modules")
        ]
