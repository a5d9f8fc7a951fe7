"""Local features of an image: SIFT or Hessian-affine keypoints with RootSIFT descriptors (Section 3)."""

import os
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated, Any, Literal, NamedTuple, get_args

import cv2
import numpy as np

from rmaclib.foundation.errors import MissingPackageError
from rmaclib.foundation.settings import Field, settings
from rmaclib.images import read_image, resize_longer

Detector = Literal["sift", "hessian-affine"]
DETECTORS = get_args(Detector)
# Of N keypoints: points (N, 2), descriptors (N, 128) uint8, responses (N,), sides of the squares they cover (N,).
Detected = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_SIFT_SQUARE = 6  # OpenCV's size is 2 sigma; a descriptor covers four by four bins of 3 sigma


class Features(NamedTuple):
    """Keypoints of one image.

    Attributes:
        points: (N, 2) float32, in pixels of the original image.
        descriptors: (N, 128) uint8, SIFT; ``root_sift`` makes them comparable.
        size: Width and height of the original image in pixels.
        sides: (N,) float32, side in pixels of the square around a point that its descriptor covers.
    """

    points: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]
    sides: np.ndarray


@settings
class KeypointSettings:
    """How keypoints are extracted. The paper names both detectors and gives neither size nor number.

    Attributes:
        detector: "sift" (OpenCV), or "hessian-affine" (kornia, the extra ``hessian``).
        size: Longer side in pixels that every image is resized to; small ones are enlarged, which gives more
            keypoints.
        count: Keypoints kept, those of the strongest response. The time of matching grows with its square.
    """

    detector: Detector = "sift"
    size: Annotated[int, Field(ge=16, le=16_384)] = 512
    count: Annotated[int, Field(ge=3, le=100_000)] = 1000


def extract_keypoints(path: str | os.PathLike, settings: KeypointSettings | None = None) -> Features:
    """Keypoints of an image file (Section 3).

    Args:
        path: The image.
        settings: Detector, size of the image and number of keypoints.

    Returns:
        Keypoints in the order that the detector gives; none (N = 0) for a flat picture.

    Raises:
        ImageError: The file can't be read.
        MissingPackageError: kornia isn't installed, which "hessian-affine" needs.
    """
    settings = settings or KeypointSettings()
    image = read_image(path)
    grey = np.asarray(resize_longer(image, settings.size, enlarge=True).convert("L"))  # (H, W)
    detect = _sift if settings.detector == "sift" else _hessian_affine
    points, descriptors, response, sides = detect(grey, settings.count)
    # OpenCV may return a few more than requested; equal responses keep their order.
    strongest = np.sort(np.argsort(-response, kind="stable")[:settings.count])
    # Pixel centres: x of the resized image is (x + 1/2) * scale - 1/2 of the original.
    scale = np.array(image.size) / grey.shape[::-1]
    points = ((points[strongest] + 0.5) * scale - 0.5).astype(np.float32)
    sides = (sides[strongest] * scale.mean()).astype(np.float32)
    return Features(points, descriptors[strongest], image.size, sides)


def need_packages(detector: str) -> None:
    """Check that a detector's package is installed.

    Args:
        detector: One of DETECTORS.

    Raises:
        MissingPackageError: It isn't.
    """
    if detector == "hessian-affine" and not find_spec("kornia"):
        raise MissingPackageError("hessian-affine keypoints need kornia: install rmaclib[hessian], "
                                  "or choose the detector 'sift'")


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT (Arandjelović and Zisserman 2012): square root of the ℓ1-normalised SIFT descriptor.

    The dot product of two RootSIFT descriptors is the Hellinger kernel of the SIFT histograms, 0..1.

    Args:
        descriptors: (N, 128) uint8.

    Returns:
        (N, 128) float32, ℓ2-normalised; zero for a zero descriptor.
    """
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(1, keepdims=True), 1))


def _sift(grey: np.ndarray, count: int) -> Detected:
    # The precise pyramid avoids a shift of a quarter of a pixel. With half of OpenCV's default contrast hazy pictures
    # have enough keypoints too, and ``count`` limits them.
    sift = cv2.SIFT.create(nfeatures=count, contrastThreshold=0.02, enable_precise_upscale=True)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if not keypoints:
        return _no_keypoints()
    # OpenCV's SIFT descriptors are whole numbers 0..255 stored as float32.
    return (np.array([keypoint.pt for keypoint in keypoints]), descriptors.astype(np.uint8),
            np.array([keypoint.response for keypoint in keypoints]),
            _SIFT_SQUARE * np.array([keypoint.size for keypoint in keypoints]))


def _hessian_affine(grey: np.ndarray, count: int) -> Detected:
    """Hessian blobs with affine shape (Mikolajczyk and Schmid 2004), as implemented in kornia."""
    need_packages("hessian-affine")
    import kornia.feature as features
    import torch

    detector, descriptor = _hessian_parts(count)
    image = torch.from_numpy(grey.astype(np.float32) / 255)[None, None]  # (1, 1, H, W)
    with torch.inference_mode():
        frames, response = detector(image)  # (1, N, 2, 3), (1, N)
        # kornia gives frames that left the image response 0; flat parts have about 1e-13, by rounding.
        responds = response[0] > 1e-10
        frames, response = frames[:, responds], response[:, responds]
        if not responds.any():
            return _no_keypoints()
        patches = features.extract_patches_from_pyramid(image, frames, 41)[0]  # (N, 1, 41, 41)
        vectors = descriptor(patches)  # (N, 128), l2-normalised
    # SIFT's own scaling to bytes: a unit vector times 512, cut at 255.
    return (frames[0, :, :, 2].numpy(), np.clip(np.rint(vectors.numpy() * 512), 0, 255).astype(np.uint8),
            response[0].numpy(), 2 * features.get_laf_scale(frames)[0, :, 0, 0].numpy())


@lru_cache(maxsize=2)
def _hessian_parts(count: int) -> tuple[Any, Any]:
    """kornia's detector and descriptor."""
    import kornia.feature as features

    detector = features.ScaleSpaceDetector(
        count, resp_module=features.BlobHessian(), aff_module=features.LAFAffineShapeEstimator(19),
        ori_module=features.LAFOrienter(19), mr_size=6.0)
    return detector.eval(), features.SIFTDescriptor(41, rootsift=False).eval()


def _no_keypoints() -> Detected:
    return np.zeros((0, 2)), np.zeros((0, 128), np.uint8), np.zeros(0), np.zeros(0)
