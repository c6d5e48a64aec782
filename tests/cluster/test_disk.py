"""Machines that share a disk, and machines that do not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fractionate.cluster.disk import brought_from, proof, seen_from_here
from fractionate.files import unpack


def test_who_sees_the_token_shares_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    place = tmp_path / "run" / "s"
    with proof(place) as shown:
        assert seen_from_here(shown, place) == place
        assert brought_from(place, place) == b""
        elsewhere = seen_from_here(shown._replace(token="another"), place)
        assert elsewhere.is_relative_to(tmp_path / "own")
        assert elsewhere.name == "s"
        assert elsewhere == seen_from_here(shown._replace(token="a third"), place), "found again at another try"
        assert elsewhere != seen_from_here(shown._replace(token="another"), tmp_path / "other" / "s")
    assert not list(place.parent.iterdir())
    elsewhere.mkdir(parents=True)
    (elsewhere / "weights").write_bytes(b"some")
    unpack(brought_from(elsewhere, place), place)
    assert (place / "weights").read_bytes() == b"some"
    assert not elsewhere.parent.exists()
