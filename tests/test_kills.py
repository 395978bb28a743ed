"""Kills at the steps that matter most, a slice of `make soak`."""

import pytest
from soak import BEFORE, EVERYTHING, NOTHING, NOTHING_AT_ALL, SCENES, STEPS, Random, lab

SCENE = {scene.name: scene for scene in SCENES}
STEP = {step.name: step for step in STEPS}


@pytest.fixture(scope="module")
def vendors(tmp_path_factory):
    with lab(tmp_path_factory.mktemp("vendors")) as ours:
        yield ours


@pytest.mark.parametrize(
    ("scene", "step", "kind"),
    [
        ("flex_insights", "a trigger without its answer", NOTHING),
        ("intelepeer", "a later file of a download", BEFORE),
        ("intelepeer, split", "the ledger has a handle", NOTHING),
        ("khoros_care", "a STATE with a job", EVERYTHING),
        ("khoros_care", "the middle of RECORDs", BEFORE),
        ("gooee", "a trigger without its answer", NOTHING_AT_ALL),
        ("gooee", "the middle of RECORDs", EVERYTHING),
        ("giosg", "a window's STATE", NOTHING),
    ],
)
def test_a_killed_run_loses_nothing_and_triggers_nothing_twice(vendors, scene, step, kind):
    """But for one job at the most, whose trigger was under way when the run was killed, and which is told."""
    outcome = vendors.try_out(SCENE[scene], STEP[step], kind, Random(1))
    assert outcome.kills == 1
    assert not outcome.bad, (outcome.numbers(), outcome.notes)


def test_a_second_kill_changes_nothing(vendors):
    outcome = vendors.try_out(SCENE["khoros_care"], STEP["a look"], NOTHING, Random(2), twice=True)
    assert outcome.kills >= 1
    assert not outcome.bad, (outcome.numbers(), outcome.notes)
