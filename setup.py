"""Everything setuptools needs to know about Jens; pyproject.toml only configures the development tools."""

from __future__ import annotations

import os
import re
from glob import glob

from setuptools import find_packages, setup

DOCDIR = os.path.join("share", "doc", "puppet-jens")


def read(name: str) -> str:
    """Return the text of a file beside this one."""
    with open(name, encoding="utf-8") as source:
        return source.read()


def version() -> str:
    """Return the version without importing jens, whose dependencies may not be installed yet."""
    match = re.search(r'^__version__ = "([^"]+)"$', read(os.path.join("jens", "__init__.py")), re.MULTILINE)
    if match is None:
        raise RuntimeError('jens/__init__.py: expected a line __version__ = "..."')
    return match.group(1)


def tree(top: str, destination: str) -> list[tuple[str, list[str]]]:
    """Return ``data_files`` that install the files below ``top`` as they lie, below ``destination``/``top``."""
    found = []
    for directory, subdirectories, files in os.walk(top):
        subdirectories[:] = sorted(name for name in subdirectories if name != ".git")
        if files:
            sources = [os.path.join(directory, name) for name in sorted(files)]
            found.append((os.path.join(destination, directory), sources))
    return found


setup(
    name="jens",
    version=version(),
    description="A librarian that keeps Puppet environments up to date from many Git repositories",
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: System :: Systems Administration",
    ],
    python_requires=">=3.9",
    packages=find_packages(include=["jens", "jens.*"]),
    package_data={"jens.status": ["templates/*.html", "static/*"]},
    scripts=sorted(glob("bin/*")),
    data_files=[
        (DOCDIR, ["conf/main.conf", "wsgi/gitlab-producer.wsgi", "wsgi/jens-status.wsgi"]),
        (os.path.join("share", "man", "man1"), sorted(glob("man/*.1"))),
        *tree("examples", DOCDIR),
    ],
    # No lower bound above what AlmaLinux 9 and EPEL carry: the RPM's requirements are made from these.
    install_requires=[
        "GitPython>=3.1.40",
        "configobj>=5.0.6",
        "PyYAML>=5.4.1",
        "dirq>=1.7.1",  # Jens keeps to its format; producers of a site add hints with it, see docs/hints.md
        "Flask>=2.0.3",
    ],
    extras_require={
        # What jens-gitlab-producer-runner and jens-status-runner serve with; without it Flask's own server is used.
        # Earlier releases can be made to mistake where a request ends (CVE-2022-24761).
        "waitress": ["waitress>=2.1.1"],
        # How jens-deliver writes to people.
        "notify": ["apprise>=1.4"],
        # What /metrics of the status page and jens-stats --prometheus are written with.
        "metrics": ["prometheus-client>=0.9"],
        # Completion of options in bash: eval "$(register-python-argcomplete jens-update)"
        "completion": ["argcomplete>=2"],
        # Linters are held to one series, so that every machine has the same opinion.
        "test": [
            "aiosmtpd>=1.4",
            "apprise>=1.4",
            "argcomplete>=2",
            "gunicorn>=21",
            "hypothesis>=6.100,<7",
            "jsonschema>=4",
            "mypy>=1.15,<1.20",
            "prometheus-client>=0.9",
            "pytest>=7,<9",  # 9 has syntax that mypy refuses when it checks for Python 3.9
            "pytest-timeout>=2.1",
            "pytest-xdist>=3.2.1",
            "ruff>=0.17,<0.18",
            "selenium>=4.11",
            "setuptools>=53",
            "types-PyYAML",
            "types-setuptools",
            "waitress>=2.1.1",
            "wheel>=0.36",
        ],
    },
    zip_safe=False,
)
