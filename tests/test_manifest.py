from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.errors import ConfigError, ManifestError
from pathopan.manifest import SlideEntry, find_slides, read_manifest, safe_id


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def manifest(folder: Path, text: str | bytes, name: str = "slides.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def ids(entries: list[SlideEntry]) -> list[str]:
    return [entry.slide_id for entry in entries]


def test_a_file_is_tried_whatever_its_ending(tmp_path):
    (path,) = touch(tmp_path, "scan.xyz")
    assert find_slides([path]) == [SlideEntry("scan", path)]


def test_a_folder_gives_its_slides_and_nothing_else(tmp_path):
    touch(tmp_path, "b.svs", "a.TIFF", "notes.txt", ".hidden.svs", "deep/c.ndpi", "b/Slidedat.ini")
    assert ids(find_slides([tmp_path])) == ["a", "b"]
    assert ids(find_slides([tmp_path], recursive=True)) == ["a", "b", "c"]


def test_a_folder_without_slides_names_the_remedy(tmp_path):
    touch(tmp_path, "deep/c.ndpi")
    with pytest.raises(ManifestError, match=r"no slides found in .*; use --recursive to look into sub-folders"):
        find_slides([tmp_path])
    touch(tmp_path, "empty/notes.txt")
    with pytest.raises(ManifestError, match=r"no slides found in [^;]*$"):
        find_slides([tmp_path / "empty"], recursive=True)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.svs: no such file or folder"):
        find_slides([tmp_path / "gone.svs"])


def test_equal_names_are_told_apart_by_folder_then_by_ending(tmp_path):
    paths = touch(tmp_path, "x/s.svs", "y/s.svs", "y/s.ndpi", "z/t.svs")
    named = {entry.path: entry.slide_id for entry in find_slides(paths)}
    assert len(set(named.values())) == 4
    assert named[paths[0]] == "x_s"
    assert named[paths[3]] == "t"
    assert {named[paths[1]], named[paths[2]]} == {"y_s.svs", "y_s.ndpi"}


def test_names_that_differ_by_case_only_are_told_apart(tmp_path):
    """Some file systems take them for one folder."""
    paths = touch(tmp_path, "x/S.svs", "y/s.svs")
    assert ids(find_slides(paths)) == ["x_S", "y_s"]


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    paths = touch(tmp_path, "a/x/s.svs", "b/x/s.svs")
    with pytest.raises(ManifestError, match=r"would all be named 'x_s\.svs'; give each a slide_id"):
        find_slides(paths)


def test_the_order_of_arguments_does_not_matter_and_a_slide_given_twice_is_one(tmp_path):
    paths = touch(tmp_path, "a.svs", "b.svs", "c.svs")
    assert find_slides(paths[::-1]) == find_slides([tmp_path, paths[1]]) == find_slides(paths)


def test_a_manifest_gives_names_paths_and_mpp(tmp_path):
    path = manifest(tmp_path, "slide_id,path,mpp\nfirst,in/a.svs,0.25\n,b.svs,\n")
    assert read_manifest(path) == [
        SlideEntry("first", tmp_path / "in/a.svs", 0.25),
        SlideEntry("", tmp_path / "b.svs", None),
    ]
    assert find_slides([path], slide_mpp=0.5) == [
        SlideEntry("b", tmp_path / "b.svs", mpp_if_missing=0.5),
        SlideEntry("first", tmp_path / "in/a.svs", 0.25),
    ]


def test_relative_paths_count_from_the_manifest_and_absolute_ones_stay(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    path = manifest(tmp_path, f"path\n../s.svs\n{tmp_path / 't.svs'}\n")
    assert [entry.path for entry in read_manifest(path)] == [tmp_path / "../s.svs", tmp_path / "t.svs"]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfpath,slide_id\r\na.svs,x\r\n",
        b'"path","slide_id"\n"a.svs","x"\n',
        b" path , slide_id \n a.svs , x \n",
        b"path,slide_id,comment\na.svs,x,hello\n\n",
        b"path,slide_id\na.svs,x,one cell too many\n",
    ],
    ids=["byte order mark", "quotes", "blanks", "other columns and empty lines", "too many cells"],
)
def test_what_spreadsheets_write_is_read(tmp_path, text):
    assert read_manifest(manifest(tmp_path, text)) == [SlideEntry("x", tmp_path / "a.svs", None)]


def test_a_path_may_hold_commas_and_quotes(tmp_path):
    path = manifest(tmp_path, 'path\n"my, ""best"" slide.svs"\n')
    assert read_manifest(path)[0].path.name == 'my, "best" slide.svs'
    assert ids(find_slides([path])) == ["my_best_slide"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "needs a column 'path', each once; it has \\[\\]"),
        (b"file\na.svs\n", "needs a column 'path'.*it has \\['file'\\]"),
        (b"path;mpp\na.svs;0.25\n", "needs a column 'path'.*path;mpp"),
        (b"path,path\na,b\n", "each once"),
        (b"path\n\xff\xfe\n", "cannot be read as a manifest"),
        (b"slide_id,path\nx,\n", "slides.csv, line 2: no path"),
        (b"path,mpp\na.svs,0.5\nb.svs,fine\n", "line 3: mpp 'fine' is not a number of micrometres per pixel"),
        (b'path,mpp\na.svs,"0,25"\n', "line 2: mpp '0,25' is not a number"),
        (b"path,mpp\na.svs,-0.25\n", "line 2: mpp '-0.25' is not a number of micrometres"),
        (b"path,mpp\na.svs,0\n", "line 2: mpp '0' is not a number of micrometres"),
        (b"path,mpp\na.svs,nan\n", "line 2: mpp 'nan' is not a number"),
        (b"path,mpp\na.svs,inf\n", "line 2: mpp 'inf' is not a number"),
    ],
)
def test_a_manifest_that_cannot_be_used(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        read_manifest(manifest(tmp_path, text))


def test_a_manifest_without_rows(tmp_path):
    with pytest.raises(ManifestError, match="no slides found"):
        find_slides([manifest(tmp_path, "path\n")])


def test_names_that_a_person_gave_twice_are_refused(tmp_path):
    path = manifest(tmp_path, "slide_id,path\nx,a.svs\nX,b.svs\n")
    with pytest.raises(ManifestError, match="would all be named"):
        find_slides([path])


def test_names_that_a_person_gave_stay_and_others_make_way(tmp_path):
    touch(tmp_path, "s.svs")
    path = manifest(tmp_path, "slide_id,path\ns,other.svs\n,s.svs\n")
    assert {entry.slide_id: entry.path.name for entry in find_slides([path])} == {
        "s": "other.svs",
        f"{tmp_path.name}_s": "s.svs",
    }


def test_a_slide_that_a_manifest_names_is_not_run_twice_for_lying_in_the_folder(tmp_path):
    (slide,) = touch(tmp_path, "a.svs")
    path = manifest(tmp_path, "slide_id,path,mpp\nnamed,a.svs,0.3\n")
    assert find_slides([tmp_path, path]) == [SlideEntry("named", slide, 0.3)]


@given(st.text(max_size=200))
def test_names_are_safe_as_folders_anywhere(text):
    name = safe_id(text)
    assert len(name) <= 120
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert safe_id(name) == name


def test_a_given_name_of_nothing_but_odd_letters_is_refused_and_a_file_of_them_gets_one(tmp_path):
    with pytest.raises(ManifestError, match=r"line 2: slide_id '\?\?\?' has no letter or digit"):
        find_slides([manifest(tmp_path, "slide_id,path\n???,a.svs\n")])
    assert ids(find_slides([manifest(tmp_path, "slide_id,path\n,∂.svs\n")])) == ["slide"]


def test_a_name_that_no_folder_can_have_is_remembered(tmp_path):
    path = manifest(tmp_path, "slide_id,path\ntwo words,a.svs\nplain,b.svs\n")
    assert [(e.slide_id, e.named) for e in find_slides([path])] == [("plain", ""), ("two_words", "two words")]


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan")])
def test_an_mpp_for_all_slides_must_be_one(tmp_path, mpp):
    with pytest.raises(ConfigError, match="--slide-mpp"):
        find_slides(touch(tmp_path, "a.svs"), slide_mpp=mpp)


def test_semicolons_are_named_as_such(tmp_path):
    with pytest.raises(ManifestError, match="with commas between the columns"):
        read_manifest(manifest(tmp_path, "slide_id;path\na;a.svs\n"))


def dicom(folder: Path, name: str, series: str, *, level: bool = True, typed: bool = True) -> Path:
    """Write the head of a DICOM file, in explicit or implicit notation."""
    kind, value = (b"VOLUME" if level else b"LABEL"), series.encode()
    size = b"UI" + len(value).to_bytes(2, "little") if typed else len(value).to_bytes(4, "little")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(bytes(128) + b"DICM" + kind + b"\x20\x00\x0e\x00" + size + value)
    return folder / name


def test_the_levels_of_a_dicom_slide_are_one_slide(tmp_path):
    dicom(tmp_path / "s", "0.dcm", "1.2.840.1", level=False)
    dicom(tmp_path / "s", "1.dcm", "1.2.840.1")
    dicom(tmp_path / "s", "2.dcm", "1.2.840.1")
    dicom(tmp_path / "s", "3.dcm", "1.2.840.2", typed=False)
    dicom(tmp_path / "s", "4.dcm", "1.2.840.2", typed=False)
    touch(tmp_path / "s", "5.dcm", "6.dcm")
    assert ids(find_slides([tmp_path / "s"])) == ["1", "3", "5", "6"]
    dicom(tmp_path / "t", "1.dcm", "1.2.840.1")
    assert len(find_slides([tmp_path], recursive=True)) == 5


def test_the_pictures_of_a_run_are_no_slides(tmp_path):
    touch(tmp_path, "a.svs", "results/slides/a/tissue.png", "results/slides/a/record.json", "pictures/b.png")
    assert ids(find_slides([tmp_path], recursive=True)) == ["a", "b"]
