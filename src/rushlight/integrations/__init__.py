"""Bridges to other libraries, each behind an extra; none is imported by the rest of Rushlight."""
