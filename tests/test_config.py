"""Reading and checking configurations: every mistake is one sentence."""

from pathlib import Path

import pytest
import yaml

from resd.config import RunConfig, check_config, load_config
from resd.records import ResdError
from resd.training.run_folder import to_yaml


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(path, list(overrides))


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == RunConfig()


def test_overrides_win_and_are_typed(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "optimizer: {learning_rate: 1.0e-5}",
        "optimizer.learning_rate=1e-4",
        "rollout.thinking=false",
        "context.max_entries=null",
        "environment.options.family=has",
        "output=runs/a=b",
    )
    assert config.optimizer.learning_rate == 1e-4
    assert config.rollout.thinking is False
    assert config.context.max_entries is None
    assert config.environment.options == {"family": "has"}
    assert config.output == "runs/a=b"


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    config = RunConfig(seed=3)
    assert check_config(yaml.safe_load(to_yaml(config)), "again") == config


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        ("optimiser: {}", [], ["optimiser", "not a known key", "did you mean optimizer?"]),
        (
            "",
            ["optimizer.learning_rat=1"],
            ["optimizer.learning_rat", "did you mean optimizer.learning_rate?"],
        ),
        ("", ["optimizer.lr=1"], ["command line: optimizer.lr", "did you mean optimizer.learning_rate?"]),
        ("learning_rate: 1", [], ["run.yaml: learning_rate", "did you mean optimizer.learning_rate?"]),
        ("", ["teacher.pupil=1"], ["known: kind, update_rate"]),
        ("", ["seed.x=1"], ["command line: seed: should be a valid integer, not {'x': 1}"]),
        ("stream: 3", [], ["stream: is a section; give it keys and values"]),
        ("seed: one", ["model=lab"], ["run.yaml: seed: should be a valid integer, not 'one'"]),
        ("optimizer: {betas: [0.9, 2]}", [], ["optimizer.betas.1: should be less than 1, not 2"]),
        ("", ["output="], ["output: ", "at least 1 character"]),
        ("", ["optimizer.learning_rate=-1"], ["optimizer.learning_rate", "greater than 0"]),
        ("algorithm: ppo", [], ["algorithm", "'resd', 'sdpo', 'grpo', 'srpo', 'rlsd' or 'ace'"]),
        ("algorithm: grpo", [], ["algorithm grpo", "rollout.n", "2 or more"]),
        ("algorithm: srpo", [], ["algorithm srpo", "rollout.n", "2 or more"]),
        ("algorithm: rlsd", [], ["algorithm rlsd", "rollout.n", "2 or more"]),
        ("srpo: {entropy_beta: -1}", [], ["srpo.entropy_beta", "greater than or equal to 0"]),
        ("rlsd: {mixing: 2}", [], ["rlsd.mixing", "less than or equal to 1"]),
        ("rlsd: {max_change: 1.5}", [], ["rlsd.max_change", "less than or equal to 1"]),
        ("rlsd: {decay_updates: 0}", [], ["rlsd.decay_updates", "greater than or equal to 1"]),
        ("policy: {is_level: response}", [], ["policy.is_level", "'token' or 'sequence'"]),
        ("distillation: {token_level: true, alpha: 0.5}", [], ["token_level needs alpha 1"]),
        ("distillation: {min_ratio: 0.9, max_ratio: 0.5}", [], ["min_ratio must not exceed max_ratio"]),
        ("stream: {min_updates_per_batch: 9}", [], ["min_updates_per_batch must not exceed"]),
        ("context: {author: teacher}", ["teacher.kind=live"], ["teacher.kind ema or frozen", "kind live"]),
        ("context: {author: teacher}", ["teacher.kind=trust_region"], ["teacher.kind ema or frozen"]),
        ("", ["stream.batch_size=true"], ["command line: stream.batch_size: should be a number, not true"]),
        ("stream: {max_updates: false}", [], ["run.yaml: stream.max_updates: should be a number, not false"]),
        ("", ["teacher.update_rate=yes"], ["teacher.update_rate: should be a number, not true"]),
        ("optimizer: {learning_rate: true}", [], ["optimizer.learning_rate: should be a number, not true"]),
        ("", ["algorithm=grpo"], ["command line: algorithm grpo"]),
        ("algorithm: grpo", ["seed=1"], ["run.yaml: algorithm grpo"]),
        ("algorithm: grpo\nrollout: {n: 4}", ["rollout.n=1"], ["command line: algorithm grpo"]),
        ("", ["stream.min_updates_per_batch=9"], ["command line: stream.min_updates_per_batch"]),
        ("", ["distillation={alpha: 0.5, token_level: true}"], ["command line: distillation: token_level"]),
        (
            "distillation: {token_level: true}",
            ["distillation.alpha=0"],
            ["command line: distillation: token"],
        ),
        ("seed: one", ["seed=two"], ["command line: seed: should be a valid integer, not 'two'"]),
        ("- a list", [], ["write keys and values"]),
        ("a: [", [], ["not valid YAML"]),
        ("", ["learning_rate"], ["key=value"]),
        ("", ["seed.x=1", "seed=2", "seed.x=3"], ["seed is a value, not a section"]),
        ("", ["output=[a"], ["not valid YAML"]),
    ],
)
def test_mistakes(tmp_path: Path, text: str, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ResdError) as error:
        load(tmp_path, text, *overrides)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ResdError, match="give a YAML file"):
        load_config(tmp_path / "none.yaml")
