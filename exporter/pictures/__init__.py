"""Saves pictures: their names, formats, EXIF, files and rows."""
