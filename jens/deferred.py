"""Modules that a run with nothing to do can spare, imported when they are first used: ``deferred.tree.read(path)``.

jens-update starts every minute, and imports are most of what such a run costs (docs/performance.md). A folder may use
here what it may import: tests/test_architecture.py sees to that.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jens.environments.faults
    import jens.environments.plan
    import jens.git.complaints
    import jens.git.credentials
    import jens.git.lock
    import jens.git.masters
    import jens.git.process
    import jens.git.sessions
    import jens.git.settings
    import jens.git.web
    import jens.repositories.plan
    import jens.status.metrics
    import jens.status.sources
    from jens import configlines as configlines
    from jens import deliveries as deliveries
    from jens.commands import background as background
    from jens.environments import dangling as dangling
    from jens.environments import hold as hold
    from jens.environments import previous as previous
    from jens.environments import tree as tree
    from jens.environments import versions as versions
    from jens.environments import wanted as wanted
    from jens.messaging import hints as hints
    from jens.metadata import definition as definition
    from jens.metadata import parsed as parsed
    from jens.metadata import reader as reader
    from jens.metadata import reserve as reserve
    from jens.repositories import absent_refs as absent_refs
    from jens.repositories import disk as disk
    from jens.repositories import inventory as inventory
    from jens.repositories import mirror as mirror
    from jens.repositories import prepare as prepare
    from jens.repositories import publish as publish
    from jens.repositories import refs as refs
    from jens.repositories import retention as retention
    from jens.repositories import transfers as transfers
    from jens.system import removal as removal
    from jens.update import arrivals as arrivals
    from jens.update import deployment as deployment
    from jens.update import patience as patience
    from jens.update import preview as preview

    credentials = jens.git.credentials
    git_complaints = jens.git.complaints
    git_lock = jens.git.lock
    git_masters = jens.git.masters
    git_process = jens.git.process
    git_sessions = jens.git.sessions
    git_settings = jens.git.settings
    git_web = jens.git.web
    environments_faults = jens.environments.faults
    environments_plan = jens.environments.plan
    repositories_plan = jens.repositories.plan
    status_metrics = jens.status.metrics
    status_sources = jens.status.sources

MODULES = {
    "background": "jens.commands.background",
    "configlines": "jens.configlines",
    "deliveries": "jens.deliveries",
    "dangling": "jens.environments.dangling",
    "environments_faults": "jens.environments.faults",
    "environments_plan": "jens.environments.plan",
    "hold": "jens.environments.hold",
    "previous": "jens.environments.previous",
    "tree": "jens.environments.tree",
    "versions": "jens.environments.versions",
    "wanted": "jens.environments.wanted",
    "credentials": "jens.git.credentials",
    "git_complaints": "jens.git.complaints",
    "git_lock": "jens.git.lock",
    "git_masters": "jens.git.masters",
    "git_process": "jens.git.process",
    "git_sessions": "jens.git.sessions",
    "git_settings": "jens.git.settings",
    "git_web": "jens.git.web",
    "hints": "jens.messaging.hints",
    "definition": "jens.metadata.definition",
    "parsed": "jens.metadata.parsed",
    "reader": "jens.metadata.reader",
    "reserve": "jens.metadata.reserve",
    "absent_refs": "jens.repositories.absent_refs",
    "disk": "jens.repositories.disk",
    "inventory": "jens.repositories.inventory",
    "mirror": "jens.repositories.mirror",
    "repositories_plan": "jens.repositories.plan",
    "prepare": "jens.repositories.prepare",
    "publish": "jens.repositories.publish",
    "refs": "jens.repositories.refs",
    "retention": "jens.repositories.retention",
    "arrivals": "jens.update.arrivals",
    "deployment": "jens.update.deployment",
    "removal": "jens.system.removal",
    "transfers": "jens.repositories.transfers",
    "patience": "jens.update.patience",
    "preview": "jens.update.preview",
    "status_metrics": "jens.status.metrics",
    "status_sources": "jens.status.sources",
}


def __getattr__(name: str) -> ModuleType:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(MODULES[name])
    globals()[name] = module  # the next use finds it without this function
    return module
