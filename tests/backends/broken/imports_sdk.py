"""Imports the SDK with the module."""

import vendor_sdk  # noqa: F401

from broken.catalogue import breaks
from broken.reference import Reference


@breaks("module_imports_no_sdk")
class ImportsSdk(Reference):
    pass
