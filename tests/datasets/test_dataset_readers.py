"""Each reader on a miniature in its set's true layout, and on what can go wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from scipy.io import savemat

from pathopan.classes import BREAST, NucleusClass, RegionClass, Taxonomy
from pathopan.datasets import (
    READERS,
    Source,
    bcss,
    brca_m2c,
    consep,
    dsb2018,
    lizard,
    monuseg,
    nucls,
    pannuke,
    panoptils,
    qupath,
    read_dataset,
    tiger,
)
from pathopan.datasets.outlines import Nucleus, blank_sample, crop_sample, paint_nuclei
from pathopan.datasets.sample import Sample
from pathopan.errors import DatasetError, UnknownLabel

RICH = Taxonomy(
    "rich",
    (*BREAST.regions, RegionClass(6, "necrosis", "excluded", (1, 1, 1), "Necrosis")),
    (*BREAST.nuclei, NucleusClass(5, "plasma_cell", "til", (1, 1, 1), "Plasma")),
)
TUMOR, STROMA, DENSE, OTHER, GLASS = 1, 2, 3, 4, 5
N_TUMOR, N_STROMAL, N_TIL, N_OTHER = 1, 2, 3, 4


def write_image(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array, np.uint8)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def pixels(height=12, width=12):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def square(x0, y0, x1, y1):
    return f"{x0},{x1},{x1},{x0}", f"{y0},{y0},{y1},{y1}"


def only(samples):
    (sample,) = list(samples)
    return sample


# ---------------------------------------------------------------------------------------------- BCSS
def make_bcss(root, mask):
    write_image(root / "images" / "TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500.png", pixels(2, 3))
    write_image(root / "masks" / "TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500.png", mask)


def test_bcss_maps_regions_and_says_that_nuclei_are_unlabelled(tmp_path):
    make_bcss(tmp_path, [[0, 1, 2], [3, 4, 20]])
    sample = only(bcss.read(tmp_path))
    assert sample.region.tolist() == [[0, TUMOR, STROMA], [DENSE, OTHER, OTHER]]
    assert (sample.mpp, sample.group, sample.labelled_nuclei) == (0.25, "TCGA-A1-A0SK", ())
    assert np.array_equal(sample.image, pixels(2, 3))
    assert sample.source.licence == "CC0-1.0"
    assert only(bcss.read(tmp_path, taxonomy=RICH)).region[1].tolist() == [DENSE, 6, OTHER]


def test_bcss_follows_the_folders_own_code_table(tmp_path):
    make_bcss(tmp_path, [[0, 1, 2], [2, 2, 1]])
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "gtruth_codes.tsv").write_text("label\tGT_code\nstroma\t1\nmostly_tumor\t2\n")
    assert only(bcss.read(tmp_path)).region.tolist() == [[0, STROMA, TUMOR], [TUMOR, TUMOR, STROMA]]
    (tmp_path / "meta" / "gtruth_codes.tsv").write_text("label\tGT_code\ncartilage\t1\n")
    with pytest.raises(UnknownLabel, match=r"gtruth_codes.tsv: unknown label 'cartilage'"):
        list(bcss.read(tmp_path))


def test_bcss_errors_name_the_file_and_the_value(tmp_path):
    with pytest.raises(DatasetError, match=r"masks: not found"):
        list(bcss.read(tmp_path))
    make_bcss(tmp_path, [[0, 1, 2], [3, 4, 99]])
    with pytest.raises(UnknownLabel, match=r"MPP-0.2500.png: unknown codes \[99\]"):
        list(bcss.read(tmp_path))
    (tmp_path / "masks" / "TCGA-A1-A0SK-DX1_xmin1_ymin2_MPP-0.2500.png").unlink()
    with pytest.raises(DatasetError, match=r"MPP-0.2500.png: has no .*masks/TCGA-A1.*png"):
        list(bcss.read(tmp_path))
    make_bcss(tmp_path, [[0, 1]])
    with pytest.raises(DatasetError, match=r"is \(1, 2\), its image \(2, 3\)"):
        list(bcss.read(tmp_path))


@pytest.mark.data
def test_bcss_reads_a_real_mask(tmp_path):
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "bcss_mask_sample"
    if not folder.is_dir():
        pytest.skip("the shared data folder is absent")
    mask = next(folder.glob("*.png"))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / mask.name).symlink_to(mask)
    (tmp_path / "sample_GTcodes.csv").symlink_to(folder / "sample_GTcodes.csv")
    codes = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    write_image(tmp_path / "images" / mask.name, np.zeros((*codes.shape, 3)))
    sample = only(bcss.read(tmp_path))
    counted = np.bincount(sample.region.ravel(), minlength=6)
    assert counted[TUMOR] == (codes == 1).sum() == 3_396_902
    assert counted[STROMA] == (codes == 2).sum()
    assert counted[DENSE] == (codes == 3).sum()
    assert counted[OTHER] == np.isin(codes, [13, 18]).sum()
    assert counted[0] == np.isin(codes, [0, 7]).sum()
    assert sample.group == "TCGA-A2-A0YE"


# ----------------------------------------------------------------------------------------- PanopTILs
TILE = "TCGA-S3-AA15-DX1_xmin55486_ymin28926_MPP-0.2500_xmin-0_ymin-0_xmax-1024_ymax-1024"
MANUAL_TILE = "TCGA-A1-A0SP-DX1_left-7582_top-55032_bottom-56251_right-8801"
PAINTED = (
    ("CancerEpithelium", "lymphocyte", "polyline", *square(1, 3, 4, 6)),
    ("TILsCell", "TILsCell", "polyline", *square(7, 7, 10, 10)),
)


def make_panoptils(base, tile=TILE, *, rows=PAINTED, typed=True, excluded=np.s_[:2]):
    """A tile whose mask excludes a part of it: nuclei were annotated in the rest, by default from row 2 on."""
    write_image(base / "rgbs" / f"{tile}.png", pixels())
    mask = np.zeros((12, 12, 3), np.uint8)
    mask[..., 0] = 1
    mask[:, 6:, 0] = 2
    mask[..., 1] = 9
    mask[..., 1][excluded] = 0
    write_image(base / "masks" / f"{tile}.png", mask)
    table = pd.DataFrame(rows, columns=["group", "raw_group", "type", "coords_x", "coords_y"])
    (base / "csv").mkdir(parents=True, exist_ok=True)
    (table if typed else table.drop(columns="type")).to_csv(base / "csv" / f"{tile}.csv")


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("release", ["", "tcga"])
def test_panoptils_keeps_the_lymphocyte_that_the_bootstrap_relabelled(tmp_path, release, typed):
    make_panoptils(tmp_path / release, typed=typed)
    sample = only(panoptils.read(tmp_path))
    assert sample.nuclei["class_id"].tolist() == [N_TIL, N_TIL]
    assert sample.image.shape == (10, 12, 3)
    assert np.array_equal(sample.image, pixels()[2:])
    assert np.unique(sample.region).tolist() == [TUMOR, STROMA]
    assert (sample.instances[1:4, 1:4] == 1).all()
    assert (sample.instances > 0).sum() == 18
    assert sample.nuclei[["x_px", "y_px"]].iloc[0].tolist() == [2.5, 2.5]
    assert sample.group == "TCGA-S3-AA15"
    assert sample.notes["relabelled nuclei"] == "1"
    final = only(panoptils.read(tmp_path, labels="group", crop=False))
    assert final.nuclei["class_id"].tolist() == [N_TUMOR, N_TIL]
    assert final.image.shape == (12, 12, 3)


@pytest.mark.parametrize("tile", [TILE, MANUAL_TILE])
def test_panoptils_tiles_are_coarser_than_their_names_say(tmp_path, tile):
    make_panoptils(tmp_path, tile)
    sample = only(panoptils.read(tmp_path))
    spanned_px, slide_mpp, tile_px = 8801 - 7582, 0.2521, 1024
    assert sample.mpp == pytest.approx(spanned_px * slide_mpp / tile_px, abs=0.001)
    assert sample.mpp == 0.3


def test_panoptils_pixels_that_the_mask_excludes_are_blank_glass(tmp_path):
    corner = np.s_[8:, 8:]
    make_panoptils(tmp_path, excluded=corner)
    for crop in (True, False):
        sample = only(panoptils.read(tmp_path, crop=crop))
        assert (sample.image[corner] == 255).all()
        assert (sample.region[corner] == 0).all()
        assert (sample.instances[corner] == 0).all()
        seen = np.ones((12, 12), bool)
        seen[corner] = False
        assert np.array_equal(sample.image[seen], pixels()[seen])
        assert (sample.region[seen] > 0).all()
        assert (sample.instances == 2).sum() == 5  # of nine: the corner has four
        assert sample.nuclei[["x_px", "y_px"]].values.tolist() == [[2.5, 4.5], [8.1, 8.1]]
    make_panoptils(tmp_path)
    assert (only(panoptils.read(tmp_path, crop=False)).image[:2] == 255).all()


def test_panoptils_nuclei_in_excluded_pixels_are_left_out(tmp_path):
    make_panoptils(tmp_path, excluded=np.s_[6:, 6:])
    assert only(panoptils.read(tmp_path)).nuclei["instance_id"].tolist() == [1]


def test_panoptils_tile_without_a_field_stays_as_it_is(tmp_path):
    make_panoptils(tmp_path, excluded=np.s_[:])
    sample = only(panoptils.read(tmp_path))
    assert np.array_equal(sample.image, pixels())
    assert (sample.region > 0).all()
    assert len(sample.nuclei) == 2


def test_panoptils_boxes_and_points_are_points_and_forbid_an_instance_map(tmp_path):
    rows = (
        *PAINTED,
        ("TILsCell", "lymphocyte", "rectangle", "2,6,6,2,2", "8,8,11,11,8"),
        ("TILsCell", "lymphocyte", "point", "9", "3"),
        ("CancerEpithelium", "tumor", "polyline", "5,7", "2,4"),  # encloses nothing
        ("fov", "fov", "rectangle", *square(0, 0, 12, 12)),
        ("CancerEpithelium", "tumor", "rectangle", None, None),
    )
    make_panoptils(tmp_path, MANUAL_TILE, rows=rows, excluded=np.s_[:0])
    sample = only(panoptils.read(tmp_path))
    assert sample.instances is None
    assert sample.nuclei.to_dict("list") == {
        "x_px": [2.5, 8.5, 4.0, 9.0, 6.0],
        "y_px": [4.5, 8.5, 9.5, 3.0, 3.0],
        "class_id": [N_TIL, N_TIL, N_TIL, N_TIL, N_TUMOR],
        "instance_id": [0] * 5,
    }


def test_panoptils_with_points_only(tmp_path):
    make_panoptils(tmp_path, MANUAL_TILE, rows=[("TILsCell", "lymphocyte", "point", 9, 3)])
    assert only(panoptils.read(tmp_path)).nuclei[["x_px", "y_px"]].values.tolist() == [[9.0, 1.0]]


def test_panoptils_errors(tmp_path):
    make_panoptils(tmp_path)
    table = tmp_path / "csv" / f"{TILE}.csv"
    pd.DataFrame([("x", "wizard", *square(1, 3, 4, 6))], columns=["group", "raw_group", "coords_x", "coords_y"]).to_csv(
        table
    )
    with pytest.raises(UnknownLabel, match="unknown label 'wizard'; known: AMBIGUOUS"):
        list(panoptils.read(tmp_path))
    table.write_text("group,coords_x,coords_y\n")
    with pytest.raises(DatasetError, match=r"lacks the columns \['raw_group'\]"):
        list(panoptils.read(tmp_path))
    table.write_text('raw_group,coords_x,coords_y\ntumor,"1,2","1,2,3"\n')
    with pytest.raises(DatasetError, match="equally long lists"):
        list(panoptils.read(tmp_path))
    table.write_text("raw_group,coords_x,coords_y\ntumor,1,\n")
    with pytest.raises(DatasetError, match=r"must be numbers, found 1(\.0)? and nan"):
        list(panoptils.read(tmp_path))
    table.unlink()
    with pytest.raises(DatasetError, match=r"has no .*csv"):
        list(panoptils.read(tmp_path))
    write_image(tmp_path / "masks" / f"{TILE}.png", np.zeros((12, 12)))
    table.write_text("raw_group,coords_x,coords_y\n")
    with pytest.raises(DatasetError, match="expected 3 channels"):
        list(panoptils.read(tmp_path))


# --------------------------------------------------------------------------------------------- NuCLS
FIELD = "TCGA-A1-A0SP-DX1_id-5ea409b1ddda5f8398990ccb_left-79405_top-51080_bottom-51405_right-79731"


def make_nucls(root, rows, fov=True):
    write_image(root / "rgb" / f"{FIELD}.png", pixels())
    columns = ["raw_classification", "type", "xmin", "ymin", "xmax", "ymax", "coords_x", "coords_y"]
    (root / "csv").mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=columns).to_csv(root / "csv" / f"{FIELD}.csv")
    if fov:
        bounds = pd.DataFrame([(FIELD, 1, 0, 11, 12)], columns=["fovname", "xmin", "ymin", "xmax", "ymax"])
        bounds.to_csv(root / "csv" / "ALL_FOV_LOCATIONS.csv")


OUTLINED = ("correction_tumor", "polyline", 2, 2, 5, 5, *square(2, 2, 5, 5))
BOXED = ("lymphocyte", "rectangle", 6, 6, 10, 10, "", "")


def test_nucls_boxes_are_points_and_forbid_an_instance_map(tmp_path):
    make_nucls(tmp_path, [OUTLINED, BOXED, ("fov", "rectangle", 1, 0, 11, 12, "", "")])
    sample = only(nucls.read(tmp_path))
    assert sample.instances is None
    assert sample.nuclei.to_dict("list") == {
        "x_px": [2.5, 7.0],
        "y_px": [3.5, 8.0],
        "class_id": [N_TUMOR, N_TIL],
        "instance_id": [0, 0],
    }
    assert sample.image.shape == (12, 10, 3)
    assert sample.mpp == 0.2


def test_nucls_boxes_as_ellipses(tmp_path):
    make_nucls(tmp_path, [OUTLINED, BOXED], fov=False)
    sample = only(nucls.read(tmp_path, boxes="ellipses"))
    assert sample.nuclei["instance_id"].tolist() == [1, 2]
    assert (sample.instances == 1).sum() == 9
    assert (sample.instances == 2).sum() == 12  # of 16 in the box
    assert sample.image.shape == (12, 12, 3)


def test_nucls_errors(tmp_path):
    make_nucls(tmp_path, [("gargoyle", *BOXED[1:])])
    with pytest.raises(UnknownLabel, match="unknown label 'gargoyle'"):
        list(nucls.read(tmp_path))
    table = tmp_path / "csv" / f"{FIELD}.csv"
    table.write_text("type,xmin,ymin,xmax,ymax,coords_x,coords_y\n")
    with pytest.raises(DatasetError, match="lacks a column raw_classification or group"):
        list(nucls.read(tmp_path))
    make_nucls(tmp_path, [BOXED], fov=False)
    (tmp_path / "csv" / "ALL_FOV_LOCATIONS.csv").write_text(f"fovname,xmin,ymin,xmax,ymax\n{FIELD},50,50,60,60\n")
    with pytest.raises(DatasetError, match="lies outside the 12 x 12 image"):
        list(nucls.read(tmp_path))


# ------------------------------------------------------------------------------------------- PanNuke
def make_pannuke(root, fold=1, flat=False):
    images_dir = root / (f"fold{fold}" if flat else f"Fold {fold}/images/fold{fold}")
    masks_dir = root / (f"fold{fold}" if flat else f"Fold {fold}/masks/fold{fold}")
    for folder in (images_dir, masks_dir):
        folder.mkdir(parents=True, exist_ok=True)
    masks = np.zeros((2, 8, 8, 6))
    masks[0, 0:2, 0:2, 0] = 3
    masks[0, 4:6, 4:6, 1] = 3  # ids repeat from channel to channel
    masks[0, 6:8, 0:2, 4] = 9
    np.save(images_dir / "images.npy", np.full((2, 8, 8, 3), 7.0))
    np.save(images_dir / "types.npy", np.array(["Breast", "Colon"]))
    np.save(masks_dir / "masks.npy", masks)


@pytest.mark.parametrize("flat", [False, True])
def test_pannuke_merges_channels_and_groups_by_fold(tmp_path, flat):
    make_pannuke(tmp_path, 1, flat)
    make_pannuke(tmp_path, 2, flat)
    samples = list(pannuke.read(tmp_path))
    assert [s.group for s in samples] == ["fold1", "fold1", "fold2", "fold2"]
    first, second = samples[:2]
    assert first.nuclei["class_id"].tolist() == [N_TUMOR, N_TIL, N_OTHER]
    assert [(first.instances == i).sum() for i in (1, 2, 3)] == [4, 4, 4]
    assert (first.image.dtype, first.notes["tissue"]) == (np.uint8, "Breast")
    assert len(second.nuclei) == 0
    assert [s.notes["tissue"] for s in pannuke.read(tmp_path, tissues={"Colon"})] == ["Colon", "Colon"]


def test_pannuke_errors(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no images.npy"):
        list(pannuke.read(tmp_path))
    make_pannuke(tmp_path)
    with pytest.raises(UnknownLabel, match=r"no tissue \['Horn'\]"):
        list(pannuke.read(tmp_path, tissues=["Horn"]))
    masks = tmp_path / "Fold 1" / "masks" / "fold1" / "masks.npy"
    np.save(masks, np.zeros((1, 8, 8, 6)))
    with pytest.raises(DatasetError, match="2 images, 1 masks and 2 types"):
        list(pannuke.read(tmp_path))
    np.save(masks, np.zeros((1, 8, 8)))
    with pytest.raises(DatasetError, match="expected 4 axes"):
        list(pannuke.read(tmp_path))
    masks.write_bytes(b"no array")
    with pytest.raises(DatasetError, match="cannot be read as an NPY array"):
        list(pannuke.read(tmp_path))
    masks.unlink()
    with pytest.raises(DatasetError, match=r"masks.npy of .* not found"):
        list(pannuke.read(tmp_path))


# ------------------------------------------------------------------------------------ Lizard, CoNIC
def test_lizard_joins_mats_and_images_at_any_depth(tmp_path):
    labels = tmp_path / "Lizard_Labels" / "Labels"
    labels.mkdir(parents=True)
    instances = np.zeros((8, 8))
    instances[1:3, 1:3], instances[5:7, 5:7] = 4, 9
    savemat(labels / "consep_1.mat", {"inst_map": instances, "id": [[4], [9]], "class": [[3], [2]]})
    with pytest.raises(DatasetError, match=r"has no image consep_1.png"):
        list(lizard.read(tmp_path))
    write_image(tmp_path / "Lizard_Images1" / "consep_1.png", pixels(8, 8))
    sample = only(lizard.read(tmp_path))
    assert sample.nuclei[["instance_id", "class_id"]].values.tolist() == [[4, N_TIL], [9, N_TUMOR]]
    assert sample.nuclei["x_px"].tolist() == [2, 6]
    savemat(labels / "consep_1.mat", {"inst_map": instances, "id": [[4], [9]], "class": [[3], [8]]})
    with pytest.raises(UnknownLabel, match=r"unknown classes \[8\]"):
        list(lizard.read(tmp_path))
    savemat(labels / "consep_1.mat", {"inst_map": instances, "id": [[4], [9]]})
    with pytest.raises(DatasetError, match="with inst_map, id and class"):
        list(lizard.read(tmp_path))


def test_conic_groups_patches_by_their_image(tmp_path):
    labels = np.zeros((3, 8, 8, 2), np.uint16)
    labels[0, 2:4, 2:4] = [5, 4]
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "labels.npy", labels)
    (tmp_path / "patch_info.csv").write_text("patch_info\nconsep_1-0000\nconsep_1-0001\ncrag_2-0000\n")
    samples = list(lizard.read_conic(tmp_path))
    assert [s.group for s in samples] == ["consep_1", "consep_1", "crag_2"]
    assert samples[0].nuclei["class_id"].tolist() == [N_TIL]
    assert next(lizard.read_conic(tmp_path, taxonomy=RICH)).nuclei["class_id"].tolist() == [5]
    (tmp_path / "patch_info.csv").write_text("patch_info\na-0\n")
    with pytest.raises(DatasetError, match="3 images, 3 labels and 1 patch names"):
        list(lizard.read_conic(tmp_path))


# ---------------------------------------------------------------------------------- MoNuSeg, MoNuSAC
def xml(*layers):
    body = ""
    for name, rings in layers:
        regions = "".join(
            "<Region><Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring) + "</Vertices></Region>"
            for ring in rings
        )
        attribute = f'<Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes>' if name else ""
        body += f"<Annotation Id='1'>{attribute}<Regions>{regions}</Regions></Annotation>"
    return f"<?xml version='1.0'?><Annotations MicronsPerPixel='0.252'>{body}</Annotations>"


BOX = [(1, 1), (4, 1), (4, 4), (1, 4)]
FAR = [(6.5, 6.2), (9.5, 6.2), (9.5, 9.2), (6.5, 9.2)]


@pytest.mark.parametrize("folder", ["Tissue Images", "Tissue images", None])
def test_monuseg_in_both_layouts(tmp_path, folder):
    images, annotations = (tmp_path / folder, tmp_path / "Annotations") if folder else (tmp_path, tmp_path)
    for folder in (images, annotations):
        folder.mkdir(exist_ok=True)
    tifffile.imwrite(images / "TCGA-18-5592-01Z-00-DX1.tif", pixels(), photometric="rgb")
    (annotations / "TCGA-18-5592-01Z-00-DX1.xml").write_text(xml(("", [BOX, FAR, [(5, 5), (5, 5)]])))
    sample = only(monuseg.read(tmp_path))
    assert sample.nuclei["class_id"].tolist() == [0, 0]
    assert [(sample.instances == i).sum() for i in (1, 2)] == [9, 9]
    assert np.array_equal(sample.image, pixels())
    assert sample.group == "TCGA-18-5592"
    (annotations / "TCGA-18-5592-01Z-00-DX1.xml").write_text("<Annotations>")
    with pytest.raises(DatasetError, match="cannot be read as ImageScope XML"):
        list(monuseg.read(tmp_path))
    (images / "TCGA-18-5592-01Z-00-DX1.tif").unlink()
    with pytest.raises(DatasetError, match=r"the image of .* not found"):
        list(monuseg.read(tmp_path))


@pytest.mark.parametrize("suffix", ["tif", "svs"])
def test_monusac_reads_classes_from_layers(tmp_path, suffix):
    patient = tmp_path / "TCGA-55-1594-01Z-00-DX1"
    patient.mkdir()
    path = patient / f"TCGA-55-1594-01Z-00-DX1_001.{suffix}"
    tifffile.imwrite(path, pixels(), photometric="rgb")
    path.with_suffix(".xml").write_text(xml(("Epithelial", [BOX]), ("Lymphocyte", [FAR])))
    sample = only(monuseg.read_monusac(tmp_path))
    assert sample.nuclei["class_id"].tolist() == [N_TUMOR, N_TIL]
    assert sample.labelled_nuclei == (N_TUMOR, N_TIL)
    assert sample.group == "TCGA-55-1594"
    path.with_suffix(".xml").write_text(xml(("Kraken", [BOX])))
    with pytest.raises(UnknownLabel, match="unknown label 'Kraken'"):
        list(monuseg.read_monusac(tmp_path))


def test_tiffs_that_are_no_rgb_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(xml(("", [BOX])))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint16))
    with pytest.raises(DatasetError, match=r"expected an 8-bit RGB image, found uint16"):
        list(monuseg.read(tmp_path))
    (tmp_path / "a.tif").write_bytes(b"II nothing")
    with pytest.raises(DatasetError, match="cannot be read as an image"):
        list(monuseg.read(tmp_path))


# --------------------------------------------------------------------------------------------- TIGER
def make_tiger(root, category="lymphocytes and plasma cells"):
    base = root / "roi-level-annotations"
    for name, stem in (("tissue-bcss", "TCGA-A1-A0SK-01Z_[1, 2, 3, 4]"), ("tissue-cells", "100B_[5, 6, 7, 8]")):
        write_image(base / name / "images" / f"{stem}.png", pixels(4, 4))
        write_image(base / name / "masks" / f"{stem}.png", [[0, 1, 2, 3], [4, 5, 6, 7], [0] * 4, [0] * 4])
    coco = {
        "images": [{"id": 7, "file_name": "tissue-cells/images/100B_[5, 6, 7, 8].png", "width": 4, "height": 4}],
        "categories": [{"id": 1, "name": category}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 0, 2, 2]}],
    }
    (base / "tissue-cells" / "tiger-coco.json").write_text(json.dumps(coco))
    return base


def test_tiger_labels_tils_where_it_has_cells(tmp_path):
    base = make_tiger(tmp_path)
    tissue, cells = list(tiger.read(tmp_path))
    assert tissue.region[:2].tolist() == [[0, TUMOR, STROMA, OTHER], [OTHER, OTHER, DENSE, OTHER]]
    assert (tissue.group, tissue.labelled_nuclei) == ("TCGA-A1-A0SK", ())
    assert (cells.group, cells.labelled_nuclei) == ("100B", (N_TIL,))
    assert cells.nuclei[["x_px", "y_px", "class_id"]].values.tolist() == [[2, 1, N_TIL]]
    assert len(list(tiger.read(base))) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="tissue-bcss: not found"):
        list(tiger.read(tmp_path / "empty"))


def test_tiger_errors(tmp_path):
    base = make_tiger(tmp_path, category="mast cells")
    with pytest.raises(UnknownLabel, match="unknown category 'mast cells'"):
        list(tiger.read(tmp_path))
    (base / "tissue-cells" / "tiger-coco.json").write_text('{"images": []}')
    with pytest.raises(DatasetError, match="expected COCO's"):
        list(tiger.read(tmp_path))
    (base / "tissue-cells" / "tiger-coco.json").unlink()
    with pytest.raises(DatasetError, match=r"tiger-coco.json"):
        list(tiger.read(tmp_path))


# -------------------------------------------------------------------------------------------- QuPath
def feature(kind, name, ring, **more):
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    properties = {"objectType": kind, "classification": {"name": name, "color": [1, 2, 3]}}
    return {"type": "Feature", "geometry": geometry, "properties": properties, **more}


def rectangle(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def write_geojson(path, features):
    data = json.dumps({"type": "FeatureCollection", "features": features}).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_qupath_annotations_become_a_sample_per_roi(tmp_path):
    write_image(tmp_path / "case.png", pixels(40, 40))
    write_geojson(
        tmp_path / "case.regions.geojson",
        [
            feature("annotation", "Region*", rectangle(10, 10, 30, 20)),
            feature("annotation", "Stroma", rectangle(0, 0, 40, 40)),
            feature("annotation", "Tumor", rectangle(10, 10, 20, 30)),
        ],
    )
    write_geojson(
        tmp_path / "case.nuclei.geojson.gz",
        [
            feature("detection", "Immune cells", rectangle(12, 12, 16, 16)),
            feature("detection", "Tumor", rectangle(0, 0, 4, 4)),
            feature(
                "cell",
                "Tumor",
                rectangle(20, 10, 30, 20),
                nucleusGeometry={"type": "Polygon", "coordinates": [[*rectangle(22, 12, 26, 16), [22, 12]]]},
            ),
        ],
    )
    sample = only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.25))
    assert sample.image.shape == (5, 10, 3)
    assert sample.region.tolist() == [[TUMOR] * 5 + [STROMA] * 5] * 5
    assert sample.nuclei[["x_px", "y_px", "class_id"]].values.tolist() == [[2, 2, N_TIL], [7, 2, N_TUMOR]]
    assert [(sample.instances == i).sum() for i in (1, 2)] == [4, 4]
    assert sample.sample_id == "case_0"


def test_qupath_without_roi_takes_the_whole_image_and_names_can_be_given(tmp_path):
    write_image(tmp_path / "TCGA-A1-A0SK.png", pixels(8, 8))
    points = {"type": "Feature", "geometry": {"type": "MultiPoint", "coordinates": [[1, 1], [5, 6]]},
              "properties": {"objectType": "annotation", "classification": {"names": ["TIL"]}}}  # fmt: skip
    nest = feature("annotation", "Nest", rectangle(0, 0, 4, 8))
    write_geojson(tmp_path / "TCGA-A1-A0SK.geojson", [points, nest])
    names = {"Nest": "tumor"}
    sample = only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5, names=names))
    assert sample.region.tolist() == [[TUMOR] * 4 + [0] * 4] * 8
    assert sample.nuclei[["x_px", "y_px", "class_id"]].values.tolist() == [[1, 1, N_TIL], [5, 6, N_TIL]]
    assert sample.instances is None
    assert sample.group == "TCGA-A1-A0SK"
    assert only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5, names={"Nest": ""})).region.max() == 0
    (tmp_path / "patients.csv").write_text("slide,patient\nTCGA-A1-A0SK,p7\n")
    assert only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5, names=names)).group == "p7"
    with pytest.raises(UnknownLabel, match="class 'Nest' is none of"):
        list(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5))


def test_qupath_outside_an_roi_that_is_no_rectangle_is_blank_glass(tmp_path):
    write_image(tmp_path / "case.png", pixels(20, 20))
    inside, crossing, outside = rectangle(2, 2, 6, 6), rectangle(0, 17, 4, 20), rectangle(14, 14, 18, 18)
    nuclei = [feature("detection", "Tumor", ring) for ring in (inside, crossing, outside)]
    drawn = [
        feature("annotation", "Region*", [[0, 0], [20, 0], [0, 20]]),
        feature("annotation", "Stroma", rectangle(0, 0, 20, 20)),
    ]
    write_geojson(tmp_path / "case.geojson", [*drawn, *nuclei])
    sample = only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5))
    y, x = np.mgrid[:20, :20]
    known, far = x + y < 19, x + y > 19  # the border leads through the middles of the pixels between
    assert np.array_equal(sample.image[known], pixels(20, 20)[known])
    assert (sample.image[far] == 255).all()
    assert (sample.region[known] == STROMA).all()
    assert (sample.region[far] == 0).all()
    assert not sample.instances[far].any()
    assert sample.nuclei["instance_id"].tolist() == [1, 2]
    assert [(sample.instances == i).sum() for i in (1, 2)] == [16, 6]
    centre = sample.nuclei[["x_px", "y_px"]].iloc[1]
    assert centre["x_px"] + centre["y_px"] < 20  # of what is seen; as drawn it is at 2, 18.5


def test_qupath_points_outside_an_roi_that_is_no_rectangle_say_nothing(tmp_path):
    write_image(tmp_path / "case.png", pixels(20, 20))
    points = {"type": "Feature", "geometry": {"type": "MultiPoint", "coordinates": [[3, 3], [16, 16]]},
              "properties": {"objectType": "annotation", "classification": {"name": "Tumor"}}}  # fmt: skip
    roi = feature("annotation", "ROI", [[0, 0], [20, 0], [0, 20]])
    write_geojson(tmp_path / "case.geojson", [roi, points, feature("detection", "Tumor", rectangle(5, 5, 9, 9))])
    sample = only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5))
    assert sample.nuclei[["x_px", "y_px"]].values.tolist() == [[3, 3], [7, 7]]
    write_geojson(tmp_path / "case.geojson", [roi, {**points, "geometry": {"type": "Point", "coordinates": [16, 16]}},
                                              feature("detection", "Tumor", rectangle(5, 5, 9, 9))])  # fmt: skip
    assert (only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5)).instances == 1).sum() == 16


@pytest.mark.parametrize("bounds", [(10, 10, 30, 20), (10.4, 9.7, 30.6, 20.2)])
def test_qupath_rectangles_have_no_blank_border(tmp_path, bounds):
    write_image(tmp_path / "case.png", pixels(40, 40))
    write_geojson(tmp_path / "case.geojson", [feature("annotation", "ROI", rectangle(*bounds))])
    sample = only(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5))
    x0, y0, x1, y1 = (*np.floor(bounds[:2]).astype(int), *np.ceil(bounds[2:]).astype(int))
    assert np.array_equal(sample.image, pixels(40, 40)[y0:y1, x0:x1])


def make_qupath_slides(root, *names):
    for name in names:
        write_image(root / f"{name}.png", pixels(8, 8))
        write_geojson(root / f"{name}.geojson", [])


@pytest.mark.parametrize("ending", ["", ".png", ".PNG", ".svs", ".ome.tif"])
def test_qupath_patients_are_found_by_name_or_file_name(tmp_path, ending):
    make_qupath_slides(tmp_path, "001", "002", "H.1-22")
    rows = "".join(f"{name}{ending},{patient}\n" for name, patient in (("001", "07"), ("002", "07"), ("H.1-22", "NA")))
    (tmp_path / "patients.csv").write_text(f"slide,patient\n{rows}")
    assert [sample.group for sample in qupath.read(tmp_path, slide_mpp=0.5)] == ["07", "07", "NA"]


@pytest.mark.parametrize("rows", ["001,P7\n", "001,P7\n002,\n", "001,P7\n002\n"])
def test_qupath_slide_without_a_patient_is_named(tmp_path, rows):
    make_qupath_slides(tmp_path, "001", "002")
    (tmp_path / "patients.csv").write_text(f"slide,patient\n{rows}")
    with pytest.raises(DatasetError, match=r"patients\.csv: names no patient for the slide 002; add a row"):
        next(qupath.read(tmp_path, slide_mpp=0.5))


def test_qupath_errors(tmp_path):
    with pytest.raises(DatasetError, match=r"holds no \*.geojson"):
        list(qupath.read(tmp_path))
    (tmp_path / "a.geojson").write_text("[1, 2]")
    with pytest.raises(DatasetError, match="expected a GeoJSON FeatureCollection"):
        list(qupath.read(tmp_path))
    write_geojson(tmp_path / "a.geojson", [])
    with pytest.raises(DatasetError, match=r"has no slide or image a\.\* beside it"):
        list(qupath.read(tmp_path))


def test_qupath_refuses_a_large_slide_without_roi(tmp_path, monkeypatch):
    monkeypatch.setattr(qupath, "MAX_PIXELS", 10)
    write_image(tmp_path / "a.png", pixels(8, 8))
    write_geojson(tmp_path / "a.geojson", [])
    with pytest.raises(DatasetError, match="draw annotations of class ROI"):
        list(qupath.read(tmp_path, mpp=0.5, slide_mpp=0.5))


@pytest.mark.data
def test_qupath_reads_a_real_export():
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "qupath_geojson" / "qupath05.geojson"
    if not path.is_file():
        pytest.skip("the shared data folder is absent")
    objects = qupath.read_objects(path)
    assert [name for name, _ in objects.regions] == ["UT", "I", "I"]
    assert all(shape.is_valid and shape.area > 0 for _, shape in objects.regions)


# ------------------------------------------------------------------------------------------ registry
SOURCES = [
    value
    for module in (bcss, brca_m2c, consep, dsb2018, lizard, monuseg, nucls, pannuke, panoptils, qupath, tiger)
    for value in vars(module).values()
    if isinstance(value, Source)
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_set_states_its_licence_and_how_to_cite_it(source):
    assert source.licence
    assert source.organ in ("breast", "colon", "mixed")
    dated = any(str(year) in source.citation for year in range(2015, 2027))
    assert dated or source.name in ("QuPath", "TIGER")


def test_every_set_has_its_own_name():
    assert len({source.name for source in SOURCES}) == len(SOURCES) == len(READERS)


def test_every_reader_has_a_name_and_a_wrong_name_is_told(tmp_path):
    make_bcss(tmp_path, [[1, 1, 2], [2, 2, 2]])
    assert only(read_dataset("bcss", tmp_path)).source.name == "BCSS"
    with pytest.raises(DatasetError, match="no reader for data set 'bscs'; did you mean 'bcss'"):
        read_dataset("bscs", tmp_path)


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_wrong_folder_is_named(name, tmp_path):
    with pytest.raises(DatasetError, match="nowhere"):
        list(read_dataset(name, tmp_path / "nowhere"))


def test_a_nucleus_that_reaches_in_has_the_centre_of_what_is_seen():
    reaching, inside, out = (
        Nucleus(shapely.box(-8, 4, 4, 10), 1),
        Nucleus(shapely.box(10, 10, 16, 16), 2),
        Nucleus(shapely.box(-9, 4, -2, 9), 1),
    )
    table, instances = paint_nuclei([reaching, inside, out], shape=(20, 30))
    assert table[["x_px", "y_px"]].to_numpy().tolist() == [[2.0, 7.0], [13.0, 13.0]]
    assert table["instance_id"].tolist() == [1, 2]
    source = Source("Made", "CC0-1.0", "nobody", "breast")
    whole = Sample(
        sample_id="s",
        image=np.zeros((20, 30, 3), np.uint8),
        mpp=0.5,
        group="g",
        source=source,
        nuclei=table,
        instances=instances,
    )
    left = crop_sample(whole, box=(14, 0, 30, 20))
    assert left.nuclei[["x_px", "y_px"]].to_numpy().tolist() == [[1.0, 13.0]]


def test_blanking_leaves_the_sample_as_it_is():
    table, instances = paint_nuclei([Nucleus(shapely.box(1, 1, 5, 5), 1)], shape=(6, 8))
    image, region = np.full((6, 8, 3), 9, np.uint8), np.full((6, 8), STROMA, np.uint8)
    source = Source("Made", "CC0-1.0", "nobody", "breast")
    whole = Sample("s", image, 0.5, "g", source, table, instances, region)
    left = blank_sample(whole, known=np.arange(8) < np.full((6, 1), 2))
    assert left.image[..., 0].tolist() == [[9] * 2 + [255] * 6] * 6
    assert left.region.tolist() == [[STROMA] * 2 + [0] * 6] * 6
    assert (left.image.dtype, left.region.dtype, left.instances.dtype) == (np.uint8, np.uint8, np.int32)
    assert left.nuclei[["x_px", "y_px", "instance_id"]].values.tolist() == [[1.5, 3, 1]]
    assert (image == 9).all()
    assert (region == STROMA).all()
    assert (instances > 0).sum() == 16
    assert table[["x_px", "y_px"]].values.tolist() == [[3, 3]]
