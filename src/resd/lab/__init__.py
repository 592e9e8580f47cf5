"""The lab model: a small calibration instrument that ships with the package."""
