"""Webcams and capture cards of Linux."""
