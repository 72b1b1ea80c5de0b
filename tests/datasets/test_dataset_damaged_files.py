"""What is wrong with a file on disk is an error that names it, whichever library stumbled over it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from scipy.io import savemat

from pathopan.datasets import consep, lizard, monuseg, nucls, qupath, read_dataset, tiger
from pathopan.errors import DatasetError

IMAGE = np.full((8, 8, 3), 180, np.uint8)
V73 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n".ljust(384, b"\0")


def write_image(path: Path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(array, np.uint8))


def make_lizard(root, side=8):
    labels = root / "Lizard_Labels" / "Labels"
    labels.mkdir(parents=True)
    write_image(root / "Lizard_Images1" / "consep_1.png", IMAGE)
    savemat(labels / "consep_1.mat", {"inst_map": np.ones((side, side)), "id": [[1]], "class": [[2]]})
    return labels / "consep_1.mat"


def make_consep(root):
    write_image(root / "Train" / "Images" / "train_1.png", IMAGE)
    (root / "Train" / "Labels").mkdir()
    path = root / "Train" / "Labels" / "train_1.mat"
    savemat(path, {"inst_map": np.ones((8, 8)), "type_map": np.ones((8, 8))})
    return path


# ------------------------------------------------------------------------------------------------ MAT
@pytest.mark.parametrize(("make", "reader"), [(make_lizard, lizard), (make_consep, consep)])
def test_mat_files_of_version_7_3_and_damaged_ones(tmp_path, make, reader):
    path = make(tmp_path)
    assert len(list(reader.read(tmp_path))) == 1
    whole = path.read_bytes()
    for stored in (whole[:90], whole[: len(whole) // 2], b""):
        path.write_bytes(stored)
        with pytest.raises(DatasetError, match=rf"{path.name}: expected a MAT file with inst_map"):
            list(reader.read(tmp_path))
    path.write_bytes(V73)
    with pytest.raises(
        DatasetError, match=rf"{path.name}: expected a MAT file .*7\.3 is another format: save it with -v7"
    ):
        list(reader.read(tmp_path))


# ---------------------------------------------------------------------------------------------- sizes
def make_conic(root, shape):
    np.save(root / "images.npy", np.zeros((1, 8, 8, 3), np.uint8))
    np.save(root / "labels.npy", np.zeros(shape, np.uint16))


def make_pannuke(root, side=8):
    fold = root / "fold1"
    fold.mkdir()
    np.save(fold / "images.npy", np.zeros((1, 8, 8, 3)))
    np.save(fold / "types.npy", np.array(["Breast"]))
    np.save(fold / "masks.npy", np.zeros((1, side, side, 6)))


def make_masked(root, images, masks):
    write_image(root / images / "100B_[5, 6, 7, 8].png", IMAGE)
    write_image(root / masks / "100B_[5, 6, 7, 8].png", np.ones((4, 4)))


def make_panoptils(root):
    for folder, array in (("rgbs", IMAGE), ("masks", IMAGE[:4, :4])):
        write_image(root / folder / "a.png", array)
    (root / "csv").mkdir()
    (root / "csv" / "a.csv").write_text("raw_group,coords_x,coords_y\n")


@pytest.mark.parametrize(
    ("name", "make", "file"),
    [
        ("lizard", lambda root: make_lizard(root, side=4), r"consep_1\.mat"),
        ("pannuke", lambda root: make_pannuke(root, side=4), r"masks\.npy"),
        ("bcss", lambda root: make_masked(root, "images", "masks"), r"masks/100B_.*\.png"),
        ("tiger", lambda root: make_masked(root, "tissue-bcss/images", "tissue-bcss/masks"), r"masks/100B_.*\.png"),
        ("panoptils", make_panoptils, r"masks/a\.png"),
    ],
)
def test_a_map_of_another_size_than_its_image_is_named(tmp_path, name, make, file):
    make(tmp_path)
    with pytest.raises(DatasetError, match=rf"{file}: is \(4, 4\), its image \(8, 8\)"):
        list(read_dataset(name, tmp_path))


@pytest.mark.parametrize("shape", [(1, 4, 4, 2), (1, 8, 8, 1)])
def test_conic_labels_are_two_maps_of_the_images_size(tmp_path, shape):
    make_conic(tmp_path, shape)
    with pytest.raises(DatasetError, match=r"labels\.npy: is .*; expected \(1, 8, 8, 2\)"):
        list(lizard.read_conic(tmp_path))


# -------------------------------------------------------------------------------------------- PanNuke
@pytest.mark.parametrize("where", [".", "fold1", "../sets/fold1"])
def test_pannuke_is_found_by_a_relative_path(tmp_path, monkeypatch, where):
    sets = tmp_path / "sets"
    sets.mkdir()
    make_pannuke(sets)
    monkeypatch.chdir(sets / "fold1" if where == "." else sets)
    (sample,) = read_dataset("pannuke", where)
    assert (sample.group, sample.sample_id) == ("fold1", "fold1-00000")


# -------------------------------------------------------------------------------------------- tables
@pytest.mark.parametrize("cell", ["a", ""])
def test_nucls_boxes_need_numbers(tmp_path, cell):
    write_image(tmp_path / "rgb" / "a.png", IMAGE)
    (tmp_path / "csv").mkdir()
    head = "raw_classification,type,xmin,ymin,xmax,ymax,coords_x,coords_y\n"
    (tmp_path / "csv" / "a.csv").write_text(f"{head}tumor,rectangle,{cell},1,2,3,,\n")
    with pytest.raises(DatasetError, match=r"a\.csv: xmin, ymin, xmax, ymax must be numbers, found (a|nan), 1, 2, 3"):
        list(nucls.read(tmp_path))
    (tmp_path / "csv" / "a.csv").write_text(f'{head}tumor,polyline,{cell},1,2,3,"1,4,4","1,1,4"\n')
    assert len(next(nucls.read(tmp_path)).nuclei) == 1
    (tmp_path / "csv" / "ALL_FOV_LOCATIONS.csv").write_text(f"fovname,xmin,ymin,xmax,ymax\na,{cell},0,8,8\n")
    with pytest.raises(DatasetError, match=r"ALL_FOV_LOCATIONS\.csv: xmin, ymin, xmax, ymax must be numbers"):
        list(nucls.read(tmp_path))


@pytest.mark.parametrize("stored", [[1, 2, 3], [1, 2, "a", 3], None, 7])
def test_tiger_boxes_are_four_numbers(tmp_path, stored):
    base = tmp_path / "tissue-cells"
    write_image(base / "images" / "100B.png", IMAGE)
    write_image(base / "masks" / "100B.png", np.ones((8, 8)))
    coco = {
        "images": [{"id": 7, "file_name": "tissue-cells/images/100B.png"}],
        "categories": [{"id": 1, "name": "lymphocytes and plasma cells"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": stored}],
    }
    (base / "tiger-coco.json").write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match=r"tiger-coco\.json: expected COCO's .*bbox of four"):
        list(tiger.read(tmp_path))


# ----------------------------------------------------------------------------------------------- XML
@pytest.mark.parametrize("vertex", ["X='a' Y='1'", "Y='1'", "X='nan' Y='1'"])
def test_vertices_need_numbers(tmp_path, vertex):
    patient = tmp_path / "TCGA-55-1594-01Z-00-DX1"
    patient.mkdir()
    path = patient / "TCGA-55-1594-01Z-00-DX1_001.xml"
    tifffile.imwrite(path.with_suffix(".tif"), IMAGE, photometric="rgb")
    corners = f"<Vertex {vertex}/><Vertex X='4' Y='1'/><Vertex X='4' Y='4'/>"
    path.write_text(
        "<Annotations><Annotation><Attributes><Attribute Name='Epithelial'/></Attributes>"
        f"<Regions><Region><Vertices>{corners}</Vertices></Region></Regions></Annotation></Annotations>"
    )
    for samples in (monuseg.read_monusac(tmp_path), monuseg.read(patient)):
        with pytest.raises(DatasetError, match=r"DX1_001\.xml: every Vertex must have (numbers|finite) X and Y"):
            list(samples)


# -------------------------------------------------------------------------------------------- GeoJSON
def test_qupath_export_that_is_cut_short_or_damaged(tmp_path):
    write_image(tmp_path / "case.png", IMAGE)
    path = tmp_path / "case.geojson.gz"
    whole = gzip.compress(json.dumps({"type": "FeatureCollection", "features": []}).encode())
    path.write_bytes(whole)
    assert len(list(qupath.read(tmp_path, slide_mpp=0.5))) == 1
    for stored in (whole[:-9], whole[:12] + bytes(255 - byte for byte in whole[12:])):
        path.write_bytes(stored)
        with pytest.raises(DatasetError, match=r"case\.geojson\.gz: the compressed file is damaged or cut short"):
            list(qupath.read(tmp_path, slide_mpp=0.5))
