import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import InputError
from fye_rt.landmarks import Motion
from fye_rt.landmarks.geometry import (
    METADATA_NAME,
    FaceGeometry,
    _parse_metadata,
    _similarity,
    face_angle,
    face_box,
    load_geometry,
    misfit,
    recover,
)
from fye_rt.landmarks.retarget import project


@pytest.fixture(scope="module")
def geometry(landmarker: Path) -> FaceGeometry:
    return load_geometry(landmarker)


def test_mesh_and_pose_are_the_reference_s(geometry: FaceGeometry, recorded: dict) -> None:
    size = int(recorded["ref_height"]), int(recorded["ref_width"])
    mesh, pose = recover(recorded["ref_lmks"][None], size, geometry)
    np.testing.assert_allclose(mesh[0], recorded["ref_lmks3d"], atol=1e-3)  # centimetres
    np.testing.assert_allclose(pose[0, :3, 3], recorded["ref_trans_mat"][:3, 3], atol=1e-3)
    # degrees between two rotations; the norm, because arccos of a trace near 3 loses half the digits
    turned = pose[0, :3, :3] @ recorded["ref_trans_mat"][:3, :3].T - np.eye(3)
    assert np.degrees(np.linalg.norm(turned) / np.sqrt(2.0)) < 0.01
    np.testing.assert_array_equal(pose[0, 3], (0, 0, 0, 1))


def test_the_canonical_face_is_a_closed_surface_that_faces_the_camera(geometry: FaceGeometry) -> None:
    corners = geometry.mesh[geometry.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert geometry.triangles.shape == (898, 3) and (normals[:, 2] > 0).mean() > 0.98
    assert set(np.unique(geometry.triangles)) == set(range(468))


def test_a_landmarker_that_announces_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(METADATA_NAME, b"a" * 100)
    content = path.read_bytes()
    sizes = content.rindex(b"PK\x01\x02") + 20  # compressed and uncompressed, in the directory
    path.write_bytes(content[:sizes] + struct.pack("<II", 1 << 30, 1 << 20) + content[sizes + 8 :])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="is not MediaPipe's"):
            load_geometry(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 25


def test_frames_do_not_influence_each_other(geometry: FaceGeometry, recorded: dict) -> None:
    points = recorded["tmpl_lmks"]
    mesh, pose = recover(points, (192, 320), geometry)
    for index in (0, 9):
        alone_mesh, alone_pose = recover(points[index : index + 1], (192, 320), geometry)
        np.testing.assert_allclose(mesh[index], alone_mesh[0], atol=1e-12)  # float64 rounding of 50 cm
        np.testing.assert_allclose(pose[index], alone_pose[0], atol=1e-12)


def test_projecting_the_recovered_mesh_gives_the_landmarks_back(geometry: FaceGeometry, recorded: dict) -> None:
    points = recorded["ref_lmks"][None]
    mesh, pose = recover(points, (480, 640), geometry)
    # 0.02 px: the accidental 1.0001 of the reference's projection
    np.testing.assert_allclose(project(mesh, pose, (480, 640)), points[:, :468, :2] * (640, 480), atol=0.02)


def test_the_fit_turns_a_face_but_never_reflects_it() -> None:
    random = np.random.default_rng(0)
    face = FaceGeometry(random.normal(size=(468, 3)), random.uniform(size=468))
    mirrored = face.mesh * (-1.0, 1.0, 1.0)
    turned = 3.0 * face.mesh[:, [1, 2, 0]] + (1.0, 2.0, 3.0)  # a cyclic exchange of the axes is a rotation
    scale, rotation, translation = _similarity(face, np.stack((mirrored, turned)))
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-12)
    np.testing.assert_allclose(rotation[1], np.eye(3)[[1, 2, 0]], atol=1e-12)
    np.testing.assert_allclose((scale[1], *translation[1]), (3.0, 1.0, 2.0, 3.0), atol=1e-12)


def test_a_file_that_is_not_a_landmarker_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.task: no such file"):
        load_geometry(tmp_path / "nothing.task")
    (tmp_path / "text.task").write_text("text")
    with pytest.raises(InputError, match=r"text\.task is not MediaPipe's face_landmarker\.task"):
        load_geometry(tmp_path / "text.task")
    with zipfile.ZipFile(tmp_path / "other.task", "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(InputError, match=METADATA_NAME):
        load_geometry(tmp_path / "other.task")


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255), cut=st.booleans())
def test_damaged_metadata_raises_nothing_but_value_errors(landmarker: Path, place: float, mask: int, cut: bool) -> None:
    with zipfile.ZipFile(landmarker) as archive:
        data = bytearray(archive.read(METADATA_NAME))
    at = int(place * len(data))
    data[at] ^= mask
    try:
        geometry = _parse_metadata(bytes(data[:at] if cut else data))
    except ValueError:
        return
    assert geometry.mesh.shape == (468, 3) and np.isfinite(geometry.mesh).all() and np.isfinite(geometry.weights).all()


def test_a_face_s_box_and_tilt_are_in_pixels_and_degrees(motion: Motion) -> None:
    size = (200, 400)  # of a picture twice as wide as high
    points = motion.points[0, :, :2]
    upright = points * motion.source_size[::-1]
    upright = (upright - upright.mean(axis=0)) * 60 / np.ptp(upright, axis=0).max()
    middle = np.array((200.0, 100.0))
    resting = face_angle((upright + middle) / (400, 200), size)
    assert abs(resting) < 20
    for degrees in (0.0, 30.0, 90.0, -120.0):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = upright @ np.array(((cosine, sine), (-sine, cosine))) + middle  # clockwise, y down
        tilt = face_angle(turned / (400, 200), size) - resting
        assert (tilt - degrees + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-9)
        low, high = turned.min(axis=0), turned.max(axis=0)
        assert face_box(turned / (400, 200), size) == pytest.approx((*low, *(high - low)))


def test_the_misfit_of_a_face_does_not_depend_on_its_place_and_size(motion: Motion, geometry: FaceGeometry) -> None:
    points, size = motion.points[0], motion.source_size
    value = misfit(points, size, geometry)
    assert value < 0.62
    moved = (points - (0.5, 0.5, 0.0)) * 0.1 + (0.8, 0.3, 0.0)
    assert misfit(moved, size, geometry) == pytest.approx(value, rel=1e-6)
