"""Stage 2: captions and entity names become a lattice table."""
