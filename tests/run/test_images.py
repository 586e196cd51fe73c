"""Pictures of every mode must reach the model with the pixels a viewer shows, or be refused with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxlrp.errors import OnnxLrpError
from onnxlrp.run import images
from onnxlrp.run.images import find_images, read_picture, resized

RED = (204, 51, 0)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_colour_modes_read_as_rgb(tmp_path: Path, mode: str) -> None:
    ending = "tif" if mode in ("CMYK", "YCbCr") else "png"
    path = saved(tmp_path / f"x.{ending}", Image.new("RGB", (4, 3), RED).convert(mode))
    pixels = read_picture(path).pixels
    assert pixels.shape == (3, 4, 3)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, 0], RED, atol=3)


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, 77), ("1", 1, 255), ("LA", (77, 255), 77)])
def test_grey_modes_stay_grey(tmp_path: Path, mode: str, value: object, expected: float) -> None:
    pixels = read_picture(saved(tmp_path / "x.png", Image.new(mode, (4, 3), value))).pixels  # type: ignore[arg-type]
    assert pixels.shape == (3, 4)
    assert np.all(pixels == expected)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 1, 257, 30000, 65535]], np.uint16)
    pixels = read_picture(saved(tmp_path / f"x.{ending}", Image.fromarray(values))).pixels
    np.testing.assert_allclose(pixels, values / 257.0, rtol=1e-6)
    assert 0 < pixels[0, 1] < 0.01  # a fraction of an 8-bit step survives


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (255, 0, 0, 128))
    pixels = read_picture(saved(tmp_path / "x.png", image)).pixels
    np.testing.assert_allclose(pixels[0], [[255, 255, 255], [0, 0, 0], [255, 127, 127]], atol=1)


def test_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = read_picture(saved(tmp_path / "x.png", image, transparency=0)).pixels
    np.testing.assert_allclose(pixels[0], [[255, 255, 255], [40, 50, 60]])


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    values = np.zeros((2, 4, 3), np.uint8)
    values[0, 0] = 255
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    pixels = read_picture(saved(tmp_path / "x.png", image, exif=exif)).pixels
    assert pixels.shape == (4, 2, 3)
    assert pixels[0, 1, 0] == 255


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    for ending in ("gif", "tif", "png", "webp"):
        path = saved(tmp_path / f"x.{ending}", frames[0], save_all=True, append_images=frames[1:])
        picture = read_picture(path)
        np.testing.assert_allclose(picture.pixels, 50, atol=1)
        assert picture.frames == 2


def test_frames_that_are_no_further_pictures_are_not_counted(tmp_path: Path) -> None:
    """A camera's previews, and what cannot be read any more."""
    one, two = (Image.new("RGB", (40, 40), (value, 0, 0)) for value in (50, 200))
    assert read_picture(saved(tmp_path / "one.png", one)).frames == 1
    camera = saved(tmp_path / "camera.jpg", one, format="MPO", save_all=True, append_images=[two])
    assert read_picture(camera).frames == 1
    cut = saved(tmp_path / "cut.gif", one, save_all=True, append_images=[two])
    whole = cut.read_bytes()
    cut.write_bytes(whole[: whole.rindex(b"\x21\xf9") + 1])  # in the block before the second frame
    assert np.all(read_picture(cut).pixels[..., 0] == 50)
    assert read_picture(cut).frames == 1


def test_what_is_no_picture_is_refused_with_file_reason_and_remedy(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))
    files = {
        "text.png": b"this is not a picture",
        "empty.png": b"",
        "cut.png": good.read_bytes()[:800],
        "scan.dcm": bytes(128) + b"DICM" + bytes(100),
    }
    reasons = {"text.png": "not a picture", "empty.png": "0 bytes", "cut.png": "cut off", "scan.dcm": "DICOM"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OnnxLrpError, match=reasons[name]) as caught:
            read_picture(tmp_path / name)
        assert name in caught.value.problems[0].node
        assert caught.value.problems[0].remedy


def test_pixels_without_a_known_range_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tif", Image.fromarray(np.ones((3, 3), np.float32)))
    with pytest.raises(OnnxLrpError, match="range is not known"):
        read_picture(path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "x.png", Image.new("L", (60, 60)))
    for limit in (3000, 1000):  # Pillow warns above its limit and raises above twice of it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(OnnxLrpError, match="million pixels"):
            read_picture(path)


def test_resizing_is_straight_and_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.float32), (64, 32))
    small = resized(stripes, (8, 16))
    assert small.shape == (8, 16)
    np.testing.assert_allclose(small[:, 1:-1], 127.5, atol=2)
    assert resized(stripes, (64, 64)) is stripes
    assert resized(np.zeros((4, 6, 3), np.float32), (2, 5)).shape == (2, 5, 3)


def test_finding_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "inner/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert [p.name for p in find_images([tmp_path])] == ["a.JPG", "b.png"]
    assert [p.name for p in find_images([tmp_path / "*.png", tmp_path / "b.png"])] == ["b.png"]
    assert [p.name for p in find_images([tmp_path / "notes.txt"])] == ["notes.txt"]
    assert find_images([tmp_path / "inner", tmp_path / "b.png"]) == [tmp_path / "inner" / "c.png", tmp_path / "b.png"]


def test_finding_names_every_place_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(OnnxLrpError) as caught:
        find_images([tmp_path / "empty", tmp_path / "gone.png", tmp_path / "*.xyz"])
    assert [p.reason for p in caught.value.problems] == [
        "holds no pictures",
        "there is no such file",
        "the pattern matches no file",
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "scan[1].png", Image.new("L", (2, 2)))
    assert find_images([path]) == [path]


def test_display_pixels_are_rgb_bytes() -> None:
    grey = images.Picture(Path("x"), np.array([[0.4, 254.6]], np.float32))
    assert grey.rgb.dtype == np.uint8
    assert grey.rgb.tolist() == [[[0, 0, 0], [255, 255, 255]]]
