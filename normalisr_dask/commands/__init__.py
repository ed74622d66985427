"""Normalisr's commands: from files to files, through the steps; what computes them."""
