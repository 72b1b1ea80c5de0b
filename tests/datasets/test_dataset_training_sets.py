"""The three sets that the packaged recipe reads, in miniature, and the regions derived from their nuclei."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from pathopan.classes import BREAST, NucleusClass, Taxonomy
from pathopan.datasets import brca_m2c, consep, dsb2018
from pathopan.datasets.derived import DerivationRules, derive_regions
from pathopan.datasets.sample import Sample, Source, empty_nuclei
from pathopan.errors import ConfigError, DatasetError, UnknownLabel
from pathopan.training.recipe import Recipe, read_recipe, read_samples

N_TUMOR, N_STROMAL, N_TIL, N_OTHER = (BREAST.nucleus(name).id for name in ("tumor", "stromal", "til", "other"))
TUMOR, STROMA, DENSE, OTHER, GLASS = (
    BREAST.region(name).id for name in ("tumor", "stroma", "tils", "other", "background")
)


def write(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def pixels(height: int = 12, width: int = 14) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8)


def make_brca_m2c(root: Path, points: str, name: str = "TCGA-A1-A0SK-01_1") -> None:
    write(root / "images" / f"{name}.png", pixels())
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / f"{name}_gt_class_coords.txt").write_text(points)


def make_outlined(root: Path, instances, kinds=None, name: str = "one") -> None:
    instances = np.asarray(instances, np.uint16)
    write(root / "images" / f"{name}.png", pixels(*instances.shape))
    write(root / "inst" / f"{name}.png", instances)
    if kinds is not None:
        write(root / "type" / f"{name}.png", np.asarray(kinds, np.uint8))


def test_brca_m2c_points_lie_in_the_middle_of_their_pixels(tmp_path):
    make_brca_m2c(tmp_path, "3 5 1\n4 6 2\n0 0 3\n")
    (sample,) = brca_m2c.read(tmp_path)
    assert (sample.group, sample.mpp, sample.instances, sample.region) == ("TCGA-A1-A0SK", 0.5, None, None)
    assert sample.nuclei[["x_px", "y_px"]].to_numpy().tolist() == [[5.5, 3.5], [6.5, 4.5], [0.5, 0.5]]
    assert sample.nuclei["class_id"].tolist() == [N_TIL, N_TUMOR, N_STROMAL]
    assert sample.nuclei["instance_id"].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(sample.image, pixels())


def test_brca_m2c_reads_the_published_lists(tmp_path):
    for name in ("TCGA-A1-A0SK-01_1", "TCGA-B2-B0SK-01_1"):
        make_brca_m2c(tmp_path, "1 1 1\n", name)
    (tmp_path / "val.txt").write_text("TCGA-B2-B0SK-01_1.png\n")
    assert [sample.group for sample in brca_m2c.read(tmp_path, subset="val")] == ["TCGA-B2-B0SK"]
    with pytest.raises(DatasetError, match=r"train\.txt: not found"):
        list(brca_m2c.read(tmp_path, subset="train"))


@pytest.mark.filterwarnings("error")
def test_brca_m2c_may_hold_an_image_without_nuclei(tmp_path):
    make_brca_m2c(tmp_path, "")
    (sample,) = brca_m2c.read(tmp_path)
    assert len(sample.nuclei) == 0


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        ("1 2 7\n", UnknownLabel, r"unknown classes \[7\]; BRCA-M2C has"),
        ("1 2\n", DatasetError, "expected rows of 'y x class'"),
        ("a b c\n", DatasetError, "expected rows of 'y x class'"),
    ],
)
def test_brca_m2c_errors_name_the_file(tmp_path, points, kind, message):
    make_brca_m2c(tmp_path, points)
    with pytest.raises(kind, match=f"_gt_class_coords.txt: {message}"):
        list(brca_m2c.read(tmp_path))


@pytest.mark.parametrize("points", ["1 2 1 1\n1 2 3 1\n3 3 1 1\n", "1 2 1 1\n", "1\n2\n3\n"])
def test_brca_m2c_rows_have_three_numbers(tmp_path, points):
    make_brca_m2c(tmp_path, points)
    with pytest.raises(
        DatasetError, match=r"_gt_class_coords\.txt: expected rows of 'y x class', found rows of \d num"
    ):
        list(brca_m2c.read(tmp_path))


@pytest.mark.parametrize("points", ["3 5 1", "3 5 1\n", "\n3 5 1\r\n \n"])
def test_brca_m2c_may_hold_one_nucleus(tmp_path, points):
    make_brca_m2c(tmp_path, points)
    (sample,) = brca_m2c.read(tmp_path)
    assert sample.nuclei[["x_px", "y_px", "class_id"]].to_numpy().tolist() == [[5.5, 3.5, N_TIL]]


COLOR = (1, 1, 1)
OWN_NAMES = Taxonomy(
    "own names",
    BREAST.regions,
    (NucleusClass(1, "lymphocyte", "til", COLOR, "L"), NucleusClass(2, "carcinoma", "tumor", COLOR, "C")),
)
"""No class is named til or tumor, and there is none for stromal and other nuclei."""


def test_brca_m2c_in_classes_of_other_names(tmp_path):
    make_brca_m2c(tmp_path, "3 5 1\n4 6 2\n0 0 3\n")
    (sample,) = brca_m2c.read(tmp_path, taxonomy=OWN_NAMES)
    assert sample.nuclei["class_id"].tolist() == [1, 2, 0]


def test_consep_in_classes_of_other_names(tmp_path):
    make_published_consep(tmp_path / "published", [[0, 1, 2, 3], [4, 5, 6, 7]])
    (sample,) = consep.read(tmp_path / "published", taxonomy=OWN_NAMES)
    assert sample.nuclei["class_id"].tolist() == [0, 1, 2, 2, 0, 0, 0]
    make_outlined(tmp_path / "merged", [[1, 2, 3, 4]], [[1, 2, 3, 4]])
    (sample,) = consep.read(tmp_path / "merged", taxonomy=OWN_NAMES)
    assert sample.nuclei["class_id"].tolist() == [0, 1, 2, 0]


def test_brca_m2c_without_a_label_file(tmp_path):
    make_brca_m2c(tmp_path, "")
    (tmp_path / "labels" / "TCGA-A1-A0SK-01_1_gt_class_coords.txt").unlink()
    with pytest.raises(DatasetError, match=r"gt_class_coords\.txt"):
        list(brca_m2c.read(tmp_path))


def test_consep_classes_follow_the_majority_of_pixels(tmp_path):
    instances, kinds = np.zeros((8, 10)), np.zeros((8, 10))
    instances[1:4, 1:4], kinds[1:4, 1:4] = 1, 3
    kinds[1, 1] = 2
    instances[5:7, 6:9], kinds[5:7, 6:9] = 700, 4
    make_outlined(tmp_path, instances, kinds)
    (sample,) = consep.read(tmp_path)
    assert (sample.mpp, sample.group) == (0.25, "one")
    assert sample.nuclei["instance_id"].tolist() == [1, 700]
    assert sample.nuclei["class_id"].tolist() == [N_TUMOR, N_STROMAL]
    assert sample.nuclei[["x_px", "y_px"]].to_numpy().tolist() == [[2.5, 2.5], [7.5, 6.0]]
    np.testing.assert_array_equal(sample.instances, instances)


def test_consep_errors(tmp_path):
    make_outlined(tmp_path, np.ones((4, 4)), np.full((4, 4), 9))
    with pytest.raises(UnknownLabel, match="unknown class 9; CoNSeP has"):
        list(consep.read(tmp_path))
    (tmp_path / "type" / "one.png").unlink()
    with pytest.raises(DatasetError, match=r"type/one\.png: not found"):
        list(consep.read(tmp_path))
    (tmp_path / "type" / "one.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"type/one\.png: cannot be read as a label image"):
        list(consep.read(tmp_path))
    write(tmp_path / "type" / "one.png", np.ones((2, 2), np.uint8))
    with pytest.raises(DatasetError, match=r"instances are \(4, 4\) and classes \(2, 2\), the image \(4, 4\)"):
        list(consep.read(tmp_path))


def make_published_consep(root: Path, kinds, part: str = "Train", name: str = "train_1") -> None:
    kinds = np.asarray(kinds, float)
    write(root / part / "Images" / f"{name}.png", pixels(*kinds.shape))
    (root / part / "Labels").mkdir(exist_ok=True)
    stored = {"inst_map": np.arange(kinds.size).reshape(kinds.shape), "type_map": kinds}
    savemat(root / part / "Labels" / f"{name}.mat", stored)


def test_consep_as_its_authors_publish_it(tmp_path):
    make_published_consep(tmp_path, [[0, 1, 2, 3], [4, 5, 6, 7]])
    make_published_consep(tmp_path, [[2, 2]], "Test", "test_1")
    train, test = consep.read(tmp_path)
    assert train.nuclei["class_id"].tolist() == [N_OTHER, N_TIL, N_TUMOR, N_TUMOR, N_STROMAL, N_STROMAL, N_STROMAL]
    assert (train.sample_id, test.sample_id, test.nuclei["class_id"].tolist()) == ("train_1", "test_1", [N_TIL])
    make_published_consep(tmp_path, [[8]], "Test", "test_2")
    with pytest.raises(UnknownLabel, match=r"test_2\.mat: unknown class 8"):
        list(consep.read(tmp_path))
    (tmp_path / "Train" / "Labels" / "train_1.mat").unlink()
    with pytest.raises(DatasetError, match=r"train_1\.png: has no .*train_1\.mat"):
        list(consep.read(tmp_path))


def test_dsb2018_as_the_bowl_publishes_it(tmp_path):
    one, two = np.zeros((12, 14), np.uint8), np.zeros((12, 14), np.uint8)
    one[1:4, 1:4], two[6:9, 6:11] = 255, 255
    for name, image in (("tissue", pixels()), ("fluorescence", np.repeat(pixels()[..., :1], 3, axis=2))):
        write(tmp_path / name / "images" / f"{name}.png", image)
        write(tmp_path / name / "masks" / "0a.png", one)
        write(tmp_path / name / "masks" / "7f.png", two)
    (sample,) = dsb2018.read(tmp_path)
    assert sample.sample_id == "tissue"
    assert [(sample.instances == i).sum() for i in (1, 2)] == [9, 15]
    write(tmp_path / "tissue" / "masks" / "9f.png", one[:4])
    with pytest.raises(DatasetError, match=r"9f\.png: is \(4, 14\), its image \(12, 14\)"):
        list(dsb2018.read(tmp_path))
    for path in (tmp_path / "tissue" / "masks").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"tissue/masks: holds no \*\.png"):
        list(dsb2018.read(tmp_path))
    (tmp_path / "tissue" / "images" / "tissue.png").unlink()
    with pytest.raises(DatasetError, match="all 1 images are gray"):
        list(dsb2018.read(tmp_path))


@pytest.mark.parametrize("reader", [brca_m2c, consep, dsb2018])
def test_a_folder_without_images_is_no_empty_data_set(tmp_path, reader):
    for name in ("images", "labels", "inst", "type"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=r"images: holds no \*\.png"):
        list(reader.read(tmp_path))


@pytest.mark.parametrize(("side", "mpp"), [(16, np.sqrt(40) / 16), (60, 0.2), (3, 1.0)])
def test_dsb2018_estimates_the_mpp_from_the_median_nucleus(tmp_path, side, mpp):
    instances = np.zeros((130, 130))
    instances[:side, :side] = 1
    instances[65 : 65 + side, 65 : 65 + side] = 2
    make_outlined(tmp_path, instances)
    (sample,) = dsb2018.read(tmp_path)
    assert sample.mpp == pytest.approx(mpp)
    assert "estimated" in sample.notes["mpp"]
    assert sample.nuclei["class_id"].tolist() == [0, 0]


def test_dsb2018_without_nuclei(tmp_path):
    make_outlined(tmp_path, np.zeros((6, 6)))
    (sample,) = dsb2018.read(tmp_path)
    assert len(sample.nuclei) == 0
    assert sample.mpp == pytest.approx(0.5)


def test_the_recipe_reads_all_three_and_derives_regions_where_nuclei_have_classes(tmp_path):
    make_brca_m2c(tmp_path / "brca_m2c", "3 5 1\n")
    make_outlined(tmp_path / "consep", np.eye(40), np.eye(40))
    make_outlined(tmp_path / "dsb2018_stained", np.eye(40))
    samples = {sample.source.name: sample for sample in read_samples(tmp_path, Recipe("x"))}
    assert set(samples) == set(read_recipe("breast-he-1").shares)
    assert {name: sample.region_derived for name, sample in samples.items()} == {
        "BRCA-M2C": True,
        "CoNSeP": True,
        "DSB2018": False,
    }


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"brca_m2c: not found"):
        read_samples(tmp_path, Recipe("x"))
    assert not issubclass(DatasetError, ConfigError)


# ----------------------------------------------------------------------------------------------- derived regions
def field(*groups: tuple[int, tuple[int, int, int, int], float], side: int = 400) -> Sample:
    """Nuclei of a class on a lattice inside a rectangle (x0, y0, x1, y1), so many pixels apart; textured pink."""
    rows = [
        (x, y, kind)
        for kind, (x0, y0, x1, y1), apart in groups
        for x in np.arange(x0 + apart / 2, x1, apart)
        for y in np.arange(y0 + apart / 2, y1, apart)
    ]
    nuclei = pd.DataFrame(rows, columns=["x_px", "y_px", "class_id"]).assign(instance_id=0) if rows else empty_nuclei()
    image = np.random.default_rng(0).integers(150, 220, (side, side, 3), dtype=np.uint8)
    return Sample("field", image, 0.5, "g", Source("made up", "", "", ""), nuclei)


def test_regions_follow_the_nuclei():
    left, middle, right = (0, 0, 120, 400), (120, 0, 260, 400), (260, 0, 400, 400)
    made = derive_regions(field((N_TUMOR, left, 24), (N_STROMAL, middle, 32), (N_TIL, right, 16)))
    assert made.region_derived
    assert (made.region[50:350, 20:90] == TUMOR).mean() > 0.95
    assert (made.region[50:350, 160:220] == STROMA).mean() > 0.95
    assert (made.region[50:350, 300:380] == DENSE).mean() > 0.95


def test_sparse_tils_make_no_dense_region():
    made = derive_regions(field((N_TIL, (0, 0, 400, 400), 80)))
    assert not (made.region[60:340, 60:340] == DENSE).any()


def test_where_there_are_hardly_any_nuclei_nothing_is_said():
    made = derive_regions(field((N_TUMOR, (0, 0, 100, 400), 24)))
    assert (made.region[:, 250:] == 0).all()
    assert not derive_regions(field()).region.any()


def test_other_nuclei_make_other_tissue():
    made = derive_regions(field((N_OTHER, (0, 0, 400, 400), 24)))
    assert (made.region == OTHER).mean() > 0.95


def test_bare_glass_is_background_even_among_nuclei():
    sample = field((N_TUMOR, (0, 0, 400, 400), 24))
    sample.image[100:300, 100:300] = 245
    made = derive_regions(sample)
    assert (made.region[140:260, 140:260] == GLASS).all()
    assert (made.region[:60] == TUMOR).mean() > 0.95


def test_lengths_are_micrometres():
    """The same field at half the mpp, twice as large, has the same regions."""
    coarse = field((N_TUMOR, (0, 0, 100, 200), 12), (N_STROMAL, (100, 0, 200, 200), 12), side=200)
    scaled = coarse.nuclei.assign(x_px=coarse.nuclei["x_px"] * 2, y_px=coarse.nuclei["y_px"] * 2)
    image = np.kron(coarse.image, np.ones((2, 2, 1), np.uint8))
    fine = Sample("fine", image, 0.25, "g", coarse.source, scaled)
    first, second = derive_regions(coarse).region, derive_regions(fine).region[::2, ::2]
    assert (first == second).mean() > 0.98


def test_no_blur_is_no_option_but_rules_are():
    made = field((N_TIL, (0, 0, 400, 400), 50))
    eager = DerivationRules(dense_per_mm2=100.0)
    assert (derive_regions(made, rules=eager).region == DENSE).mean() > 0.9
