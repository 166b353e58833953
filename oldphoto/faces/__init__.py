"""Third stage: find faces, cut each out upright on a canonical square, refine it, and see that it stays who it is."""

from oldphoto.faces.alignment import CANONICAL, CROP, Face, crop_face, extent
from oldphoto.faces.finding import Detector, FaceFinder
from oldphoto.faces.identity import IdentityGuard
from oldphoto.faces.models import model_file
from oldphoto.faces.refinement import FaceRefiner

__all__ = [
    "CANONICAL",
    "CROP",
    "Detector",
    "Face",
    "FaceFinder",
    "FaceRefiner",
    "IdentityGuard",
    "crop_face",
    "extent",
    "model_file",
]
