import numpy as np

from pathopan.export.pieces import MAX_PIECES, find_pieces


def test_a_piece_is_known_beyond_its_tissue_and_beyond_the_map():
    tissue = np.zeros((30, 60), bool)
    tissue[5:25, 5:20] = True
    tissue[10:14, 40:50] = True
    tissue[14, 50] = True  # touches at a corner
    pieces = find_pieces(tissue, mpp=8.0)
    assert pieces.areas_mm2 == (300 * 64e-6, 41 * 64e-6)
    assert pieces.find([100, 404, 8 * 22, 8 * 38, -50, 9_000], [100, 116, 100, 100, 0, 100]).tolist() == [
        1,
        2,
        1,
        2,
        1,
        2,
    ]
    assert set(np.unique(pieces.numbers)) == {1, 2}


def test_crumbs_go_with_the_nearest_larger_piece():
    tissue = np.zeros((9, 4 * (MAX_PIECES + 2)), bool)
    tissue[2:7, 1::4] = True
    tissue[0, -1] = True
    pieces = find_pieces(tissue, mpp=1.0)
    assert len(pieces.areas_mm2) == MAX_PIECES
    assert pieces.numbers.max() == MAX_PIECES
    assert pieces.find([tissue.shape[1] - 0.5], [0.5])[0] == pieces.find([4 * MAX_PIECES - 2.5], [3])[0] == MAX_PIECES


def test_a_slide_without_tissue_is_one_piece():
    pieces = find_pieces(np.zeros((4, 4), bool), mpp=8.0)
    assert pieces.areas_mm2 == ()
    assert pieces.find([0], [0]).tolist() == [1]
