"""Labels meet predictions on Apache Kafka: 4 and 3 partitions, workers that come, go and die, one answer."""

import signal
from pathlib import Path

import pytest
from kafka.cluster import Cluster
from kafka.test_exactly_once import all_of, await_answer, published
from kafka.workers import Scene, scene, wait_until

FEEDBACK = 3
POINTS = ["step@join:2", "restore@join:2", "replay@join:3", "outputs:8", "offsets:8", "commit:8", "adopt:8"]


def some_pairs(cluster: Cluster, play: Scene) -> bool:
    """Whether some labels have met their predictions."""
    return any(b'"pair:' in value for _, _, value in published(cluster, play))


def test_kill_9_while_labels_meet_predictions(cluster: Cluster, tmp_path: Path) -> None:
    def run(point: str) -> None:
        name = "join-" + point.replace("@", "-").replace(":", "-")
        with scene(cluster.bootstrap, name, tmp_path, records=2_000, feedback=FEEDBACK) as play:
            inputs = play.inputs()
            play.produce(inputs[:2_500])
            play.start("0", f"{point}=kill")
            assert play.wait("0") == -signal.SIGKILL, play.said("0")
            play.start("0")
            wait_until(lambda: some_pairs(cluster, play), play.report)
            play.signal("0", signal.SIGKILL)
            play.wait("0")
            play.produce(inputs[2_500:])
            play.start("0")
            await_answer(cluster, play)
            assert '"replay_differs"' not in play.said("0")

    all_of(run, POINTS)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_matter(cluster: Cluster, tmp_path: Path, workers: int) -> None:
    with scene(cluster.bootstrap, f"join-{workers}", tmp_path, records=2_000, feedback=FEEDBACK) as play:
        inputs = play.inputs()
        play.produce(inputs[:2_500])
        for slot in range(workers):
            play.start(str(slot))
        wait_until(lambda: some_pairs(cluster, play), play.report)
        play.produce(inputs[2_500:])
        await_answer(cluster, play)
