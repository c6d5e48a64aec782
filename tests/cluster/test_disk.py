"""Machines that share a disk, and machines that do not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fractionate.cluster.disk import brought_from, proof, settle
from fractionate.files import unpack


def test_who_sees_the_token_shares_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    place = tmp_path / "run" / "s"
    monkeypatch.chdir(tmp_path)
    with proof(place) as shown:
        monkeypatch.chdir("/")
        assert settle(shown, place) == place
        assert Path.cwd() == tmp_path, "relative paths mean what they mean to the driver"
        assert brought_from(place, place) == b""
        elsewhere = settle(shown._replace(token="another"), place)
        assert elsewhere.is_relative_to(tmp_path / "own")
        assert elsewhere.name == "s"
        assert elsewhere == settle(shown._replace(token="a third"), place), "found again at another try"
        assert elsewhere != settle(shown._replace(token="another"), tmp_path / "other" / "s")
    assert not list(place.parent.iterdir())
    elsewhere.mkdir(parents=True)
    (elsewhere / "weights").write_bytes(b"some")
    unpack(brought_from(elsewhere, place), place)
    assert (place / "weights").read_bytes() == b"some"
    assert not elsewhere.parent.exists()
