"""Metrics: what they tell, that Prometheus accepts them, and what is said where its library is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from jens import deliveries
from jens.commands import stats
from jens.config import load_config
from jens.deliveries import Failing, Record, Told
from jens.layout import Layout
from jens.status.metrics import COUNTER, GAUGE, HISTOGRAM, Metric, render
from tests import TREE
from tests.conftest import Site
from tests.unit.status.conftest import Busy, client_of, new_site

pytest.importorskip("prometheus_client")


def values(text: str) -> dict[str, float]:
    """The samples of a text for Prometheus."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_metrics_tell_what_there_is(client: FlaskClient) -> None:
    response = client.get("/metrics")
    found = values(response.text)
    assert response.content_type.startswith("text/plain; version=")
    assert (found["jens_last_run_status"], found["jens_last_run_failures"]) == (0, 2)
    assert (found["jens_environments"], found['jens_repositories{partition="modules"}']) == (5, 1)
    assert (found["jens_dangling_links"], found['jens_faults{kind="dangling link"}']) == (1, 1)
    assert (found['jens_faults{kind="definition"}'], found['jens_faults{kind="purge guard"}']) == (1, 0)
    assert found.get('jens_deployments_total{mode="POLL",status="0"}', 0) <= 4  # fewer: midnight lies between
    assert found["jens_history_readable"] == 1
    assert found["jens_held_environments"] == 1
    assert "jens_hints_waiting" not in found


def test_pushes_are_in_the_histogram(site: Site) -> None:
    site.settings["main.mode"] = "ONDEMAND"
    site.update()
    site.remotes["modules/dummy"].push({"code/manifests/init.pp": "# new\n"})
    site.hint("modules/dummy")
    site.update()
    found = values(client_of(site).get("/metrics").text)
    assert found["jens_push_to_visible_seconds_count"] in (0, 1)  # 0: it was visible before midnight
    assert found['jens_push_to_visible_seconds_bucket{le="+Inf"}'] == found["jens_push_to_visible_seconds_count"]
    assert found["jens_hints_waiting"] == 0


def test_jens_stats_prints_the_same(busy: Busy, client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert stats.main(["-c", str(busy.site.config), "--prometheus"]) == 0
    assert values(capsys.readouterr().out) == values(client.get("/metrics").text)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_finds_no_fault_with_them(busy: Busy, capsys: pytest.CaptureFixture[str]) -> None:
    stats.main(["-c", str(busy.site.config), "--prometheus"])
    text = capsys.readouterr().out
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_metrics_without_a_history(site: Site) -> None:
    site.update()
    (site.root / "cache" / "history.sqlite").unlink()
    found = values(client_of(site).get("/metrics").text)
    assert found["jens_history_readable"] == 0
    assert not any(name.startswith(("jens_deployments", "jens_push")) for name in found)
    (site.root / "cache" / "last-run.json").unlink()
    assert "jens_last_run_status" not in values(client_of(site).get("/metrics").text)


def test_each_kind_of_metric_is_written() -> None:
    metrics = [
        Metric("jens_a", "A gauge.", GAUGE, {('x"\\\ny',): 1}, ("kind",)),
        Metric("jens_b", "A counter.", COUNTER, {(): 2}),
        Metric("jens_c_seconds", "A histogram.", HISTOGRAM, {(): [0.1, 3.0]}),
    ]
    text, _ = render(metrics)
    assert values(text.decode()) | {'jens_a{kind="x\\"\\\\\\ny"}': 1, "jens_b_total": 2} == values(text.decode())
    assert values(text.decode())["jens_c_seconds_sum"] == 3.1


def test_a_missing_library_is_one_line(busy: Busy, client: FlaskClient, tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('none')\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{TREE}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(TREE / "bin" / "jens-stats"), "-c", str(busy.site.config), "--prometheus"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (10, "")
    assert done.stderr == (
        "jens-stats: prometheus-client is not installed, expected it for metrics: pip install 'jens[metrics]'\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "prometheus_client", None)
        response = client.get("/metrics")
    assert (response.status_code, response.text) == (
        501,
        "prometheus-client is not installed, expected it for metrics: pip install 'jens[metrics]'\n",
    )


def test_receivers_that_could_not_be_told_are_counted(tmp_path: Path) -> None:
    site = new_site(tmp_path / "site")
    site.update()
    site.settings["hook.command"] = "/nowhere/hook"  # from now on, so that no run has started a delivery
    layout = Layout.of(load_config(site.config))
    failing = Told(failing=Failing("it cannot be started", "2026-03-03T14:25:37+00:00"))
    deliveries.save(layout, Record({"hook /nowhere/hook": failing, "owner ann@example.org": Told()}))
    found = values(client_of(site).get("/metrics").text)
    assert (found['jens_deliveries_failing{kind="hook"}'], found['jens_deliveries_failing{kind="owner"}']) == (1, 0)
