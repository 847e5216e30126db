"""Several processes on one machine give what one process gives, or end with an error."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import purepyro
from distributed.jobs import BAD, ENSEMBLES, FIT, KEYS, ROWS, STEPS, X, Y, whole_batches
from purepyro import Ensemble, random
from purepyro._errors import RankError
from purepyro.distributed import DataParallel, Sharded, start
from purepyro.ensemble import EnsembleRunResult
from purepyro.infer import load

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
SIZES = (2, 3)
# No test may hang: its processes are killed after so many seconds.
LIMIT = 240.0

Results = dict[int, list[dict[str, Any]]]


def environment() -> dict[str, str]:
    """That of a fresh process, which finds what this one has imported."""
    paths = [str(Path(purepyro.__file__).parents[1]), str(TESTS)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def launch(name: str, folder: Path, size: int) -> list[dict[str, Any]]:
    """What each rank of a job leaves; nothing, of one that was killed."""
    script = str(Path(__file__).with_name("jobs.py"))
    ranks = [
        subprocess.Popen(
            [sys.executable, script, name, str(folder), str(rank), str(size)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        texts = [rank.communicate(timeout=LIMIT)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    found = []
    for i, rank in enumerate(ranks):
        assert rank.returncode in (0, -9), texts[i]
        path = folder / f"{name}.{size}.{i}.pt"
        found.append(torch.load(path, weights_only=False) if path.exists() else {})
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    """What each rank of two, and then of three, has found."""
    return {size: launch("together", folder, size) for size in SIZES}


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    with start():
        yield


def close(found: object, expected: object) -> None:
    """Equal up to rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def every(results: Results, name: str) -> list[Any]:
    """A result of each rank, of all sizes."""
    return [rank[name] for size in SIZES for rank in results[size]]


# Members


@pytest.mark.parametrize("name", ENSEMBLES)
def test_members_are_those_of_one_process(results: Results, name: str) -> None:
    ensemble, data = ENSEMBLES[name]
    expected = ensemble.run(KEYS, STEPS, *data)
    for state, losses in every(results, name):
        close(state, expected.state)
        close(losses, expected.losses)
        assert torch.equal(state.svi.key, expected.state.svi.key)
        if name == "loop":  # the same operations, so the same bits
            torch.testing.assert_close(state, expected.state, rtol=0, atol=0)
            assert torch.equal(losses, expected.losses)
    assert [rank[f"{name}: mine"] for rank in results[2]] == [2, 3]
    assert [rank[f"{name}: mine"] for rank in results[3]] == [1, 2, 2]


def test_there_may_be_more_ranks_than_members(results: Results) -> None:
    expected = ENSEMBLES["vmap"][0].run(KEYS[:2], STEPS, X, Y)
    for found in every(results, "two members"):
        close(EnsembleRunResult(*found), expected)


def test_a_run_of_no_steps(results: Results) -> None:
    for state, losses in every(results, "no steps"):
        close(state, ENSEMBLES["vmap"][0].init(KEYS, X, Y))
        assert losses.shape == (0, 5)


def test_a_checkpoint_goes_on_with_another_number_of_ranks(results: Results, folder: Path) -> None:
    ensemble = ENSEMBLES["vmap"][0]
    expected = ensemble.run(KEYS, STEPS, X, Y).state
    for found in every(results, "resumed"):  # written by two, read by two and by three
        close(found, expected)
    half = load(folder / "half.pt", like=ensemble.init(random.split(random.key(9), 5), X, Y))
    close(ensemble.run_from(half, STEPS // 2, X, Y).state, expected)


def test_quarantine_goes_by_the_numbers_among_all(results: Results) -> None:
    expected = Ensemble(FIT, in_dims=(None, 0)).run(KEYS, 3, X, BAD).quarantined
    assert expected == {2: 0}
    assert every(results, "quarantined") == [expected] * 5


# Rows


@pytest.mark.parametrize("name", ["rows", "uneven"])
def test_rows_on_ranks_are_rows_of_one_process(results: Results, name: str) -> None:
    expected = ROWS.run(random.key(1), 50, X, Y)
    first = results[2][0][name]
    for state, losses in every(results, name):
        close(state, expected.state)
        torch.testing.assert_close(losses, expected.losses, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(results[2][1][name], first, rtol=0, atol=0)  # as bits


def test_batches_on_ranks_are_batches_of_one_process(results: Results) -> None:
    expected = ROWS.fit(random.key(1), whole_batches(), data_size=24, epochs=3).state
    for found in every(results, "batches"):
        close(found, expected)


def test_single_steps_are_those_of_a_run(results: Results) -> None:
    expected = ROWS.run(random.key(1), 3, X, Y).state
    for found in every(results, "steps"):
        close(found, expected)


def test_a_step_that_one_rank_must_skip_is_skipped_by_all(results: Results) -> None:
    batches = whole_batches()
    batches[2] = batches[2][0], batches[2][1] * torch.nan
    skipping = attrs.evolve(ROWS, on_nonfinite="skip")
    expected = skipping.fit(random.key(1), batches, data_size=24)
    assert expected.losses.isnan().tolist() == [False, False, True, False]
    for state, losses in every(results, "skipped"):
        close(state, expected.state)
        assert losses.isnan().tolist() == [False, False, True, False]


def test_a_callback_stops_all(results: Results) -> None:
    assert every(results, "stopped") == [3] * 5


# What cannot work


WRONG = {
    "keys": r"RankError: The ranks disagree on the keys: rank 0 has int64\[5, 2\] with checksum "
    r"(.*); rank 1 has .* random.split\(random.key\(0\), members\)\.",
    "count": r"on the keys: .*int64\[5, 2\].*rank 1 has int64\[4, 2\]",
    "data": r"disagree on argument 0: rank 0 has float32\[24, 3\].* Load the same data",
    "num_steps": r"disagree on num_steps: rank 0 has 2; rank 1 has 3.*Give all ranks the same num",
    "start": r"disagree on the start 'weight': .*torch.manual_seed\(0\) before it is built",
    "call": r"on the call: ranks? 0(, 2)? ha(s|ve) Sharded.gather; rank 1 has Sharded.init",
    "all bad": r"SupportError: SVI.init: the value of the observed site 'obs'",
    "mesh": r"DeclarationError: The mesh has 2 dimensions, \('members', 'data'\).*mesh\['memb",
    "no keys": r"KeyTypeError: Ensemble got the keys int64\[2\], which is one key",
    "missing file": r"FileNotFoundError",
    "key": r"on the key: rank 0 has \[0, 0\]; rank 1 has \[1, 0\].*random.key\(0\)\.",
    "shape": r"on the shape of argument 1, but for its rows,: .* rank 1 has float64\[\]",
    "steps": r"disagree on num_steps: rank 0 has 2; rank 1 has 3",
    "its start": r"disagree on the start 'weight'.*PyroParam\(lambda: torch.randn\(3\)\)",
    "state": r"disagree on the state 'step': .*Load the same checkpoint",
    "all rows": r"ShapeError: The ranks have 24 \+ 24.* rows, but data_size is 24.*x\[rank::size\]",
    "unscaled": r"ShapeError: The observed site 'obs' has \d+ of 24 rows and the scale 1, but",
    "batches": r"num_steps: .*1 epochs of 4 batches; rank 1 has 1 epochs of 3 batches",
    "gone bad": r"SupportError: On rank 1: Step 2 has no finite loss: .* observed site 'y'",
    "vmap": r"TraceError: DataParallel.step is called inside vmap.*Sharded\(Ensemble\(svi\)\)",
}


@pytest.mark.parametrize("name", WRONG)
def test_all_ranks_end_with_the_same_error(results: Results, name: str) -> None:
    for size in SIZES:
        texts = [rank["errors"][name] for rank in results[size]]
        assert all(text == texts[0] for text in texts) or name in ("unscaled", "missing file")
        for text in texts:
            assert_found(WRONG[name], text)


def assert_found(pattern: str, text: str) -> None:
    """A message as it is expected, on any number of lines."""
    with pytest.raises(AssertionError, match=f"(?s){pattern}"):
        raise AssertionError(text)


def test_a_rank_that_fails_ends_the_others(results: Results) -> None:
    for size in SIZES:
        texts = [rank["errors"]["one fails"] for rank in results[size]]
        own = texts.pop(1)
        assert own.startswith("SupportError: SVI.init: the value of the observed site 'y'")
        for text in texts:
            assert text.startswith(f"RankError: Rank 1 failed: {own}")
            assert_found(r"So rank \d cannot go on. Start the job again", text)


def test_a_rank_without_a_batch_ends_the_others(results: Results) -> None:
    for rank in results[2]:
        assert_found("Rank 0 is in a step that rank 1 will not take", rank["errors"]["apart"])


def test_a_rank_that_fails_in_a_step_ends_the_others(results: Results) -> None:
    first, own, last = [rank["errors"]["apart"] for rank in results[3]]
    assert own == "ArithmeticError: a callback of one rank"
    for text in (first, last):
        assert_found(f"RankError: Rank 1 failed: {own}", text)


@pytest.mark.parametrize("job", ["killed_in_a_step", "killed_while_training"])
def test_a_killed_rank_ends_the_others(job: str, tmp_path: Path) -> None:
    first, killed, last = launch(job, tmp_path, 3)
    assert killed == {}
    for text in (first["error"], last["error"]):
        assert_found(
            r"RankError: Rank 1 of 3 gave no sign of life: killed, ended, or cut off\. .*waits in "
            r"vain.* go|Start the job again, from the last checkpoint; it may have another number",
            text,
        )
    if job == "killed_while_training":  # what was written before goes on, here with one process
        ensemble = ENSEMBLES["vmap"][0]
        state = load(tmp_path / "before.pt", like=ensemble.init(KEYS, X, Y))
        close(ensemble.run_from(state, STEPS - 5, X, Y).state, ensemble.run(KEYS, STEPS, X, Y)[0])


def test_a_rank_that_comes_too_late_ends_the_others(results: Results) -> None:
    for rank in results[2]:
        assert_found(
            r"Rank 0 has waited 0:00:02 for rank 1, .*start\(timeout=\.\.\.\)",
            rank["errors"]["late"],
        )


KILLED = """
import os, signal
import torch
from distributed.jobs import ENSEMBLES, KEYS, X, Y
from purepyro import disable_jit
from purepyro.distributed import Sharded, start
with start(), disable_jit():
    sharded = Sharded(ENSEMBLES["vmap"][0])
    mine = sharded.run(KEYS, 2, X, Y)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    sharded.gather(mine)
"""


def test_torchrun_names_the_killed_rank(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    run = torchrun(2, str(script))
    assert run.returncode != 0
    assert_found(r"exitcode *: -9.*Signal 9 \(SIGKILL\) received by PID", run.stderr)
    assert_found(r"rank *: 1 \(local_rank: 1\)", run.stderr)


def torchrun(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A job of so many ranks, on a port that is free."""
    options = ["--standalone", f"--nproc-per-node={size}"]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_the_example_by_torchrun(tmp_path: Path) -> None:
    script = str(TESTS.parent / "examples" / "08_torchrun.py")
    two = torchrun(2, script, str(tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert_found(r"20 members on 2 ranks.*rank 0: 10 members.*rank 1: 10 members", two.stdout)
    one = subprocess.run(
        [sys.executable, script, str(tmp_path / "one")],
        env=environment(), capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    shown = [line for line in one.stdout.splitlines() if line.startswith("  of ")]
    assert len(shown) == 2
    assert shown == [line for line in two.stdout.splitlines() if line.startswith("  of ")]


# One process


def test_without_a_process_group() -> None:
    with pytest.raises(
        RankError, match=r"no process group.*torchrun --nproc-per-node=2.*start\(\)"
    ):
        Sharded(Ensemble(FIT)).run(KEYS, 2, X, Y)


@pytest.mark.usefixtures("alone")
def test_a_single_process_is_a_job_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sharded = Sharded(ENSEMBLES["vmap"][0])
    mine = sharded.run(KEYS, 3, X, Y)
    expected = ENSEMBLES["vmap"][0].run(KEYS, 3, X, Y)
    torch.testing.assert_close(sharded.gather(mine), expected, rtol=0, atol=0)
    sharded.save(tmp_path / "state.pt", mine.state)
    again = sharded.load(tmp_path / "state.pt", like=sharded.init(KEYS, X, Y))
    torch.testing.assert_close(again, expected.state, rtol=0, atol=0)
    with caplog.at_level(logging.WARNING, logger="purepyro.ensemble"):
        Sharded(Ensemble(FIT, in_dims=(None, 0))).run(KEYS, 1, X, BAD)
    assert "1 of 5 members went into quarantine and stay as they were: 2 at step 0" in caplog.text


@pytest.mark.compiled
@pytest.mark.usefixtures("alone")
def test_compiled_pieces_are_the_same_steps() -> None:
    def steps(compiled: bool) -> tuple[Tensor, Tensor]:
        parallel = DataParallel(attrs.evolve(ROWS, compiled=compiled), data_size=24)
        state, losses = parallel.run(random.key(1), 20, X, Y)
        return state.params["locs.weight"], losses

    torch.testing.assert_close(steps(True), steps(False), rtol=1e-5, atol=1e-5)
