"""The workflows of docs/regression-ci.md parse, and code of a pull request never has a token with write access."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

PAGE = (Path(__file__).parents[3] / "docs" / "regression-ci.md").read_text("utf-8")
CHECK, STEP, COMMENT = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
WORKFLOWS = {"explanations": CHECK, "explanations-comment": COMMENT}


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads `on` as True


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def scripts():
    candidates = [*steps(CHECK), *steps(COMMENT), *STEP]
    return [step["run"] for step in candidates if "run" in step]


def test_triggers_give_no_secrets_to_pull_requests():
    assert "pull_request_target" not in PAGE
    assert "secrets." not in PAGE
    assert triggers(CHECK) == "pull_request"
    assert triggers(COMMENT) == {"workflow_run": {"workflows": [CHECK["name"]], "types": ["completed"]}}


def test_check_workflow_can_only_read():
    assert CHECK["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in CHECK["jobs"].values())
    [checkout] = [step for step in steps(CHECK) if step.get("uses", "").startswith("actions/checkout")]
    assert checkout["with"]["persist-credentials"] is False
    assert not any("token" in str(step) for step in steps(CHECK))


def test_comment_workflow_runs_no_code_of_pull_requests():
    assert COMMENT["permissions"] == {}
    [job] = COMMENT["jobs"].values()
    assert job["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert [step["uses"] for step in job["steps"] if "uses" in step] == ["actions/download-artifact@v4"]
    [script] = [step["run"] for step in job["steps"] if "run" in step]
    assert not re.search(r"pip|python|pytest|checkout|npm|\beval\b|source ", script)


@pytest.mark.parametrize("script", scripts())
def test_scripts_are_shell_without_expressions(script):
    assert "${{" not in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_artifact_names_match():
    uploads = {step["with"]["name"]: step for step in steps(CHECK) if "upload-artifact" in step.get("uses", "")}
    assert uploads.keys() == {"explanations-html", "explanations-markdown"}
    assert all(step["if"] == "always()" for step in uploads.values())
    [download] = [step["with"] for step in steps(COMMENT) if "uses" in step]
    assert download["name"] == "explanations-markdown"
    assert download["path"] + "/" + uploads[download["name"]]["with"]["path"] == steps(COMMENT)[1]["env"]["REPORT"]


@pytest.mark.parametrize("failed", [True, False])
def test_reports_are_joined(failed, tmp_path):
    [script] = [step["run"] for step in steps(CHECK) if step.get("name") == "Join the reports"]
    if failed:
        for name in ("one", "two"):
            (tmp_path / "explanations" / name).mkdir(parents=True)
            (tmp_path / "explanations" / name / "test.md").write_text(f"### regressed {name}\n")
    summary = tmp_path / "summary"
    subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "GITHUB_STEP_SUMMARY": str(summary)},
        check=True,
    )
    assert ("regressed one" in summary.read_text()) is failed
    assert ("regressed two" in summary.read_text()) is failed
    assert (tmp_path / "explanations.md").read_text() == summary.read_text() != ""


def run_comment_step(report, folder):
    """Run the step that comments, with a `gh` that records its arguments."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "gh").write_text('#!/bin/sh\necho "$@" >> called\nif [ "$1" = api ]; then echo 7; fi\n')
    (tools / "gh").chmod(0o755)
    step = steps(COMMENT)[1]
    env = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "REPORT": str(report),
        "REPOSITORY": "we/it",
        "OWNER": "they",
        "RUN": "https://run",
    }
    result = subprocess.run(
        ["bash", "-e", "-c", step["run"]], cwd=folder, env={**env, "BRANCH": "$(touch ran)`touch ran`"}, check=False
    )
    assert set(env) | {"BRANCH", "GH_TOKEN"} == {"PATH", *step["env"]}
    return result.returncode


def test_comment_is_the_truncated_report(tmp_path):
    (tmp_path / "r.md").write_text("x" * 100_000)
    assert run_comment_step(tmp_path / "r.md", tmp_path) == 0
    assert 60_000 < len((tmp_path / "body.md").read_text()) < 61_000
    assert "pr comment 7 --repo we/it --body-file body.md" in (tmp_path / "called").read_text()
    assert not (tmp_path / "ran").exists()


def test_report_link_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("a token")
    (tmp_path / "r.md").symlink_to(tmp_path / "secret")
    assert run_comment_step(tmp_path / "r.md", tmp_path) == 1
    assert not (tmp_path / "called").exists()
