"""mnasdet searches object detectors for the device they will run on."""

__version__ = "0.2.0"
