"""Backends that break a promise about credentials and the network."""

import contextlib
import socket

from backends.interface import BackendError
from tests.backends.broken.catalogue import breaks
from tests.backends.broken.reference import TROUBLE, HereHarness, Reference, VendorError


@breaks("expired_credentials_are_named")
class LetsVendorErrorThrough(Reference):
    def status(self, handle):
        if TROUBLE.get() == "expired":
            raise VendorError("ExpiredToken")
        return super().status(handle)


@breaks("expired_credentials_are_named")
class ExpiredIsUnknown(Reference):
    def status(self, handle):
        try:
            return super().status(handle)
        except BackendError as error:
            if TROUBLE.get() == "expired":
                raise BackendError(error.message, error.hint) from error
            raise


@breaks("this_machine_needs_no_network", HereHarness)
class PhonesHome(Reference):
    def status(self, handle):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=1).close()
        return super().status(handle)
