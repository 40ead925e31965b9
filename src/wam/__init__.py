"""wam: a World Action Model that you can read in an evening, train on a laptop and run on your robot."""

__version__ = "0.1.0"
