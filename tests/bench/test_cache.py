"""What was measured is not measured again."""

from __future__ import annotations

from pathlib import Path

from tools.bench.cache import Cache

JOB = {"do": "times", "network": "vgg16", "explainer": "abc", "versions": {"onnx": "1"}}


def test_a_result_is_found_by_its_job_alone(tmp_path: Path) -> None:
    Cache(tmp_path / "c.jsonl").put(JOB, {"samples": {"a": [[0, 1.5]]}})
    again = Cache(tmp_path / "c.jsonl")
    assert again.get(dict(reversed(JOB.items()))) == {"samples": {"a": [[0, 1.5]]}}
    assert again.get({**JOB, "explainer": "abd"}) is None
    assert again.get({**JOB, "versions": {"onnx": "2"}}) is None


def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    Cache(path).put(JOB, 1)
    path.write_bytes(path.read_bytes() + b'{"job": {"do": "ti')
    cache = Cache(path)
    cache.put({**JOB, "do": "peak"}, 2)
    again = Cache(path)
    assert (again.get(JOB), again.get({**JOB, "do": "peak"})) == (1, 2)


def test_a_result_of_other_rounds_is_alike(tmp_path: Path) -> None:
    """The last one; of other files or versions there is none."""
    cache = Cache(tmp_path / "c.jsonl")
    for rounds in (9, 3):
        cache.put({**JOB, "rounds": rounds, "seconds": 10.0 * rounds, "contestants": ["a"] * rounds}, rounds)
    again, asked = Cache(tmp_path / "c.jsonl"), {**JOB, "rounds": 5, "seconds": 1.0, "contestants": []}
    assert (again.get(asked), again.alike(asked)) == (None, 3)
    assert again.alike({**asked, "explainer": "abd"}) is None


def test_without_a_file_results_last_as_long_as_the_cache() -> None:
    cache = Cache(None)
    cache.put(JOB, 3)
    assert (cache.get(JOB), Cache(None).get(JOB)) == (3, None)
