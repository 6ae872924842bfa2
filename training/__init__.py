"""Training of crystal generators: corpora, recipes, the engine, checkpoints, export."""
