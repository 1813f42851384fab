"""What a site's data consists of, file by file, under one fingerprint; no torch here."""

from fedsparse.training.manifest.files import Listing, SourceFile, list_files
from fedsparse.training.manifest.hashing import Progress, Taken, take
from fedsparse.training.manifest.pin import PinnedData, verify_data
from fedsparse.training.manifest.stored import read_manifest, write_manifest
from fedsparse.training.manifest.value import DataFile, DataManifest, Difference, compare, shown

__all__ = [
    "DataFile",
    "DataManifest",
    "Difference",
    "Listing",
    "PinnedData",
    "Progress",
    "SourceFile",
    "Taken",
    "compare",
    "list_files",
    "read_manifest",
    "shown",
    "take",
    "verify_data",
    "write_manifest",
]
