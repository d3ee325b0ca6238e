"""Opens the device that a spec names."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mnasdet.tflite.devices import android, host, native
from mnasdet.tflite.devices.device import Device, DeviceSpec


def opened(spec: DeviceSpec) -> AbstractContextManager[Device]:
    """Returns the device, for this process alone until the context ends.

    Raises:
      UserError: it is missing, cannot be used, or was in use for too long.
    """
    if spec.kind == "adb":
        return android.opened(spec)
    return native.opened(spec) if spec.binary else host.opened(spec)
