"""Normalisr and voomaLmFit, out of core."""
