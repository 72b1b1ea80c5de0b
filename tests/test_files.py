import os

import pytest

from pathopan.files import atomic_path, check_regular_tree, remove


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_has_its_name_and_nothing_else_is_left(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("done")
        assert names(tmp_path / "new") != ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "done"
    assert names(tmp_path / "new") == ["a.txt"]


def test_a_failed_block_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_half()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folders_are_replaced_whole(tmp_path):
    target = tmp_path / "store"
    target.mkdir()
    (target / "stale").touch()
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").touch()
    assert names(target) == ["fresh"]


def test_removing_what_is_not_there_is_fine(tmp_path):
    remove(tmp_path / "nothing")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    remove(tmp_path / "folder")
    assert names(tmp_path) == []


def test_a_folder_with_a_pipe_in_it_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    check_regular_tree(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        check_regular_tree(tmp_path)
