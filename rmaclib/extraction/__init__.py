"""Extracting descriptors and region proposals of many images (Section 4.4)."""
