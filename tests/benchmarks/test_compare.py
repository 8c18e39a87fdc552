"""The comparison of two commits: its processes, its verdicts, and that it leaves nothing behind."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import compare, worker
from benchmarks.__main__ import main


def git(folder, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits that name their speed, and workers that read it."""
    folder = tmp_path / "repository"
    (folder / "benchmarks").mkdir(parents=True)
    git(tmp_path, "init", "--quiet", str(folder))
    for seconds in ("1.0", "2.0"):
        (folder / "seconds").write_text(seconds)
        git(folder, "add", "seconds")
        git(folder, "commit", "--quiet", "--message", seconds)
    monkeypatch.setattr(compare, "ROOT", folder)
    monkeypatch.setattr(compare, "build", lambda folder: None)
    monkeypatch.setattr(compare, "Side", Side)
    Side.asked.clear()
    return folder


class Side:
    """In place of a process: every call takes as long as the file says."""

    asked: list[str] = []  # noqa: RUF012  # what all of them were asked, in order

    def __init__(self, folder, suite, quick):
        assert (suite / "benchmarks").is_dir()
        self.seconds = float((folder / "seconds").read_text())

    def ask(self, verb, argument):
        if argument == "broken":
            raise compare.CompareError("no such case")
        if verb == "prepare":
            return ["fwd"]
        self.asked.append(self.seconds)
        return self.seconds

    def close(self):
        pass


def worktrees(folder):
    return git(folder, "worktree", "list", "--porcelain").count("worktree ")


def test_two_commits_are_measured_in_turns(repository):
    (difference,), failed = compare.compare("HEAD~1", "HEAD", ["gain"], quick=True)
    assert failed == []
    assert Side.asked == [1.0, 2.0, 2.0, 1.0, 1.0, 2.0]
    assert difference.ratios == (2.0, 2.0, 2.0)
    assert difference.verdict == "slower"
    assert worktrees(repository) == 1


def test_the_working_tree_is_a_side_as_it_is(repository):
    (repository / "seconds").write_text("0.5")
    (difference,), _ = compare.compare("HEAD", ".", ["gain"], quick=True)
    assert difference.ratios == (0.25, 0.25, 0.25)
    assert difference.verdict == "faster"


def test_a_case_that_cannot_be_measured_is_named(repository):
    differences, failed = compare.compare("HEAD", "HEAD", ["broken", "gain"], quick=True)
    assert [difference.case for difference in differences] == ["gain"]
    assert failed == ["broken was not measured: no such case"]


def test_an_interrupt_leaves_nothing_behind(repository, monkeypatch):
    def interrupted(self, verb, argument):
        assert worktrees(repository) == 3
        raise KeyboardInterrupt

    monkeypatch.setattr(Side, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare.compare("HEAD~1", "HEAD", ["gain"], quick=True)
    assert worktrees(repository) == 1


def test_a_checkout_that_git_left_locked_is_removed(repository, tmp_path):
    folder = tmp_path / "checkout"
    with compare.checkout("HEAD", folder):
        git(repository, "worktree", "lock", str(folder))
        assert worktrees(repository) == 2
    assert worktrees(repository) == 1
    assert not folder.exists()


def test_an_unknown_commit_is_an_error(repository, capsys):
    assert compare.main("nothing-like-this", ".", ["gain"], quick=True) == 2
    assert "compare: fatal" in capsys.readouterr().err
    assert worktrees(repository) == 1


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ([1.1, 1.11, 1.12, 1.13, 1.1], "slower"),
        ([0.9, 0.91, 0.9, 0.93, 0.92], "faster"),
        ([1.01, 1.02, 1.01, 1.02, 1.01], ""),  # less than two processes with the same code differ by
        ([0.8, 1.3, 1.1, 0.9, 1.2], ""),  # within the spread
    ],
)
def test_a_change_is_one_beyond_the_spread(b, verdict):
    assert compare.Difference("gain", "fwd", [1.0] * 5, b).verdict == verdict


def test_the_table_has_both_and_their_ratio():
    table = compare.table([compare.Difference("gain", "fwd", [1e-3] * 3, [2e-3] * 3)])
    assert table.lines == [["gain", "fwd", "1000", "2000", "2.000", "2.000", "2.000", "slower"]]
    assert "| gain | fwd  | 1000 |" in table.markdown()


def test_a_worker_measures_a_case_and_survives_an_error():
    measuring = worker.Worker(quick=True)
    requests = [["prepare", "gain"], ["measure", "fwd+bwd"], ["prepare", "nothing like this"], ["measure", "fwd"]]
    replies = io.StringIO()
    handlers = {"prepare": measuring.prepare, "measure": measuring.measure}
    worker.serve(handlers, io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), replies)
    prepared, measured, *failed = (json.loads(line) for line in replies.getvalue().splitlines())
    assert prepared == [True, ["fwd", "fwd+bwd"]]
    assert measured[0]
    assert 0 < measured[1] < 1
    assert [done for done, _ in failed] == [False, False]


def test_a_process_measures_the_dasp_of_its_folder():
    side = compare.Side(compare.ROOT, compare.ROOT, quick=True)
    try:
        assert side.ask("prepare", "gain") == ["fwd", "fwd+bwd"]
        assert 0 < side.ask("measure", "fwd") < 1
    finally:
        side.close()


def test_accuracy_and_scaling_are_not_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(compare, "main", lambda a, b, names, quick: compared.extend(names) or 0)
    assert main(["--compare", "HEAD", ".", "--filter", "sosfilt"]) == 0
    assert compared == ["sosfilt", "sosfilt_one_row", "sosfilt_short"]
    assert Path(compare.ROOT, "setup.py").exists()
