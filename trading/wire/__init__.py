"""Bytes of the wire: scanners that read a venue's frames without making objects of them."""
