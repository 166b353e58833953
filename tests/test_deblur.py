"""Deblurring: what each method gains, that blur is found and sharpness seen, and the commands."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from conftest import Bundled, Photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from oldphoto import checkpoints
from oldphoto.arrays import FloatImage
from oldphoto.classical.blind import estimate_blur
from oldphoto.classical.deblurring import Deblurrer
from oldphoto.classical.deconvolution import deconvolve
from oldphoto.classical.methods import DEBLURRING
from oldphoto.classical.psf import PointSpread, blur, defocus, gaussian, motion
from oldphoto.cli import main
from oldphoto.diagnosis import jpeg_quality, name_cast
from oldphoto.errors import PhotoError, UsageError
from oldphoto.evaluation import psnr
from oldphoto.imagefile import Photo as PhotoFile
from oldphoto.imagefile import open_photo, read_photo, write_pages, write_photo

SIDE = 384
EDGE = 24
PHOTOS = ("camera", "coffee", "astronaut")
WITHOUT_NETWORK = tuple(method for method in DEBLURRING if method != "hqs")


def scaled(photo: Photo, name: str) -> FloatImage:
    """The middle of a photo, SIDE px and an edge on every side."""
    picture = photo(name)
    short = min(picture.shape[:2])
    top, left = ((length - short) // 2 for length in picture.shape[:2])
    square = picture[top : top + short, left : left + short]
    side = SIDE + 2 * EDGE
    how = cv2.INTER_AREA if short > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(square, (side, side), interpolation=how).clip(0, 1), np.float32)


def blurred(photo: Photo, name: str, psf: PointSpread, noise: float) -> tuple[FloatImage, FloatImage]:
    """A photo and its blurred version, whose edges show what came in from beyond them, in 8 bits."""
    picture = scaled(photo, name)
    inner = (slice(EDGE, -EDGE), slice(EDGE, -EDGE))
    rng = np.random.default_rng(0)
    seen = blur(picture, psf)[inner]
    gray = np.ptp(picture, 2).max() == 0
    seen = seen + noise * rng.standard_normal((*seen.shape[:2], 1 if gray else 3), np.float32)
    return picture[inner], (np.round(seen.clip(0, 1) * 255) / 255).astype(np.float32)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- known point-spread functions ------------------------------------------------------------------------------------


def test_wiener_gains_two_decibels_and_beats_the_inverse_filter(photo: Photo) -> None:
    spread = motion(15, 30)
    for name in PHOTOS:
        clean, seen = blurred(photo, name, spread, 0.01)
        before, wiener, inverse = (
            psnr(picture, clean)
            for picture in (seen, deconvolve(seen, spread, "wiener"), deconvolve(seen, spread, "inverse"))
        )
        assert wiener > before + 2
        assert wiener > inverse


def test_a_learned_prior_gains_a_decibel_more(bundled: Bundled, photo: Photo) -> None:
    bundled("denoiser")
    spread = motion(15, 30)
    deblurrer = Deblurrer("hqs", "motion:15,30", device="cpu")
    gains = []
    for name in PHOTOS:
        clean, seen = blurred(photo, name, spread, 0.01)
        gains.append(psnr(deblurrer.deblur(seen).rgb, clean) - psnr(deconvolve(seen, spread, "wiener"), clean))
    assert np.mean(gains) > 1


@pytest.mark.parametrize("method", WITHOUT_NETWORK)
@pytest.mark.parametrize("spread", [motion(15, 30), defocus(4), gaussian(1.5)], ids=lambda spread: spread.kind)
def test_every_method_improves_every_kind_of_blur(method: str, spread: PointSpread, photo: Photo) -> None:
    clean, seen = blurred(photo, "camera", spread, 0.01)
    restored = deconvolve(seen, spread, method)
    assert psnr(restored, clean) > psnr(seen, clean) + 0.5
    assert restored.dtype == np.float32


@pytest.mark.parametrize("method", WITHOUT_NETWORK)
def test_there_is_no_frame_of_ringing(method: str, photo: Photo) -> None:
    spread = motion(15, 30)
    clean, seen = blurred(photo, "coffee", spread, 0.005)
    error = (deconvolve(seen, spread, method) - clean) ** 2
    ring = np.ones(error.shape[:2], bool)
    ring[12:-12, 12:-12] = False
    before = ((seen - clean) ** 2)[ring].mean()
    assert error[ring].mean() < 1.3 * before  # the rim gets hardly worse, though half of its light is unseen
    assert error[ring].mean() < 8 * error[~ring].mean()


@pytest.mark.parametrize("spread", [gaussian(7), gaussian(32), defocus(20), defocus(64)], ids=lambda s: s.text)
def test_blur_that_lets_hardly_anything_through_is_undone_as_far_as_it_goes(spread: PointSpread, photo: Photo) -> None:
    clean = photo("astronaut")
    seen = blur(clean, spread)
    assert psnr(deconvolve(seen, spread, "tv"), clean) > psnr(seen, clean) + 1


def framed(picture: FloatImage, margin: int, scanner: float) -> FloatImage:
    """A print with a margin that the camera did not blur, and the scanner a little."""
    on_paper = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), constant_values=0.93)
    return np.asarray(cv2.GaussianBlur(on_paper, (0, 0), scanner) if scanner else on_paper, np.float32)


@pytest.mark.parametrize(("margin", "scanner"), [(6, 0.0), (24, 1.0)])
def test_a_print_with_a_margin_is_deblurred_within_it(margin: int, scanner: float, photo: Photo) -> None:
    clean = framed(cv2.resize(photo("astronaut"), (256, 256), interpolation=cv2.INTER_AREA), margin, 0)
    seen = framed(blur(clean[margin:-margin, margin:-margin], motion(13, 20)), margin, scanner)
    noise = 0.01 * np.random.default_rng(0).standard_normal(seen.shape, np.float32)
    seen = (seen + noise).clip(0, 1)
    restored = Deblurrer("tv", device="cpu").deblur(seen).rgb
    assert psnr(restored, clean) > psnr(seen, clean) + 2
    edge = margin - 3
    for rim in (np.s_[:edge], np.s_[-edge:], np.s_[:, :edge], np.s_[:, -edge:]):
        assert np.array_equal(restored[rim], seen[rim])


def test_blur_that_is_not_everywhere_is_not_undone_unasked(photo: Photo) -> None:
    """A moved subject on a background that stood still, with a sharp contour between them."""
    picture = cv2.resize(photo("astronaut"), (384, 384), interpolation=cv2.INTER_AREA)
    seen = blur(picture, motion(15, 30))
    rows, columns = np.mgrid[:384, :384]
    aside = np.abs(rows - columns) % 128 > 100
    seen[aside] = picture[::-1][aside]
    deblurrer = Deblurrer("wiener", device="cpu")
    psf = deblurrer.psf_of(seen)
    assert psnr(deblurrer.apply(seen, psf, "wiener"), seen) < 25
    assert np.array_equal(deblurrer.prefilter(seen), seen)
    with pytest.raises(PhotoError, match="does not explain"):
        deblurrer.deblur(seen)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(12, 60),
    width=st.integers(12, 60),
    method=st.sampled_from(WITHOUT_NETWORK),
    spread=st.one_of(
        st.builds(motion, st.floats(1, 11), st.floats(0, 180)),
        st.builds(defocus, st.floats(0.5, 5)),
        st.builds(gaussian, st.floats(0.2, 1.2)),
    ),
    seed=st.integers(0, 100),
)
def test_any_size_and_any_blur_give_a_picture(
    height: int, width: int, method: str, spread: PointSpread, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.random((height, width, 3), np.float32), (0, 0), 1.5)
    before = picture.copy()
    restored = deconvolve(picture, spread, method)
    assert restored.shape == picture.shape
    assert np.isfinite(restored).all()
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert np.array_equal(picture, before)
    assert np.array_equal(restored, deconvolve(picture, spread, method))


def test_balance_trades_noise_for_sharpness(photo: Photo) -> None:
    _, seen = blurred(photo, "camera", motion(9, 0), 0.02)
    roughness = [
        np.abs(np.diff(deconvolve(seen, motion(9, 0), "wiener", balance), axis=0)).mean() for balance in (1e-3, 1e-1)
    ]
    assert roughness[0] > 1.5 * roughness[1]


def test_what_can_not_be_deblurred_is_refused(photo: Photo) -> None:
    seen = photo("camera")[:40, :40]
    for picture, spread, why in (
        (seen, motion(60, 0), "larger than the photo"),
        (np.zeros((40, 40, 3), np.float32), motion(5, 0), "one value"),
        (seen[:1, :1], gaussian(0.1), "larger than the photo|too small"),
    ):
        with pytest.raises(PhotoError, match=why):
            deconvolve(picture, spread, "wiener")
    with pytest.raises(UsageError, match="not a method"):
        deconvolve(seen, motion(5, 0), "magic")
    with pytest.raises(UsageError, match="denoiser"):
        deconvolve(seen, motion(5, 0), "hqs")


# --- unknown point-spread functions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "noise", "length", "angle"),
    [
        ("camera", 0.0, 11.0, 140.0),
        ("camera", 0.01, 29.0, 5.0),
        ("coffee", 0.01, 23.0, 30.0),
        ("grass", 0.01, 9.0, 95.0),
    ],
)
def test_motion_is_found(name: str, noise: float, length: float, angle: float, photo: Photo) -> None:
    _, seen = blurred(photo, name, motion(length, angle), noise)
    found = estimate_blur(seen)
    assert found is not None
    assert found.psf.kind == "motion"
    measured, direction = (float(number) for number in found.psf.text.removeprefix("motion:").split(","))
    assert abs(measured - length) < 2
    assert abs((direction - angle + 90) % 180 - 90) < 5


@pytest.mark.parametrize("radius", [3.5, 6.0])
def test_defocus_is_found(radius: float, photo: Photo) -> None:
    _, seen = blurred(photo, "camera", defocus(radius), 0.005)
    found = estimate_blur(seen)
    assert found is not None
    assert found.psf.kind == "defocus"
    assert float(found.psf.text.removeprefix("defocus:")) == pytest.approx(radius, abs=0.4)


@pytest.mark.parametrize(
    ("name", "noise"), [("camera", 0.0), ("coffee", 0.02), ("astronaut", 0.0), ("brick", 0.01), ("grass", 0.0)]
)
def test_a_sharp_photo_is_seen_to_be_sharp(name: str, noise: float, photo: Photo) -> None:
    _, seen = blurred(photo, name, motion(1, 0), noise)
    assert estimate_blur(seen) is None


def test_a_sharp_photo_is_not_deblurred(photo: Photo) -> None:
    sharp = photo("camera")[:256, :256]
    deblurrer = Deblurrer("wiener")
    with pytest.raises(PhotoError, match="no blur found"):
        deblurrer.deblur(sharp)
    assert deblurrer.prefilter(sharp) is sharp


def test_a_blur_that_is_found_is_undone(photo: Photo) -> None:
    for name in PHOTOS:
        clean, seen = blurred(photo, name, motion(15, 30), 0.01)
        assert psnr(Deblurrer("wiener").deblur(seen).rgb, clean) > psnr(seen, clean) + 1


# --- commands --------------------------------------------------------------------------------------------------------


def test_deblur_keeps_what_the_file_says_of_the_photo(photo: Photo, tmp_path: Path) -> None:
    _, seen = blurred(photo, "camera", motion(9, 20), 0)
    seen = seen[:301, :200]
    alpha = np.arange(seen.shape[0] * seen.shape[1], dtype=np.uint16).reshape(seen.shape[:2])
    write_photo(PhotoFile(seen, True, 16, alpha, dpi=(600.0, 600.0)), tmp_path / "in" / "scan.tif")
    result = run("deblur", tmp_path / "in", tmp_path / "out", "--wiener", "--psf", "motion:9,20")
    assert result.exit_code == 0, result.output
    written = read_photo(tmp_path / "out" / "scan.tif")
    assert (written.gray, written.bit_depth, written.dpi) == (True, 16, (600.0, 600.0))
    assert written.alpha is not None
    assert np.array_equal(written.alpha, alpha)
    assert written.rgb.shape == seen.shape
    assert np.abs(written.rgb - seen).max() > 0.05
    again = run("deblur", tmp_path / "in", tmp_path / "out", "--wiener", "--psf", "motion:9,20")
    assert "1 kept" in again.output


@pytest.mark.parametrize("command", [("deblur", "--wiener", "--psf", "motion:5,20"), ("denoise", "--method", "median")])
def test_every_page_is_done_and_keeps_profile_exif_and_depth(
    command: tuple[str, ...], photo: Photo, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8298] = "Agfa", "Oma Erna"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pages = [photo(name)[100:180, 100:200] for name in ("coffee", "astronaut")]
    scans = [PhotoFile(np.ascontiguousarray(rgb), False, 16, icc=icc, exif=exif.tobytes()) for rgb in pages]
    write_pages(scans, tmp_path / "scan.tif", "tif")
    name, *options = (*command, "--no-stamp", "--log", tmp_path / "log.jsonl")
    result = run(name, tmp_path / "scan.tif", tmp_path / "out.tif", *options)
    assert result.exit_code == 0, result.output
    before, after = (open_photo(tmp_path / name) for name in ("scan.tif", "out.tif"))
    assert after.pages == 2
    for index, rgb in enumerate(pages):
        old, new = before.page(index), after.page(index)
        assert (new.bit_depth, new.icc, new.exif) == (16, icc, old.exif)
        assert new.exif is not None
        assert b"Oma Erna" in new.exif
        assert new.rgb.shape == rgb.shape
        assert np.abs(new.rgb - rgb).max() > 0.02
    record = json.loads((tmp_path / "log.jsonl").read_text())
    assert record["pages"] == 2
    assert len(record["method"]) == 2
    for key, name in (("input_sha256", "scan.tif"), ("output_sha256", "out.tif")):
        assert record[key] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_what_was_found_and_done_is_in_the_log(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    """With the weights of the network that takes part."""
    bundled("denoiser")
    _, seen = blurred(photo, "camera", motion(15, 30), 0.05)
    write_photo(PhotoFile(seen), tmp_path / "in.png")
    for command in ("deblur", "denoise"):
        log = tmp_path / f"{command}.jsonl"
        method = ("--wiener",) if command == "deblur" else ()
        told = run(command, tmp_path / "in.png", tmp_path / command, *method, "--log", log, "-v", "--device", "cpu")
        assert told.exit_code == 0, told.output
        record = json.loads(log.read_text())
        found, kind = ("psf", "motion:") if command == "deblur" else ("noise", "gaussian ")
        assert record["method"] == ("wiener" if command == "deblur" else "auto")
        assert record[found].startswith(kind)
        hashes = {"denoiser": checkpoints.find("denoiser")[1].sha256}
        assert record.get("weights") == (hashes if command == "denoise" else None)
        assert f"{found}: {record[found]}" in told.stderr


def test_what_fails_on_a_page_names_it_and_a_comparison_takes_one(photo: Photo, tmp_path: Path) -> None:
    black = np.zeros((64, 64, 3), np.float32)
    pages = [PhotoFile(rgb) for rgb in (np.ascontiguousarray(photo("coffee")[:64, :64]), black)]
    write_pages(pages, tmp_path / "scan.tif", "tif")
    command = ("deblur", tmp_path / "scan.tif", tmp_path / "out.tif", "--wiener", "--psf", "motion:5,0")
    cases: tuple[tuple[tuple[object, ...], str], ...] = (
        ((), "page 2: the picture is all of one value"),
        (("--compare", tmp_path / "s.png"), "has 2 pages"),
    )
    for options, why in cases:
        result = run(*command, *options)
        assert result.exit_code == 1
        assert why in result.output
        assert not (tmp_path / "out.tif").exists()
        assert not (tmp_path / "s.png").exists()


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (("--psf", "motion:15"), 2, "motion:LENGTH,ANGLE"),
        (("--psf", "missing.png"), 2, "neither"),
        (("--psf", "motion:80,0"), 1, "larger than the photo"),
        (("--psf", "auto"), 1, "no blur found"),
        (("--psf", "defocus:2", "--balance", "0"), 2, "balance"),
        (("--reference", "x.png"), 2, "--compare"),
        (("--compare", "sheet.jpg"), 2, ".png"),
        (("--psf", "defocus:2", "--compare", "{}/there/../out.png"), 2, "a name of its own"),
        (("--psf", "{}/dark.png"), 2, "bright on black"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(
    options: tuple[str, ...], code: int, why: str, photo: Photo, tmp_path: Path
) -> None:
    write_photo(PhotoFile(photo("camera")[200:264, 200:264]), tmp_path / "photo.png")
    write_photo(PhotoFile(1 - np.pad(np.ones((1, 5, 3), np.float32), ((4, 4), (2, 2), (0, 0)))), tmp_path / "dark.png")
    (tmp_path / "there").mkdir()
    named = (option.format(tmp_path) for option in options)
    result = run("deblur", tmp_path / "photo.png", tmp_path / "out.png", "--wiener", *named)
    assert result.exit_code == code, result.output
    assert why in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("shape", [(1, 1, 3), (64, 64, 3)])
def test_an_empty_photo_fails_with_the_reason(shape: tuple[int, ...], tmp_path: Path) -> None:
    write_photo(PhotoFile(np.zeros(shape, np.float32)), tmp_path / "black.png")
    for command in (
        ("deblur", tmp_path / "black.png", tmp_path / "out.png", "--wiener", "--psf", "auto"),
        ("diagnose", tmp_path / "black.png"),
    ):
        result = run(*command)
        assert result.exit_code == 1
        assert "one value" in result.output or "too small" in result.output
        assert command[0] == "deblur" or "deblur" not in result.output
        assert "Traceback" not in result.output


def test_all_methods_are_drawn_side_by_side(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    bundled("denoiser")
    clean, seen = (picture[:160, :200] for picture in blurred(photo, "coffee", defocus(2.5), 0.005))
    write_photo(PhotoFile(seen), tmp_path / "photo.png")
    write_photo(PhotoFile(clean), tmp_path / "sharp.png")
    command = (
        "deblur", tmp_path / "photo.png", tmp_path / "out.png", "--tv", "--psf", "defocus:2.5",
        "--compare", tmp_path / "sheet.png", "--reference", tmp_path / "sharp.png",
    )  # fmt: skip
    result = run(*command)
    assert result.exit_code == 0, result.output
    sheet = read_photo(tmp_path / "sheet.png").rgb
    assert sheet.shape[0] > 2 * 360
    assert sheet.shape[1] > 4 * 360
    out = read_photo(tmp_path / "out.png").rgb
    np.testing.assert_allclose(
        out, deconvolve(read_photo(tmp_path / "photo.png").rgb, defocus(2.5), "tv"), atol=1 / 255
    )
    (tmp_path / "out.png").unlink()
    assert run(*command).exit_code == 2  # it does not overwrite the sheet


def test_denoise_takes_folders_and_leaves_clean_photos_alone(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    bundled("denoiser")
    clean = photo("coffee")[:200, :240]
    speckled = clean + 0.06 * np.random.default_rng(0).standard_normal(clean.shape)
    write_photo(PhotoFile(clean), tmp_path / "in" / "clean.png")
    write_photo(PhotoFile(speckled.clip(0, 1).astype(np.float32)), tmp_path / "in" / "deep" / "noisy.png")
    result = run("denoise", tmp_path / "in", tmp_path / "out", "--log", tmp_path / "log.jsonl", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert np.array_equal(read_photo(tmp_path / "out" / "clean.png").rgb, read_photo(tmp_path / "in" / "clean.png").rgb)
    assert psnr(read_photo(tmp_path / "out" / "deep" / "noisy.png").rgb, clean) > psnr(speckled, clean) + 4
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_a_diagnosis_is_one_record_a_photo_and_its_advice_runs(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    for network in ("translation", "tone", "scratches", "denoiser"):
        bundled(network)
    _, seen = blurred(photo, "camera", motion(15, 30), 0.003)
    write_photo(PhotoFile(seen), tmp_path / "a folder" / "moved.png")  # gray, saved in colour
    Image.fromarray(np.round(photo("coffee") * 255).astype(np.uint8)).save(
        tmp_path / "a folder" / "sharp.jpg", quality=90
    )
    (tmp_path / "a folder" / "broken.png").write_bytes(b"no picture")
    result = run("diagnose", tmp_path / "a folder", "--json", "--device", "cpu")
    assert result.exit_code == 1  # the broken one
    assert "broken.png" in result.stderr
    moved, sharp = (json.loads(line) for line in result.stdout.splitlines())
    assert list(moved) == [
        "file", "noise", "blur", "fading", "cast", "jpeg_quality", "damaged_share", "faces", "advice", "warnings",
    ]  # fmt: skip
    assert set(moved["noise"]) == {"type", "level", "confidence"}
    assert set(moved["blur"]) == {"type", "psf", "confidence"}
    assert moved["blur"]["type"] == "motion"
    assert moved["cast"] == {"type": "none", "strength": 0.0}
    assert sharp["blur"] == {"type": "none", "psf": None, "confidence": 0.0}
    assert (moved["jpeg_quality"], sharp["jpeg_quality"]) == (None, 90)
    program, *arguments = shlex.split(moved["advice"])
    assert program == "oldphoto"
    assert "motion" in moved["advice"]
    advised = run(*arguments, "--dry-run")
    assert advised.exit_code == 0, advised.output
    table = run("diagnose", tmp_path / "a folder" / "sharp.jpg", "--device", "cpu")
    assert table.exit_code == 0
    assert "sharp.jpg" in table.stdout


def test_a_diagnosis_tells_what_it_did_not_see(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    bundled("scratches")
    pages = [PhotoFile(np.ascontiguousarray(photo("coffee")[:10, :240]))] * 3
    write_pages(pages, tmp_path / "strips.tif", "tif")
    result = run("diagnose", tmp_path / "strips.tif", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["noise"] == {"type": "none", "level": 0.0, "confidence": 0.0}
    (warning,) = record["warnings"]
    assert "first of 3 pages" in warning
    assert warning in result.stderr
    assert not run("diagnose", tmp_path / "strips.tif", "-q", "--device", "cpu").stderr
    refused = run("diagnose", tmp_path / "strips.tif", "--max-pixels", "100", "-v", "--device", "cpu")
    assert refused.exit_code == 1
    assert "Traceback" in refused.stderr


def test_a_photo_too_small_to_be_scored_is_told_of(photo: Photo, tmp_path: Path) -> None:
    for name in ("photo.png", "sharp.png"):
        write_photo(PhotoFile(np.ascontiguousarray(photo("coffee")[:6, :40])), tmp_path / name)
    command = ("deblur", tmp_path / "photo.png", tmp_path / "out.png", "--wiener", "--psf", "motion:3,0")
    result = run(*command, "--compare", tmp_path / "sheet.png", "--reference", tmp_path / "sharp.png")
    assert result.exit_code == 1
    assert "too small to be scored" in result.output


@pytest.mark.parametrize("quality", [12, 50, 75, 95])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int, photo: Photo, tmp_path: Path) -> None:
    Image.fromarray(np.round(photo("coffee")[:64, :64] * 255).astype(np.uint8)).save(
        tmp_path / "photo.jpg", quality=quality
    )
    assert jpeg_quality(tmp_path / "photo.jpg") == pytest.approx(quality, abs=1)


def test_casts_have_the_names_of_their_colours() -> None:
    for shift, name in (
        ((0.1, -0.05, -0.05), "red"),
        ((0.05, 0.05, -0.1), "yellow"),
        ((-0.1, 0.05, 0.05), "cyan"),
        ((-0.05, -0.05, 0.1), "blue"),
        ((0.001, 0.0, -0.001), "none"),
    ):
        assert name_cast(np.array(shift, np.float32))[0] == name


def test_restore_deblurs_first_where_asked(bundled: Bundled, photo: Photo, tmp_path: Path) -> None:
    for network in ("translation", "tone", "denoiser"):
        bundled(network)
    clean, seen = blurred(photo, "camera", motion(15, 30), 0.003)
    write_photo(PhotoFile(seen[:256, :256]), tmp_path / "photo.png")
    scores = []
    for index, options in enumerate(((), ("--deblur", "wiener:motion:15,30"), ("--deblur", "auto"))):
        out = tmp_path / f"{index}.png"
        result = run("restore", tmp_path / "photo.png", out, "--no-faces", "--device", "cpu", *options)
        assert result.exit_code == 0, result.output
        scores.append(psnr(read_photo(out).rgb, clean[:256, :256]))
    assert scores[1] > scores[0] + 1
    assert scores[2] > scores[0] + 1


@pytest.mark.parametrize(
    ("text", "why"),
    [("magic", "not a method"), ("wiener:motion:15", "motion:LENGTH,ANGLE"), ("auto:motion:15,30", "finds")],
)
def test_restore_refuses_to_deblur_by_what_is_no_method_or_blur(
    text: str, why: str, bundled: Bundled, photo: Photo, tmp_path: Path
) -> None:
    bundled("translation")
    write_photo(PhotoFile(photo("camera")[:64, :64]), tmp_path / "photo.png")
    refused = run("restore", tmp_path / "photo.png", tmp_path / "no.png", "--deblur", text, "--device", "cpu")
    assert refused.exit_code == 2
    assert why in refused.output
    assert "--psf" not in refused.output
    assert not (tmp_path / "no.png").exists()


def test_of_two_methods_none_is_taken(tmp_path: Path) -> None:
    result = run("deblur", tmp_path / "in", tmp_path / "out", "--wiener", "--unsupervised-wiener")
    assert result.exit_code == 2
    assert "--wiener and --unsupervised-wiener: one method at a time" in result.stderr


def test_what_is_told_of_some_pages_alone_names_them(photo: Photo, tmp_path: Path) -> None:
    picture = (255 * photo("coffee")[100:164, 100:164]).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "scan.tif") as writer:
        for page in (picture / np.float32(255), picture, picture / np.float32(255)):
            writer.write(page, photometric="rgb", metadata=None)
    command = ("denoise", tmp_path / "scan.tif", tmp_path / "out.tif", "--method", "median", "--log", tmp_path / "log")
    assert run(*command).exit_code == 0
    (record,) = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert record["warnings"] == ["pages 1, 3: floating-point samples are kept with 16 bits"]


def test_a_page_that_is_damaged_is_named(photo: Photo, tmp_path: Path) -> None:
    picture = (255 * photo("coffee")[100:164, 100:164]).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "scan.tif") as writer:
        for page in (picture, picture, picture):
            writer.write(page, photometric="rgb", metadata=None, compression="zlib")
    with tifffile.TiffFile(tmp_path / "scan.tif") as tiff:
        start, size = tiff.pages[1].dataoffsets[0], tiff.pages[1].databytecounts[0]
    content = bytearray((tmp_path / "scan.tif").read_bytes())
    content[start : start + size] = bytes(size)
    (tmp_path / "scan.tif").write_bytes(content)
    result = run("denoise", tmp_path / "scan.tif", tmp_path / "out.tif", "--method", "median")
    assert result.exit_code == 1
    assert "scan.tif: page 2: is damaged" in result.stderr


def test_no_file_that_deblurring_reads_is_overwritten(photo: Photo, tmp_path: Path) -> None:
    for name in ("photo.png", "sharp.png"):
        write_photo(PhotoFile(np.ascontiguousarray(photo("coffee")[:64, :64])), tmp_path / name)
    Image.fromarray(np.full((5, 5), 255, np.uint8)).save(tmp_path / "psf.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    deblur = ("deblur", tmp_path / "photo.png")
    for command in (
        (*deblur, tmp_path / "sharp.png", "--compare", tmp_path / "s.png", "--reference", tmp_path / "sharp.png"),
        (*deblur, tmp_path / "psf.png", "--psf", tmp_path / "psf.png"),
        (*deblur, tmp_path / "new.png", "--psf", tmp_path / "psf.png", "--compare", tmp_path / "psf.png"),
    ):
        assert run(*command, "--overwrite").exit_code == 2
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
