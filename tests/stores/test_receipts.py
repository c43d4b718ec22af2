"""A receipt says which files can be trusted, also between two of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.errors import DamagedStore
from stores.receipts import change, finish, read_receipt, settled, vouch, write_receipt


def test_what_is_written_is_vouched_for(tmp_path):
    change(tmp_path / "r.json", tmp_path, {"a": b"one", "b/c": b"two"}, {"a": {"rows": [[0, 1]]}})
    vouchers = settled(tmp_path, tmp_path / "r.json")
    assert vouchers == {"a": vouch(b"one", rows=[[0, 1]]), "b/c": vouch(b"two")}
    assert (tmp_path / "b" / "c").read_bytes() == b"two"


def test_a_later_change_keeps_what_it_does_not_touch(tmp_path):
    change(tmp_path / "r.json", tmp_path, {"a": b"one", "b": b"two"})
    change(tmp_path / "r.json", tmp_path, {"b": b"three"})
    assert settled(tmp_path, tmp_path / "r.json") == {"a": vouch(b"one"), "b": vouch(b"three")}


def test_a_file_that_is_about_to_go_is_no_longer_vouched_for(tmp_path):
    change(tmp_path / "r.json", tmp_path, {"a": b"one", "b": b"two"})
    assert change(tmp_path / "r.json", tmp_path, {}, gone=["a"]) == {"b": vouch(b"two")}
    assert (tmp_path / "a").exists()


def test_the_same_change_again_touches_no_file(tmp_path):
    change(tmp_path / "r.json", tmp_path, {"a": b"one"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    change(tmp_path / "r.json", tmp_path, {"a": b"one"})
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


@pytest.mark.parametrize("on_disk", [b"old", b"new"])
def test_a_change_cut_short_is_what_is_on_the_disk(tmp_path, on_disk):
    write_receipt(tmp_path / "r.json", {"a": vouch(b"old")}, {"a": vouch(b"new"), "b": vouch(b"more")})
    (tmp_path / "a").write_bytes(on_disk)
    assert settled(tmp_path, tmp_path / "r.json") == {"a": vouch(on_disk)}
    finish(tmp_path / "r.json", tmp_path)
    assert read_receipt(tmp_path / "r.json")["files"] == {"a": vouch(on_disk)}
    assert "next" not in read_receipt(tmp_path / "r.json")


def test_a_file_that_is_neither_old_nor_new_is_damage(tmp_path):
    write_receipt(tmp_path / "r.json", {"a": vouch(b"old")}, {"a": vouch(b"new")})
    (tmp_path / "a").write_bytes(b"something else")
    with pytest.raises(DamagedStore):
        settled(tmp_path, tmp_path / "r.json")


def test_a_reader_who_comes_between_receipt_and_file_looks_again(tmp_path, monkeypatch):
    """The writer finishes its change, and one more, between the reader's two looks."""
    change(tmp_path / "r.json", tmp_path, {"a": b"one"})
    write_receipt(tmp_path / "r.json", {"a": vouch(b"one")}, {"a": vouch(b"two")})
    from stores import receipts

    true, seen = receipts.read_receipt, []

    def slow_read(path):
        content = true(path)
        if not seen:
            seen.append(True)
            (tmp_path / "a").write_bytes(b"three")
            write_receipt(tmp_path / "r.json", {"a": vouch(b"three")})
        return content

    monkeypatch.setattr(receipts, "read_receipt", slow_read)
    assert settled(tmp_path, tmp_path / "r.json") == {"a": vouch(b"three")}


def test_a_missing_receipt_vouches_for_nothing(tmp_path):
    assert settled(tmp_path, tmp_path / "r.json") == {}


@given(st.data())
def test_a_flipped_bit_in_a_receipt_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("receipt")
    write_receipt(folder / "r.json", {"a": vouch(b"one", rows=[[0, 192]])}, {"a": vouch(b"two")})
    content = bytearray((folder / "r.json").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "r.json").write_bytes(content)
    with pytest.raises(DamagedStore):
        read_receipt(folder / "r.json")


@pytest.mark.parametrize(
    "rows", [{"rows": [[0, 3]], "absent": {"9" * 5000: "x"}}, {"rows": [[0, 3]], "absent": {"2": "x"}}]
)
def test_rows_that_cannot_be_are_no_receipt(tmp_path, rows):
    write_receipt(tmp_path / "r.json", {"values/c/0/0": vouch(b"1234", **rows)})
    with pytest.raises(DamagedStore, match="no receipt says"):
        read_receipt(tmp_path / "r.json")
