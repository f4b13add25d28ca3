"""Imports with the module something that the core does not bring (pytest does)."""

import iniconfig  # noqa: F401

from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import Reference


@breaks("module_imports_no_sdk")
class ImportsSdk(Reference):
    pass
