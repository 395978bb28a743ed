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
        ("intelepeer", "the middle of a download", BEFORE),
        ("intelepeer, split", "a STATE with a job", NOTHING),
        ("khoros_care", "a STATE with a job", EVERYTHING),
        ("khoros_care", "the middle of RECORDs", BEFORE),
        ("khoros_care, look-back", "a window's STATE", BEFORE),
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
    step = STEP["the middle of a download"]
    outcome = vendors.try_out(SCENE["khoros_care"], step, NOTHING, Random(2), twice=True)
    assert outcome.kills >= 1
    assert not outcome.bad, (outcome.numbers(), outcome.notes)
