"""What every stage shares: schemas, files, images, tokens, errors. Imports no torch."""
