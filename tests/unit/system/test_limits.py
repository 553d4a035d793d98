"""As many jobs as there may be open files for."""

from __future__ import annotations

import resource

import pytest

from jens.system import limits


@pytest.mark.parametrize(
    ("jobs", "files", "expected"),
    [(8, 1024, 8), (256, 1024, 62), (8, 75, 2), (8, 20, 1), (1, 0, 1), (256, resource.RLIM_INFINITY, 256)],
)
def test_there_are_only_as_many_jobs_as_files_may_be_open_for(jobs: int, files: int, expected: int) -> None:
    assert limits.affordable(jobs, files) == expected


def test_the_limit_of_open_files_is_raised_for_a_while() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        with limits.most_open_files():
            assert limits.open_files() == hard
        assert limits.open_files() == soft - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
