"""What an operator does to a gate that serves: modes, canaries, reloads."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import RunningGate, encode, save_brightness_predictor
from utility_gate.client import GateClient
from utility_gate.errors import ConfigError, GateError, NotAnImageError
from utility_gate.predictor import UtilityPredictor
from utility_gate.types import Decision, Mode

Start = Callable[..., RunningGate]


def plain(red: int) -> bytes:
    return encode(np.full((64, 64, 3), red, np.uint8), "PNG")


DARK, BRIGHT = plain(20), plain(230)


def count(gate: RunningGate, **labels: str) -> float:
    known = {"task": "general", "predictor_version": "7"}
    return gate.metric("utility_gate_verdicts_total", **(known | labels))


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it should have happened by now"
        time.sleep(0.01)


class TestModes:
    def test_shadow_judges_and_lets_everything_through(self, start_gate: Start) -> None:
        gate = start_gate(modes={"general": "SHADOW"})
        with GateClient(gate.target) as client:
            verdict = client.assess(DARK)
            assert client.info().tasks[0].mode is Mode.SHADOW
            with pytest.raises(NotAnImageError):
                client.assess(b"junk")
        assert (verdict.mode, verdict.decision) == (Mode.SHADOW, Decision.USEFUL)
        assert verdict.judgement is Decision.NON_USEFUL
        assert verdict.utility is not None
        assert verdict.utility < 0.1
        assert verdict.reasons[0].kind == "LOW_UTILITY"
        assert count(gate, mode="SHADOW", decision="USEFUL", judgement="NON_USEFUL") == 1

    def test_off_lets_everything_through_unseen(self, start_gate: Start) -> None:
        gate = start_gate(modes={"general": "OFF"})
        with GateClient(gate.target) as client:
            verdict = client.assess(b"not even an image")
        assert (verdict.mode, verdict.decision) == (Mode.OFF, Decision.USEFUL)
        assert verdict.utility is None
        assert verdict.judgement is None
        assert "off" in verdict.note
        assert count(gate, mode="OFF", decision="USEFUL", judgement="NONE") == 1

    def test_off_waits_for_nobody(
        self, start_gate: Start, brightness_predictor: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        both = {"general": str(brightness_predictor), "quiet": str(brightness_predictor)}
        gate = start_gate(predictors=both, modes={"quiet": "OFF"}, workers=1, max_waiting=0)
        monkeypatch.setattr(UtilityPredictor, "judge", lambda *_: float(release.wait(10)))
        with GateClient(gate.target) as client:
            first = threading.Thread(target=client.assess, args=(BRIGHT,))
            first.start()
            wait_for(lambda: gate.metric("utility_gate_images_in_flight") == 1)
            assert client.assess(BRIGHT, task="quiet").mode is Mode.OFF
            release.set()
            first.join()

    def test_a_mode_for_a_task_that_is_not_served_is_a_mistake(self, start_gate: Start) -> None:
        with pytest.raises(ConfigError, match=r"modes, fail_open and canaries.*got damage"):
            start_gate(modes={"damage": "OFF"})


class TestFailOpen:
    def break_predictor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> float:
            raise ZeroDivisionError("the network is broken")

        monkeypatch.setattr(UtilityPredictor, "judge", fail)

    def test_trouble_lets_images_through_if_the_task_says_so(
        self, start_gate: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = start_gate(fail_open=["general"])
        self.break_predictor(monkeypatch)
        with GateClient(gate.target) as client:
            verdict = client.assess(DARK)
            streamed = dict(client.assess_stream([("a", DARK), ("b", b"junk")]))
        assert (verdict.mode, verdict.decision) == (Mode.FALLBACK, Decision.USEFUL)
        assert "internal error; see incident" in verdict.note
        assert "ZeroDivision" not in verdict.note
        assert streamed["a"].mode is Mode.FALLBACK  # type: ignore[union-attr]
        assert isinstance(streamed["b"], NotAnImageError), "what is no image is the caller's fault"
        assert count(gate, mode="FALLBACK", decision="USEFUL", judgement="NONE") == 2

    def test_otherwise_it_is_an_error(
        self, start_gate: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = start_gate()
        self.break_predictor(monkeypatch)
        with GateClient(gate.target) as client, pytest.raises(GateError, match="INTERNAL"):
            client.assess(DARK)

    def test_overload_falls_back_too(
        self, start_gate: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = threading.Event()
        judge = UtilityPredictor.judge

        def slow(self: UtilityPredictor, *arguments: Any) -> float:
            release.wait(10)
            return judge(self, *arguments)

        gate = start_gate(fail_open=["general"], workers=1, max_waiting=0)
        monkeypatch.setattr(UtilityPredictor, "judge", slow)
        with GateClient(gate.target) as client:
            first = threading.Thread(target=client.assess, args=(BRIGHT,))
            first.start()
            wait_for(lambda: gate.metric("utility_gate_images_in_flight") == 1)
            verdict = client.assess(BRIGHT)
            release.set()
            first.join()
        assert verdict.mode is Mode.FALLBACK
        assert "at most 0 images in line" in verdict.note


class TestReload:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return save_brightness_predictor(tmp_path / "predictor", version="1")

    def start(self, start_gate: Start, folder: Path, **more: Any) -> RunningGate:
        return start_gate(predictors={"general": str(folder)}, **more)

    def version(self, gate: RunningGate) -> str:
        with GateClient(gate.target) as client:
            predictor = client.assess(BRIGHT).predictor
            assert predictor is not None
            return predictor.version

    def test_a_new_predictor_is_swapped_in(self, start_gate: Start, folder: Path) -> None:
        gate = self.start(start_gate, folder)
        assert self.version(gate) == "1"
        save_brightness_predictor(folder, version="2")
        assert gate.call(gate.server.reload())
        assert self.version(gate) == "2"
        assert gate.metric("utility_gate_reloads_total", outcome="done") == 1
        digest = UtilityPredictor.load(folder).card.info.digest
        sample = gate.server.metrics.registry.get_sample_value
        labels = {"task": "general", "name": "brightness", "digest": digest}
        assert sample("utility_gate_predictor_info", labels | {"version": "2"}) == 1
        assert sample("utility_gate_predictor_info", labels | {"version": "1"}) is None

    @pytest.mark.parametrize("damage", ["weights", "card", "gone"])
    def test_a_broken_one_leaves_the_old_one_serving(
        self, start_gate: Start, folder: Path, damage: str
    ) -> None:
        gate = self.start(start_gate, folder)
        if damage == "weights":
            (folder / "model.onnx").write_bytes(b"half a file")
        elif damage == "card":
            (folder / "card.json").write_text("{")
        else:
            shutil.rmtree(folder)
        assert not gate.call(gate.server.reload())
        assert self.version(gate) == "1"
        assert gate.metric("utility_gate_reloads_total", outcome="failed") == 1
        assert gate.metric("utility_gate_ready") == 1

    def test_watched_files_reload_by_themselves(self, start_gate: Start, folder: Path) -> None:
        gate = self.start(start_gate, folder, watch_seconds=0.1)
        save_brightness_predictor(folder, version="2")
        wait_for(lambda: self.version(gate) == "2")
        assert gate.metric("utility_gate_reloads_total", outcome="done") == 1

    def test_a_link_to_another_folder_is_a_change(self, start_gate: Start, tmp_path: Path) -> None:
        for version in ("1", "2"):
            folder = save_brightness_predictor(tmp_path / version, version=version)
            for file in folder.iterdir():
                os.utime(file, (1, 1))  # same sizes, same times
        link = tmp_path / "current"
        link.symlink_to(tmp_path / "1")
        gate = self.start(start_gate, link, watch_seconds=0.1)
        (tmp_path / "next").symlink_to(tmp_path / "2")
        (tmp_path / "next").replace(link)
        wait_for(lambda: self.version(gate) == "2")

    @pytest.mark.slow
    def test_100_reloads_under_load_fail_no_request(self, start_gate: Start, folder: Path) -> None:
        gate = self.start(start_gate, folder)
        stop, failures, versions = threading.Event(), [], []

        def load() -> None:
            with GateClient(gate.target) as client:
                while not stop.is_set():
                    try:
                        predictor = client.assess(BRIGHT).predictor
                        assert predictor is not None
                        versions.append(predictor.version)
                    except Exception as error:  # noqa: BLE001 - each one counts
                        failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            save_brightness_predictor(folder, version=str(number))
            assert gate.call(gate.server.reload())
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(set(versions)) > 20

    def test_sighup_reloads_a_process(self, folder: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve", "--port", "0", "--web-port", "0"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"UTILITY_GATE_PREDICTORS": f'{{"general": "{folder}"}}',
                              "UTILITY_GATE_DRAIN_SECONDS": "0"},
        )  # fmt: skip
        assert process.stdout is not None
        target = process.stdout.readline().split()[1]
        try:
            with GateClient(target) as client:
                save_brightness_predictor(folder, version="2")
                process.send_signal(signal.SIGHUP)

                def reloaded() -> bool:
                    predictor = client.assess(BRIGHT).predictor
                    return predictor is not None and predictor.version == "2"

                wait_for(reloaded)
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "reloaded" in errors


class TestCanary:
    def test_a_canary_is_heard_of_in_the_metrics_alone(
        self, start_gate: Start, tmp_path: Path
    ) -> None:
        trial = save_brightness_predictor(tmp_path / "trial", version="8", temperature=3.0)
        gate = start_gate(canaries={"general": {"predictor": str(trial), "share": 1.0}})
        with GateClient(gate.target) as client:
            predictor = client.assess(BRIGHT).predictor
            assert predictor is not None
            assert predictor.version == "7"
        labels = {"task": "general", "canary_version": "8"}
        both = {"judgement": "USEFUL", "canary_judgement": "USEFUL"}
        wait_for(lambda: gate.metric("utility_gate_canary_verdicts_total", **labels, **both) == 1)
        assert gate.metric("utility_gate_canary_utility_difference_sum", **labels) > 0

    def test_a_canary_that_dies_harms_nobody(
        self, start_gate: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trial = save_brightness_predictor(tmp_path / "trial", version="8", min_side=1)
        gate = start_gate(canaries={"general": {"predictor": str(trial), "share": 1.0}})
        judge = UtilityPredictor.judge

        def fail(self: UtilityPredictor, *arguments: Any) -> float:
            if self.card.version == "8":
                raise ZeroDivisionError
            return judge(self, *arguments)

        monkeypatch.setattr(UtilityPredictor, "judge", fail)
        with GateClient(gate.target) as client:
            for _ in range(5):
                assert client.assess(BRIGHT).decision is Decision.USEFUL
        failures = "utility_gate_canary_failures_total"
        wait_for(lambda: gate.metric(failures, task="general", canary_version="8") >= 1)

    def test_the_share_is_of_images_and_the_same_each_time(
        self, brightness_predictor: Path
    ) -> None:
        from server.canary import Canary

        canary = Canary(UtilityPredictor.load(brightness_predictor), share=0.2)
        chosen = [canary.wants(f"image {number}".encode()) for number in range(2000)]
        assert 300 < sum(chosen) < 500
        assert chosen == [canary.wants(f"image {number}".encode()) for number in range(2000)]


def test_a_deadline_that_cannot_be_met_is_answered_at_once(
    start_gate: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = UtilityPredictor.judge

    def slow(self: UtilityPredictor, *arguments: Any) -> float:
        time.sleep(0.2)
        return judge(self, *arguments)

    gate = start_gate(workers=1)
    monkeypatch.setattr(UtilityPredictor, "judge", slow)
    with GateClient(gate.target) as client:
        for _ in range(2):
            client.assess(BRIGHT)
        busy = [threading.Thread(target=client.assess, args=(BRIGHT,)) for _ in range(5)]
        for thread in busy:
            thread.start()
        wait_for(lambda: gate.metric("utility_gate_images_waiting") == 4)
        hurried = GateClient(gate.target, timeout=0.3)
        started = time.perf_counter()
        with pytest.raises(GateError):
            hurried.assess(BRIGHT)
        assert time.perf_counter() - started < 0.25
        assert gate.metric("utility_gate_too_late_total") == 1
        for thread in busy:
            thread.join()
        hurried.close()
