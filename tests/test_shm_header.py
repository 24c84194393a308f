"""Header pages: any words whatever end in a clear error or in values within bounds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shm import header
from shm.cleanup import State, clean, inspect
from shm.errors import SegmentError
from shm.layout import (
    HEADER,
    HEADER_BYTES,
    HEADER_WORDS,
    MAGIC,
    OWNER_WORDS,
    ROLES,
    VERSION,
    W_MAGIC,
    W_OWNERS,
    W_VERSION,
    owner_word,
)
from shm.segment import Segment

NAME = "/scalper.garbage.ring"
WORD = st.integers(-(1 << 63), (1 << 63) - 1) | st.sampled_from([0, 1, 8, -1, 4096, (1 << 63) - 1, -(1 << 63)])


def good(payload_bytes: int = 4096) -> np.ndarray:
    """A header that attach accepts."""
    words = np.zeros(HEADER_WORDS, dtype=np.int64)
    header.write(words, kind=1, layout_hash=2, segment_id=3, payload_bytes=payload_bytes)
    return words


def put(directory: Path, words: np.ndarray, payload_bytes: int = 4096) -> None:
    """Write a header and a payload as a segment's file."""
    path = directory / NAME[1:]
    path.write_bytes(words.tobytes() + bytes(payload_bytes))
    path.chmod(0o600)


def attach_or_refuse(directory: Path) -> None:
    """Attach; what is not refused by a full message must be within bounds."""
    try:
        segment = Segment.attach(NAME, directory=directory)
    except SegmentError as error:
        assert str(directory / NAME[1:]) in str(error) and error.problem and error.remedy
        return
    with segment:
        head = segment.header
        assert segment.payload.size == head.payload_bytes == head.total_bytes - HEADER_BYTES <= 4096
        segment.words.sum()
        for role in range(ROLES):
            assert 0 <= head.owner(role).epoch <= head.epoch


def test_the_layout_is_what_the_drawing_says() -> None:
    """Offsets of the drawing in shm/layout.py, which other programs may rely on."""
    assert HEADER.itemsize == HEADER_BYTES == 4096 and HEADER_WORDS == 512
    assert [HEADER.fields[name][1] for name in HEADER.names[:8]] == list(range(0, 64, 8))  # type: ignore[index]
    assert [owner_word(role) for role in range(ROLES)] == [16 + 8 * role for role in range(8)]
    assert OWNER_WORDS == 8 and W_OWNERS == 16
    assert MAGIC.to_bytes(8, "little") == b"scalpSHM"
    for role in (-1, 8):
        with pytest.raises(ValueError, match="role"):
            owner_word(role)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=npst.arrays(np.int64, HEADER_WORDS, elements=WORD, fill=st.just(np.int64(0))), claims_magic=st.booleans())
def test_any_words(tmp_path: Path, words: np.ndarray, claims_magic: bool) -> None:
    """Any 512 words, also behind a right magic and version: attach, inspect and clean give an answer and never crash."""
    if claims_magic:
        words[W_MAGIC], words[W_VERSION] = MAGIC, VERSION
    put(tmp_path, words)
    attach_or_refuse(tmp_path)
    state = inspect(NAME, tmp_path)
    assert state is not None and state.state in set(State)
    clean(directory=tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 8 + 9 * OWNER_WORDS), word=WORD)
def test_any_one_wrong_word(tmp_path: Path, at: int, word: int) -> None:
    """A good header with any one word replaced by any value is refused, or its values are within bounds."""
    words = good()
    words[at] = word
    put(tmp_path, words)
    attach_or_refuse(tmp_path)
    assert inspect(NAME, tmp_path) is not None


@pytest.mark.parametrize("length", [0, 1, 7, 8, 63, 4095, 4096, 4097, 8191])
def test_truncated_files(tmp_path: Path, length: int) -> None:
    """A good segment cut anywhere is refused with a clear error."""
    (tmp_path / NAME[1:]).write_bytes((good().tobytes() + bytes(4096))[:length])
    (tmp_path / NAME[1:]).chmod(0o600)
    for readonly in (True, False):
        with pytest.raises(SegmentError, match=r"scalper\.garbage\.ring"):
            Segment.attach(NAME, directory=tmp_path, readonly=readonly)
    assert inspect(NAME, tmp_path) is not None


def test_another_versions_segment_is_judged_by_its_owners(tmp_path: Path) -> None:
    """A segment of another version cannot be attached, but is living or dead like any other."""
    words = good()
    words[W_VERSION] = VERSION + 1
    put(tmp_path, words)
    state = inspect(NAME, tmp_path)
    assert state is not None and state.state is State.LIVING and "version" in state.note
    words[header.W_CREATOR + 1] += 1  # the same pid, started at another time: dead
    put(tmp_path, words)
    assert clean(directory=tmp_path) == [NAME]


def test_garbage_tests_ran_on_a_plain_directory(tmp_path: Path) -> None:
    """No fuzzed file ever reaches /dev/shm."""
    assert not os.path.exists("/dev/shm" + NAME)
