"""One file → gray pixels: images, DICOM, NIfTI."""
