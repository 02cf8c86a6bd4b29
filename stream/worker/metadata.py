"""What a committed offset remembers of its task, in the metadata field of Kafka's OffsetCommit.

`d1;w=<ms or ->;l=<0 or 1>;t=<topic id>;#<crc32>` for ingest, `d1;c=<config id>;s=<S>;p=<offset>;h=<digest>;t=<topic
id>;#<crc32>` for detect, `d1;c=<config id>;s=<S>;k=<halvings>;h=<digest>;t=<topic id>;#<crc32>` for join: ASCII, below
300 bytes (the broker allows 4095). Reading stops at the checksum: some clients hand the text back with a byte too many
behind it.
"""

import re
import zlib
from typing import Final

from msgspec import Struct

_SHAPE: Final = re.compile(r"d1;((?:[a-z]=[^;#]*;)*)#([0-9a-f]{8})")


class IngestMark(Struct, frozen=True):
    """The whole memory of an ingest task."""

    watermark_ms: int | None
    live: bool
    """The last record was processed within an hour of its event time."""
    topic_id: str


class DetectMark(Struct, frozen=True):
    """Where the state of a detect task is found, and how to prove that it is the same again."""

    config_id: str
    replay_from: int
    """S: the next offset the newest known snapshot belongs to."""
    snapshot_offset: int | None
    """Where that snapshot starts in drift.snapshots; None as long as no delivery was reported."""
    digest: str
    topic_id: str


class JoinMark(Struct, frozen=True):
    """Where the log that is the state of a join task begins, and how to prove that it is the same again."""

    config_id: str
    replay_from: int
    """S: the oldest offset it still needs."""
    halvings: int
    """How often it has halved its threshold of ids: the replay begins with the present one."""
    digest: str
    topic_id: str


def encode_ingest(mark: IngestMark) -> str:
    """As committed."""
    return _sealed({"w": _written(mark.watermark_ms), "l": str(int(mark.live)), "t": mark.topic_id})


def encode_detect(mark: DetectMark) -> str:
    """As committed."""
    return _sealed(
        {
            "c": mark.config_id,
            "s": str(mark.replay_from),
            "p": _written(mark.snapshot_offset),
            "h": mark.digest,
            "t": mark.topic_id,
        }
    )


def encode_join(mark: JoinMark) -> str:
    """As committed."""
    return _sealed(
        {
            "c": mark.config_id,
            "s": str(mark.replay_from),
            "k": str(mark.halvings),
            "h": mark.digest,
            "t": mark.topic_id,
        }
    )


def decode_ingest(text: str) -> IngestMark | None:
    """None if this is not our metadata: somebody set the offset by hand."""
    fields = _opened(text)
    try:
        return IngestMark(_read(fields["w"]), fields["l"] == "1", fields["t"])
    except (KeyError, ValueError):
        return None


def decode_detect(text: str) -> DetectMark | None:
    """None if this is not our metadata: somebody set the offset by hand."""
    fields = _opened(text)
    try:
        return DetectMark(fields["c"], int(fields["s"]), _read(fields["p"]), fields["h"], fields["t"])
    except (KeyError, ValueError):
        return None


def decode_join(text: str) -> JoinMark | None:
    """None if this is not our metadata: somebody set the offset by hand."""
    fields = _opened(text)
    try:
        return JoinMark(fields["c"], int(fields["s"]), int(fields["k"]), fields["h"], fields["t"])
    except (KeyError, ValueError):
        return None


def _sealed(fields: dict[str, str]) -> str:
    body = "d1;" + "".join(f"{name}={value};" for name, value in fields.items())
    return f"{body}#{zlib.crc32(body.encode('ascii')):08x}"


def _opened(text: str) -> dict[str, str]:
    if not (found := _SHAPE.match(text)) or int(found[2], 16) != zlib.crc32(f"d1;{found[1]}".encode()):
        return {}
    return dict(part.split("=", 1) for part in found[1].split(";")[:-1])


def _written(number: int | None) -> str:
    return "-" if number is None else str(number)


def _read(text: str) -> int | None:
    return None if text == "-" else int(text)
